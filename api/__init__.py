"""The HTTP API. Imports bridge and models, never tasks."""
