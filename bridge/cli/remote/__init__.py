"""Commands that speak HTTP to a bridge; they import neither SQLAlchemy nor the servers."""
