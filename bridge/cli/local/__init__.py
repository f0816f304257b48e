"""Commands that start processes here or use the database."""
