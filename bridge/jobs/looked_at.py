"""Checks of a create that depend on its moment: its source, its time, and whom it asks to call."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from bridge.caller import Caller
from bridge.errors import Invalid
from bridge.jobs.callbacks import Callback, callback_for
from bridge.jobs.remote_sources import fetched_by
from bridge.jobs.source_checks import look
from bridge.runtime import Runtime

Fields = Mapping[str, Any]  # validated by bridge.jobs.fields.CreateFields


class Seen(NamedTuple):
    """What was found about a job that may be created."""

    size: int | None  # bytes of its source file; None: the source is an address
    fetch: str | None  # who asks the address' server: `worker`, or None for the bridge
    callback: Callback


def clock(connection: Connection, created: Sequence[Fields]) -> datetime | None:
    """Return PostgreSQL's now if a job names a moment to compare with it, else None."""
    if all(fields["available_at"] is None for fields in created):
        return None
    now: datetime = connection.execute(text("SELECT now()")).scalar_one()
    return now


def looked_at(
    runtime: Runtime, tenant: str, created: Sequence[Fields], now: datetime | None, asks: Caller
) -> tuple[dict[int, dict[str, object]], list[Seen]]:
    """Check the jobs; return the refusals by place (field → messages), and what was found about each."""
    refused: dict[int, dict[str, object]] = {}
    found = []
    for place, fields in enumerate(created):
        size, fetch, callback, path = None, None, Callback(), fields["source_file_path"]
        try:
            fetch = fetched_by(runtime.settings, asks, path, fields["source_fetch"])
            size = look(runtime, tenant, path, fields["source_sha256"])
        except Invalid as error:
            refused[place] = dict(error.errors)
        try:
            callback = callback_for(runtime.settings, asks, fields["callback_url"])
        except Invalid as error:
            refused.setdefault(place, {}).update(error.errors)
        if now is not None and fields["available_at"] is not None and fields["available_at"] <= now:
            refused.setdefault(place, {})["available_at"] = ["Must be a future time."]
        found.append(Seen(size, fetch, callback))
    return refused, found
