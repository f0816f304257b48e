"""Commands that start processes here or speak to the database."""
