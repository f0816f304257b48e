"""Uploads: stores, the bytes as they come, what is collected."""
