"""The tests: against real PostgreSQL, Redis, Celery and HTTP, which the session starts for itself."""
