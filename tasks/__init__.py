"""The Celery tasks. Imports bridge and models, never api."""
