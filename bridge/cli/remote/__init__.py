"""Commands that use a bridge over HTTP; they import neither SQLAlchemy nor the servers."""
