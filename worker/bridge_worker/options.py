"""The arguments of `bridge-worker` and `bridge-worker try`, checked before anything is started."""

from __future__ import annotations

import argparse
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from bridge_worker import __version__, platforms
from bridge_worker.loading import choose
from bridge_worker.process import Setup
from bridge_worker.public_addresses import read_networks
from jobbridge_client.address import stays_here

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


class UsageError(Exception):
    """A wrong argument; its text is one line for people."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command without a subcommand."""
    p = argparse.ArgumentParser(
        prog="bridge-worker",
        description="Converts the files of a bridge's jobs.",
        epilog="`bridge-worker try FILE --handler …` runs a handler over one file, without a bridge.",
    )
    p.add_argument("--url", default=os.environ.get("BRIDGE_URL"), help="the bridge's address (default: BRIDGE_URL)")
    p.add_argument(
        "--key",
        default=os.environ.get("BRIDGE_KEY"),
        help="key with scope work (default: BRIDGE_KEY, which other users cannot see)",
    )
    p.add_argument(
        "--allow-http", action="store_true", default=os.environ.get("BRIDGE_ALLOW_HTTP") == "1",
        help="send the key unencrypted to another machine (also BRIDGE_ALLOW_HTTP=1)",
    )  # fmt: skip
    p.add_argument("--content-types", default="", metavar="TYPE,…", help="what to take, up to 32 types")
    p.add_argument("--concurrency", type=int, default=1, metavar="N", help="jobs at a time (default 1)")
    p.add_argument(
        "--worker-id",
        default=f"{socket.gethostname()}-{os.getpid()}"[:255],
        metavar="ID",
        help="name of this worker (default: host name and process ID)",
    )
    p.add_argument(
        "--lease", type=int, default=60, metavar="S",
        help="seconds of silence after which the bridge gives a job to another, 10–3600 (default 60)",
    )  # fmt: skip
    p.add_argument("--wait", type=int, default=30, metavar="S", help="seconds a poll waits, 0–60 (default 30)")
    p.add_argument(
        "--drain-seconds", type=float, metavar="S",
        help="after a stop, give back what is not finished in time (default: finish everything)",
    )  # fmt: skip
    p.add_argument(
        "--spot-notice", metavar="URL|FILE",
        help="checked every 5 s: once it answers (or exists), all jobs go to other workers and this one ends",
    )  # fmt: skip
    p.add_argument(
        "--max-jobs-per-process", type=int, default=0, metavar="N",
        help="start a fresh process after N jobs (default 0: never)",
    )  # fmt: skip
    p.add_argument("--max-download", default="16G", metavar="SIZE", help="largest source file (default 16G)")
    p.add_argument(
        "--source-networks", default="", metavar="NETWORK,…",
        help="private networks from which sources may be fetched by the worker (default: none)",
    )  # fmt: skip
    p.add_argument("--work-dir", type=Path, metavar="DIR", help="for temporary files (default: the system's)")
    p.add_argument("--health-file", type=Path, metavar="FILE", help="the worker's state as JSON, written every 5 s")
    p.add_argument("--health-port", type=int, metavar="PORT", help="serve /healthz and /metrics over HTTP")
    p.add_argument("--health-address", default="127.0.0.1", metavar="ADDRESS", help="for --health-port")
    p.add_argument("--version", action="version", version=f"bridge-worker {__version__}")
    _of_handlers(p)
    return p


def try_parser() -> argparse.ArgumentParser:
    """Return the parser of `bridge-worker try`."""
    p = argparse.ArgumentParser(prog="bridge-worker try", description="Runs a handler over one file, without a bridge.")
    p.add_argument("file", type=Path)
    p.add_argument("--content-type", default="", metavar="TYPE", help="the job's content type")
    p.add_argument("--task-options", default="{}", metavar="JSON", help="the producer's options of the job")
    p.add_argument("--seconds", type=float, metavar="S", help="the job's deadline (default: none)")
    _of_handlers(p)
    return p


