"""Checks of a create that depend on its moment: its source, its time, and whom it asks to call."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from bridge.caller import Caller
from bridge.errors import Invalid
from bridge.jobs.callbacks import Callback, callback_for
from bridge.jobs.remote_sources import check_fetch
from bridge.jobs.source_checks import look
from bridge.runtime import Runtime

Fields = Mapping[str, Any]  # validated by bridge.jobs.fields.CreateFields


def clock(connection: Connection, created: Sequence[Fields]) -> datetime | None:
    """Return PostgreSQL's now if a job names a moment to compare with it, else None."""
    if all(fields["available_at"] is None for fields in created):
        return None
    now: datetime = connection.execute(text("SELECT now()")).scalar_one()
    return now


def looked_at(
    runtime: Runtime, tenant: str, created: Sequence[Fields], now: datetime | None, asks: Caller
) -> tuple[dict[int, dict[str, object]], list[int | None], list[Callback]]:
    """Check the jobs; return the refusals by place (field → messages), the files' sizes in bytes, and whom to call."""
    refused: dict[int, dict[str, object]] = {}
    sizes: list[int | None] = []
    callbacks = []
    for place, fields in enumerate(created):
        try:
            check_fetch(runtime.settings, fields["source_fetch"])
            sizes.append(look(runtime, tenant, fields["source_file_path"], fields["source_sha256"]))
        except Invalid as error:
            refused[place] = dict(error.errors)
        try:
            callbacks.append(callback_for(runtime.settings, asks, fields["callback_url"]))
        except Invalid as error:
            refused.setdefault(place, {}).update(error.errors)
        if now is not None and fields["available_at"] is not None and fields["available_at"] <= now:
            refused.setdefault(place, {})["available_at"] = ["Must be a future time."]
    return refused, sizes, callbacks
