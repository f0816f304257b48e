"""The mirror of pending jobs in Redis: a hint, never the truth. PostgreSQL only for repair and due jobs."""
