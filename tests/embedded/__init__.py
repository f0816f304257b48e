"""PostgreSQL and Redis: the embedded servers, requirements, migrations."""
