"""Redis: what is repaired, refused, failed over."""