def _of_handlers(p: argparse.ArgumentParser) -> None:
    """Add the arguments of both commands about handlers and their processes."""
    p.add_argument(
        "--handler", action="append", required=True, metavar="[TYPE=]MODULE:NAME",
        help="a function (job, path) -> Result or a class with such a method `handle`, for one type or for all;"
        " may be repeated",
    )  # fmt: skip
    p.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="for the handlers: job.options")
    p.add_argument(
        "--max-memory", default="", metavar="SIZE",
        help="per job, such as 4G; 0: no limit (default: the machine's, divided among the slots)",
    )  # fmt: skip
    p.add_argument("--max-cpu-seconds", type=int, default=7200, metavar="S", help="per job (default 7200; 0: no limit)")
    p.add_argument("--max-descriptors", type=int, default=1024, metavar="N", help="per process (default 1024)")
    p.add_argument("--max-processes", type=int, default=256, metavar="N", help="that a job may start (default 256)")
    p.add_argument("--start-seconds", type=float, default=600, metavar="S", help="to load the handlers (default 600)")
    p.add_argument("--cancel-seconds", type=float, default=5, metavar="S", help="to clean up on a cancel (default 5)")
    p.add_argument(
        "--sandbox", default="auto", choices=["auto", "on", "off"],
        help="no network and no other files for the handlers, on Linux (auto: for bridge_worker.handlers alone)",
    )  # fmt: skip
    p.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])


def setup_of(options: argparse.Namespace, content_types: Sequence[str], slots: int) -> Setup:
    """Return what the handlers' processes are started with. Raises UsageError or BadHandler."""
    handlers = choose(options.handler, content_types)
    given = {}
    for option in options.option:
        name, equals, value = option.partition("=")
        if not name or not equals:
            raise UsageError(f"--option {option!r}: expected NAME=VALUE")
        given[name] = value
    for name in ("max_cpu_seconds", "start_seconds", "cancel_seconds"):
        if getattr(options, name) < 0:
            raise UsageError(f"--{name.replace('_', '-')}: not below 0")
    for name, least in (("max_descriptors", 64), ("max_processes", 1)):
        if getattr(options, name) < least:
            raise UsageError(f"--{name.replace('_', '-')}: at least {least}")
    memory = size("--max-memory", options.max_memory) if options.max_memory else platforms.total_memory() // slots
    if 0 < memory < 64 * 2**20:
        raise UsageError("--max-memory: at least 64M, or 0 for no limit")
    ours = all(name.startswith("bridge_worker.handlers.") for name in handlers.values())
    return Setup(
        handlers=handlers,
        options=given,
        memory=memory or None,
        cpu_seconds=options.max_cpu_seconds or None,
        descriptors=options.max_descriptors,
        processes=options.max_processes,
        sandbox=options.sandbox == "on" or (options.sandbox == "auto" and ours),
        log_level=options.log_level.upper(),
        start_seconds=options.start_seconds,
        cancel_seconds=options.cancel_seconds,
    )


def size(name: str, text: str) -> int:
    """Read a size such as 500M or 4G, in bytes. Raises UsageError that names the argument."""
    match = re.fullmatch(r"(\d{1,15})([kmgt]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise UsageError(f"{name} {text!r}: expected a size such as 500M or 4G")
    return int(match[1]) * _UNITS[match[2]]


def check(options: argparse.Namespace) -> None:
    """Refuse arguments that the bridge would refuse. Raises UsageError."""
    if not options.url:
        raise UsageError("--url or BRIDGE_URL is missing")
    try:
        parts = urlsplit(options.url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"--url: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError("--url: expected http://… or https://…")
    if options.key and not re.fullmatch(r"[!-~]+", options.key):
        raise UsageError("--key: only visible ASCII characters")
    if options.key and parts.scheme == "http" and not stays_here(options.url) and not options.allow_http:
        raise UsageError(f"--url: the key would go to {host} unencrypted; use https://, or say --allow-http")
    if not 1 <= options.concurrency <= 1000:
        raise UsageError("--concurrency: at least 1, at most 1000")
    if not 10 <= options.lease <= 3600:
        raise UsageError("--lease: 10 to 3600 seconds")
    if not 0 <= options.wait <= 60:
        raise UsageError("--wait: 0 to 60 seconds")
    if not 1 <= len(options.worker_id) <= 255:
        raise UsageError("--worker-id: 1 to 255 characters")
    try:
        read_networks(options.source_networks)
    except ValueError as error:
        raise UsageError(f"--source-networks: {error}") from None
    if options.max_jobs_per_process < 0:
        raise UsageError("--max-jobs-per-process: not below 0")
    if options.drain_seconds is not None and options.drain_seconds < 0:
        raise UsageError("--drain-seconds: not below 0")
    if options.health_port is not None and not 0 <= options.health_port <= 65535:
        raise UsageError("--health-port: 0 to 65535")
