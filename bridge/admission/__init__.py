"""What may come in: API keys, limits, and the JSON guard. Decides before anything of a request is done."""
