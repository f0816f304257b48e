"""Explanations, statistics, health."""
