"""The command `bridge-worker`: starts the handlers' processes, then runs until a signal."""

from __future__ import annotations

import argparse
import logging
import os
import queue
import signal
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from bridge_worker import platforms, traces, trying
from bridge_worker.client import BridgeClient
from bridge_worker.facts import Facts
from bridge_worker.health import Health
from bridge_worker.loading import BadHandler
from bridge_worker.options import UsageError, check, parser, setup_of, size
from bridge_worker.process import Setup
from bridge_worker.public_addresses import read_networks
from bridge_worker.runner import Runner
from bridge_worker.slots import Slots
from bridge_worker.spot_notice import SpotNotice
from bridge_worker.workdir import WorkDirectory

log = logging.getLogger("bridge_worker")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the worker; return 0 after a drained stop, 1 when the bridge refused it, 2 for wrong arguments."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["try"]:
        return trying.main(given[1:])
    options = parser().parse_args(given)
    set_up_log(options.log_level)
    try:
        check(options)
        types = [name.strip() for name in options.content_types.split(",") if name.strip()]
        setup = setup_of(options, types, options.concurrency)
        most = size("--max-download", options.max_download)
        events = listen_for_signals()  # before there is anything to remove
        traces.start(options.worker_id)
        work = WorkDirectory(options.work_dir)
    except (UsageError, BadHandler, traces.NotInstalled) as error:
        return refuse(str(error))
    except OSError as error:
        return refuse(f"--work-dir: {error}")
    try:
        return _Worker(options, setup, work, most, events).run()
    except (UsageError, BadHandler) as error:
        return refuse(str(error))
    finally:
        work.close()
        traces.stop()


def set_up_log(level: str) -> None:
    """Log to standard error, one line per event."""
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )  # fmt: skip
    logging.getLogger("urllib3").setLevel(logging.WARNING)  # its lines contain addresses with claim IDs


def listen_for_signals() -> queue.SimpleQueue[str]:
    """Put the first SIGTERM or SIGINT into the returned queue; the second one ends the process at once."""
    events: queue.SimpleQueue[str] = queue.SimpleQueue()
    signals = 0

    def on_signal(number: int, _frame: Any) -> None:
        # Only what is safe at any moment of the main thread, which may hold a lock.
        nonlocal signals
        signals += 1
        if signals > 1:
            os._exit(128 + number)  # the handlers' processes end with this one
        events.put("signal")

    for number in platforms.STOP_SIGNALS:
        signal.signal(number, on_signal)
    return events


def refuse(text: str) -> int:
    """Say what is wrong with the arguments; return the exit status for it."""
    print(f"bridge-worker: {text}", file=sys.stderr)
    return 2


class _Worker:
    """Everything that runs, from start to end."""

    def __init__(
        self,
        options: argparse.Namespace,
        setup: Setup,
        work: WorkDirectory,
        most: int,
        events: queue.SimpleQueue[str],
    ) -> None:
        self._options, self._events = options, events
        client = BridgeClient(
            options.url, options.key, options.worker_id, connections=2 * options.concurrency + 2, facts=Facts(),
            source_networks=read_networks(options.source_networks),
        )  # fmt: skip
        self._health = Health(options.worker_id, options.concurrency)
        self._slots = Slots(
            client, setup, work.path, options.concurrency, lease=options.lease, most=most,
            jobs_per_process=options.max_jobs_per_process, owns_children=True,
            on_outcome=self._health.outcome, on_process_end=self._health.process_ended,
        )  # fmt: skip
        self._runner = Runner(
            client, self._slots, setup.handlers, wait=options.wait, on_end=lambda: self._events.put("end")
        )
        self._health.watch(self._slots, self._runner)
        self._notice = None
        if options.spot_notice:
            self._notice = SpotNotice(options.spot_notice, self._runner.end_at_once)

    def run(self) -> int:
        """Run until the worker ends; return the exit status."""
        options = self._options
        try:
            try:
                self._health.serve(options.health_file, options.health_address, options.health_port)
            except OSError as error:
                raise UsageError(f"--health-file or --health-port: {error}") from error
            return self._serve()
        finally:
            if self._notice is not None:
                self._notice.close()
            self._slots.close()
            self._health.close()

    def _serve(self) -> int:
        options, slots = self._options, self._slots
        slots.start_all()
        # Wrong handlers are refused before the first poll.
        while not slots.wait(lambda: slots.free() or slots.trouble, 0.2):
            if not self._events.empty():
                return 0
        if slots.trouble is not None and slots.trouble.refused:
            raise BadHandler(str(slots.trouble))
        log.info(
            "worker %s takes %s from %s, %d at a time",
            options.worker_id, ",".join(sorted(slots.content_types)), without_secrets(options.url), options.concurrency,
        )  # fmt: skip
        self._runner.start()
        if self._notice is not None:
            self._notice.start()
        while self._next_event() != "end":
            log.info("worker %s stops after what it has begun; a second signal ends it at once", options.worker_id)
            self._runner.stop(options.drain_seconds)
        log.info("worker %s ended", options.worker_id)
        return 1 if self._runner.failed else 0

    def _next_event(self) -> str:
        while True:
            try:
                return self._events.get(timeout=0.5)  # Windows handles no signal during a wait without a timeout
            except queue.Empty:
                continue


def without_secrets(url: str) -> str:
    """Return the address without a user, a password or a query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
