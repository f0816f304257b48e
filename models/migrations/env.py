"""How Alembic reaches the database: by the engine it is given. Migrations run one at a time; others wait."""

from alembic import context
from sqlalchemy import text

# Each adds its tables to the metadata, by which tests and benches empty a database that was migrated here.
import models.asking
import models.batch
import models.count
import models.duration
import models.job_log
import models.key
import models.metric_total
import models.outbox
import models.pause
import models.pipeline_queue
import models.refusal
import models.request
import models.sweep  # noqa: F401
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
