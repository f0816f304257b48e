"""The dashboard: pages for people, made from the same core as the API."""
