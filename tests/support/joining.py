"""Joins of uploads, and the time between them."""

from pathlib import Path
from typing import Any

from bridge.blobs import collect, join
from tests.support.core import Core
from tests.support.tus import objects


def age(core: Core, seconds: float) -> None:
    """Let time pass for joins and for objects."""
    core.sql(
        "WITH u AS (UPDATE uploads SET join_at = join_at - make_interval(secs => :s))"
        " UPDATE upload_segments SET written_at = written_at - make_interval(secs => :s)",
        s=seconds,
    )


def collected(core: Core) -> int:
    """Let the time pass after which nothing unnamed is left; return how many objects there are."""
    age(core, collect.ABANDONED_SECONDS + 1)
    collect.collect(core.runtime)
    age(core, collect.SETTLED_SECONDS + 1)
    collect.collect(core.runtime)
    assert len(core.sql("SELECT FROM upload_segments")) == len(objects(core.runtime.settings))
    return len(objects(core.runtime.settings))


def place(core: Core, name: str) -> Path:
    """Return where the directory store keeps an object."""
    return Path(str(core.runtime.settings.store).removeprefix("file:")) / name


def joins(core: Core, **options: Any) -> int | None:
    """Join what is due first."""
    return join.join_next(core.runtime, **options)
