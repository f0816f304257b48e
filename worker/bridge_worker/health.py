"""The worker's health: a file and an HTTP port for monitoring, and counters in Prometheus's text format."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bridge_worker import __version__
from bridge_worker.runner import Runner
from bridge_worker.slots import Slots

log = logging.getLogger(__name__)
PERIOD = 5.0  # seconds between two writes of the file
MOST_CONNECTIONS = 16  # at a time; more are closed at once
SILENT = 300.0  # seconds without an answer to a poll, although slots are free, after which it is unhealthy


class Health:
    """Counts attempts and reports the state of what `watch` was given."""

    def __init__(self, worker_id: str, slots: int) -> None:
        self._worker_id, self._ended = worker_id, threading.Event()
        self._slots: Slots | None = None
        self._runner: Runner | None = None
        self._file: Path | None = None
        self._server: ThreadingHTTPServer | None = None
        self.port: int | None = None  # on which it listens
        self._threads: list[threading.Thread] = []
        self.registry = registry = CollectorRegistry()
        self._jobs = Counter("bridge_worker_jobs", "Ended attempts, by outcome.", ["outcome"], registry=registry)
        self._seconds = Histogram(
            "bridge_worker_job_seconds", "From the claim to the answer to the result.", registry=registry,
            buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400),
        )  # fmt: skip
        self._ends = Counter("bridge_worker_process_ends", "Handlers' processes that were replaced.", registry=registry)
        Gauge("bridge_worker_slots", "Jobs that can run at a time.", registry=registry).set(slots)
        busy = Gauge("bridge_worker_slots_busy", "Jobs in hand.", registry=registry)
        free = Gauge("bridge_worker_slots_free", "Slots that wait for a job.", registry=registry)
        silence = Gauge("bridge_worker_poll_age_seconds", "Seconds since the last answer to a poll.", registry=registry)
        busy.set_function(lambda: self.state()["slots_busy"])
        free.set_function(lambda: self.state()["slots_free"])
        silence.set_function(lambda: self.state()["poll_age_seconds"])

    def watch(self, slots: Slots, runner: Runner) -> None:
        """Report on these slots and this runner."""
        self._slots, self._runner = slots, runner

    def outcome(self, outcome: str, seconds: float) -> None:
        """Count an attempt that ended."""
        self._jobs.labels(outcome).inc()
        self._seconds.observe(seconds)

    def process_ended(self) -> None:
        """Count a replaced process."""
        self._ends.inc()

    def state(self) -> dict[str, Any]:
        """Return what /healthz and the file say; `status` is ok, or what is wrong."""
        busy = len(self._slots.busy()) if self._slots else 0
        free = self._slots.free() if self._slots else 0
        age = time.monotonic() - self._runner.answered_at if self._runner else 0.0
        status = "ok"
        if free and age > SILENT:
            status = "the bridge does not answer"
        elif self._slots and self._slots.machine_faults:
            status = "jobs are given back: something is wrong with this machine or its handler"
        elif not busy and not free:
            status = "the handlers are not ready"
        return {
            "status": status, "worker_id": self._worker_id, "version": __version__, "pid": os.getpid(),
            "slots_busy": busy, "slots_free": free, "poll_age_seconds": round(age, 1), "written_at": round(time.time()),
        }  # fmt: skip

    def serve(self, file: Path | None, address: str, port: int | None) -> None:
        """Write `file` every PERIOD seconds and listen on `port`, where they are given. Raises OSError."""
        if file is not None:
            self._file = file
            self._write()
            self._threads.append(threading.Thread(target=self._keep_writing, name="health", daemon=True))
        if port is not None:
            self._server = _Server((address, port), _handler(self))
            self.port = self._server.server_port
            log.info("health at http://%s:%d/healthz and /metrics", address, self.port)
            self._threads.append(threading.Thread(target=self._server.serve_forever, name="http", daemon=True))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop, and remove the file, which nobody writes any more."""
        self._ended.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        for thread in self._threads:
            thread.join()
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _keep_writing(self) -> None:
        while not self._ended.wait(PERIOD):
            try:
                self._write()
            except OSError as error:
                log.warning("health file not written: %s", error)

    def _write(self) -> None:
        assert self._file is not None
        new = self._file.with_name(self._file.name + ".new")
        new.write_text(json.dumps(self.state()) + "\n", encoding="utf-8")
        new.replace(self._file)


class _Server(ThreadingHTTPServer):
    """One thread per connection, up to MOST_CONNECTIONS."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._room = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing about clients that have gone."""


def _handler(health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", generate_latest(health.registry))
            elif self.path in ("/healthz", "/health"):
                state = health.state()
                body = json.dumps(state).encode() + b"\n"
                self._answer(200 if state["status"] == "ok" else 503, "application/json", body)
            else:
                self._answer(404, "text/plain", b"/healthz or /metrics\n")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
