"""What happens to jobs. Knows no Flask and no Celery task; imports only models."""
