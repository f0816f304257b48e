"""The mirror of pending jobs in Redis: a hint, never the truth. May use PostgreSQL only to repair it."""
