"""Outcomes on their way to the pipeline."""
