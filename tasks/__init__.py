"""Who asks over Celery. Imports bridge and models, never api."""
