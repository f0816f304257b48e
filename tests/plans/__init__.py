"""Plans of the statements on large tables and on stale statistics."""
