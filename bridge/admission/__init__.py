"""What may come in: API keys, limits, and the JSON guard. Decides before any work on a request begins."""
