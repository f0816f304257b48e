"""Logs: one event a line, JSON unless a person reads a terminal."""

import json
import logging
import sys
from functools import partial
from typing import Any, TextIO

import orjson
import structlog

from bridge.settings import Settings

# Celery logs each task twice and beat once, every second; at `info` only what the tasks did is worth a line.
CHATTY = ("celery.worker.strategy", "celery.app.trace", "celery.beat")
# At `debug` it prints messages whole, with the arguments in them.
INDISCREET = "celery.pool"


def configure_logging(settings: Settings) -> None:
    """Send structlog and the standard library through one renderer to stderr. IDs, never document text or keys.

    A line below the level costs one comparison.
    """
    as_json = (settings.log_format or ("console" if sys.stderr.isatty() else "json")) == "json"
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendered: list[structlog.types.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_as_json)]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    if settings.log_level == "info":
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(INDISCREET).setLevel(max(logging.INFO, root.level))
    structlog.configure(
        processors=[*shared, *rendered],
        logger_factory=partial(_Lines, sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        cache_logger_on_first_use=True,
    )


def _as_json(line: Any, **options: Any) -> str:
    """Render a line with orjson, which takes a fraction of the time; what it refuses (a number beyond 64 bits, a lone
    surrogate) with the standard library."""
    try:
        return orjson.dumps(line, default=options["default"], option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError:
        return json.dumps(line, **options)


class _Lines(structlog.WriteLogger):
    """Writes what structlog has rendered. Through the standard library each line cost a fifth of a request."""

    def __init__(self, file: TextIO, name: str = "") -> None:
        super().__init__(file)
        self.name = name
