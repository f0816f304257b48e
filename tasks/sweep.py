"""A run of a sweep in Celery: recorded, or left to the next run where a server is away."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis
import structlog
from sqlalchemy.exc import SQLAlchemyError

from bridge.db import is_unavailable
from bridge.sweeps import swept
from tasks.app import runtime

log = structlog.get_logger("tasks.sweep")


@contextmanager
def left_to_the_next(name: str) -> Iterator[None]:
    """Run work that a later run can do as well: if PostgreSQL or Redis is away, it ends with a log line.

    A task that raises sends its whole traceback to Celery's parent process. One through SQLAlchemy has some 90 KB, more
    than the pipe holds: a parent that was told to stop no longer reads it, and would wait for its child for ever.
    """
    try:
        yield
    except redis.RedisError as error:
        log.warning("sweep_skipped_redis_unavailable", sweep=name, error=type(error).__name__)
    except SQLAlchemyError as error:
        if not is_unavailable(error):
            raise
        log.warning("sweep_skipped_postgresql_unavailable", sweep=name, error=type(error).__name__)


@contextmanager
def sweep(name: str) -> Iterator[dict[str, int]]:
    """Record a run; set `changed` to the rows that it changed. A skipped run is not recorded: the age shows it."""
    with left_to_the_next(name), swept(runtime().engine, name) as run:
        yield run
