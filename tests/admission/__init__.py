"""Keys, tenants, limits and the JSON guard."""
