"""What only the moment of a create can tell: of its file, of its time, and of whom it wants to be called."""

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
    """PostgreSQL's now, where a job names a moment that is to be compared with it."""
    if all(fields["available_at"] is None for fields in created):
        return None
    now: datetime = connection.execute(text("SELECT now()")).scalar_one()
    return now


def looked_at(
    runtime: Runtime, tenant: str, created: Sequence[Fields], now: datetime | None, asks: Caller
) -> tuple[dict[int, dict[str, object]], list[int | None], list[Callback]]:
    """Refusals by place (field → messages), the files' sizes, and whom to call."""
    refused: dict[int, dict[str, object]] = {}
    sizes: list[int | None] = []
    callbacks = []
    for place, fields in enumerate(created):
        try:
            check_fetch(runtime.settings, fields["source_fetch"])
            sizes.append(look(runtime, tenant, fields["source_file_path"]))
        except Invalid as error:
            refused[place] = dict(error.errors)
        try:
            callbacks.append(callback_for(runtime.settings, asks, fields["callback_url"]))
        except Invalid as error:
            refused.setdefault(place, {}).update(error.errors)
        if now is not None and fields["available_at"] is not None and fields["available_at"] <= now:
            refused.setdefault(place, {})["available_at"] = ["Must be a future time."]
    return refused, sizes, callbacks
