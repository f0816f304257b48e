"""Who asks over HTTP. Imports bridge and models, never tasks."""
