"""The command `bridge-worker`: reads its arguments, loads the handlers, runs until a signal."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import re
import select
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from bridge_worker import __version__
from bridge_worker.attempt import Handler
from bridge_worker.client import BridgeClient
from bridge_worker.runner import Runner

log = logging.getLogger("bridge_worker")
CONTENT_TYPE = re.compile(r"[a-z0-9._-]{1,50}")


class UsageError(Exception):
    """A wrong argument; its text is one line for a person."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = argparse.ArgumentParser(prog="bridge-worker", description="Converts the files of a bridge's jobs.")
    p.add_argument("--url", default=os.environ.get("BRIDGE_URL"), help="the bridge's address (default: BRIDGE_URL)")
    p.add_argument(
        "--key",
        default=os.environ.get("BRIDGE_KEY"),
        help="key with scope work (default: BRIDGE_KEY, which other users cannot see)",
    )
    p.add_argument("--content-types", default="", metavar="TYPE,…", help="what to take, up to 32 types")
    p.add_argument(
        "--handler",
        action="append",
        required=True,
        metavar="[TYPE=]MODULE:FUNCTION",
        help="the function (job, path) -> Result, for one type or for all; may be repeated",
    )
    p.add_argument("--concurrency", type=int, default=1, metavar="N", help="jobs at a time (default 1)")
    p.add_argument(
        "--worker-id",
        default=f"{socket.gethostname()}-{os.getpid()}"[:255],
        metavar="ID",
        help="name of this worker (default: host name and process ID)",
    )
    p.add_argument(
        "--lease",
        type=int,
        default=60,
        metavar="S",
        help="seconds of silence after which the bridge gives a job to another, 10–3600 (default 60)",
    )
    p.add_argument("--wait", type=int, default=30, metavar="S", help="seconds a poll waits, 0–60 (default 30)")
    p.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    p.add_argument("--version", action="version", version=f"bridge-worker {__version__}")
    return p


def load_handlers(specs: Sequence[str], content_types: Sequence[str]) -> dict[str, Handler]:
    """Map each content type (default: those that `specs` name) to its function. Raises UsageError."""
    by_type: dict[str, Handler] = {}
    for_all: Handler | None = None
    for spec in specs:
        content_type, _, name = spec.rpartition("=")
        if content_type:
            by_type[content_type] = _load(name)
        else:
            for_all = _load(name)
    types = list(content_types) or list(by_type)
    if not types:
        raise UsageError("--content-types is missing")
    if len(types) > 32:
        raise UsageError("--content-types: at most 32")
    for content_type in [*types, *by_type]:
        if not CONTENT_TYPE.fullmatch(content_type):
            raise UsageError(f"content type {content_type!r}: 1–50 of a-z 0-9 . _ -")
    handlers = {}
    for content_type in types:
        handler = by_type.get(content_type, for_all)
        if handler is None:
            raise UsageError(f"no --handler for content type {content_type}")
        handlers[content_type] = handler
    return handlers


def _load(name: str) -> Handler:
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise UsageError(f"--handler {name!r}: expected package.module:function")
    try:
        handler = getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        hint = "; pip install 'bridge-worker[handlers]'" if module_name.startswith("bridge_worker.") else ""
        raise UsageError(f"--handler {name}: {error}{hint}") from error
    except AttributeError as error:
        raise UsageError(f"--handler {name}: {error}") from error
    if not callable(handler):
        raise UsageError(f"--handler {name}: not a function")
    return handler  # type: ignore[no-any-return]


def _check(options: argparse.Namespace) -> None:
    """Refuse arguments that the bridge would refuse. Raises UsageError."""
    if not options.url:
        raise UsageError("--url or BRIDGE_URL is missing")
    if urlsplit(options.url).scheme not in ("http", "https") or not urlsplit(options.url).hostname:
        raise UsageError("--url: expected http://… or https://…")
    if options.key and not re.fullmatch(r"[!-~]+", options.key):
        raise UsageError("--key: only visible ASCII characters")
    if options.concurrency < 1:
        raise UsageError("--concurrency: at least 1")
    if not 10 <= options.lease <= 3600:
        raise UsageError("--lease: 10 to 3600 seconds")
    if not 0 <= options.wait <= 60:
        raise UsageError("--wait: 0 to 60 seconds")
    if not 1 <= len(options.worker_id) <= 255:
        raise UsageError("--worker-id: 1 to 255 characters")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the worker; return 0 after a drained stop, 1 when the bridge refused it, 2 for wrong arguments."""
    options = parser().parse_args(arguments)
    logging.basicConfig(
        level=options.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("urllib3").setLevel(logging.WARNING)  # its lines hold addresses with claim IDs
    sys.path.append(os.getcwd())
    try:
        _check(options)
        types = [name.strip() for name in options.content_types.split(",") if name.strip()]
        handlers = load_handlers(options.handler, types)
    except UsageError as error:
        print(f"bridge-worker: {error}", file=sys.stderr)
        return 2
    return _run_until_signal(options, handlers)


def _run_until_signal(options: argparse.Namespace, handlers: dict[str, Handler]) -> int:
    """Run; the first SIGTERM or SIGINT drains, the second ends the process at once."""
    read_end, write_end = os.pipe()
    signals = 0

    def on_signal(number: int, _frame: Any) -> None:
        # Only what is safe at any moment of the main thread: it may hold a lock just now.
        nonlocal signals
        signals += 1
        if signals > 1:
            os._exit(128 + number)
        os.write(write_end, b"s")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    client = BridgeClient(options.url, options.key, options.worker_id, connections=2 * options.concurrency + 2)
    runner = Runner(
        client,
        handlers,
        concurrency=options.concurrency,
        lease=options.lease,
        wait=options.wait,
        on_end=lambda: os.write(write_end, b"e"),
    )
    log.info(
        "worker %s takes %s from %s, %d at a time",
        options.worker_id,
        ",".join(sorted(handlers)),
        _without_secrets(options.url),
        options.concurrency,
    )
    runner.start()
    while True:
        select.select([read_end], [], [])
        if b"e" in os.read(read_end, 16):
            log.info("worker %s ended", options.worker_id)
            return 1 if runner.failed else 0
        log.info("worker %s stops after what it has begun; a second signal ends it at once", options.worker_id)
        runner.stop()


def _without_secrets(url: str) -> str:
    """Return the address without a user, a password or a query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


if __name__ == "__main__":
    sys.exit(main())
