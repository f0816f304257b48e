"""Intake, beat and the sweeps over Celery."""
