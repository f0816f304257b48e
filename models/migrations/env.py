"""How Alembic reaches the database: by the engine it is given. Migrations run one at a time; others wait."""

from alembic import context
from sqlalchemy import text

from models.job import metadata

LOCK = 7268120  # an arbitrary number that no other advisory lock of the bridge uses

engine = context.config.attributes["engine"]
with engine.connect() as connection:
    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
    connection.commit()
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
    connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
