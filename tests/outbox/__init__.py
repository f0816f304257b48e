"""Outcomes and their delivery to the pipeline."""
