"""The slots: each has one handler's process, kept ready, and a thread that processes one job at a time."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge_worker import platforms, traces
from bridge_worker.attempt import Attempt
from bridge_worker.client import BridgeClient
from bridge_worker.held import Held
from bridge_worker.process import HandlerProcess, NotStarted, Setup
from bridge_worker.results import Results
from bridge_worker.usage import Watch

log = logging.getLogger(__name__)
LONGEST_WAIT = 60.0  # seconds between two tries to start a process
LOOK = 1.0  # seconds between two checks of a process that waits for a job


class Slot:
    """One of the worker's places for a job."""

    def __init__(self, number: int, slots: Slots) -> None:
        self._slots, self._place = slots, slots.place / f"slot-{number}"
        self._place.mkdir(parents=True)
        self._todo: queue.SimpleQueue[Held | None] = queue.SimpleQueue()
        self._started = 0
        self.process: HandlerProcess | None = None
        self.held: Held | None = None
        self.is_ready = False
        self.thread = threading.Thread(target=self._run, name=f"slot-{number}", daemon=True)

    def give(self, held: Held) -> None:
        """Give the slot a job."""
        self.held = held
        self._todo.put(held)

    def end(self) -> None:
        """Let the thread end after its current job."""
        self._todo.put(None)

    def ready(self) -> HandlerProcess:
        """Return a process that waits for a job, a fresh one if the last cannot be used again. Raises NotStarted."""
        most = self._slots.jobs_per_process
        if self.process is not None and (not self.process.alive() or (most and self.process.served >= most)):
            self._close()
        if self.process is None:
            self._started += 1
            process = self._slots.start(self._place / f"process-{self._started}")
            try:
                if not process.wait_ready(self._slots.aborted):
                    raise NotStarted("the worker stops")
            except NotStarted:
                process.discard()
                raise
            self.process = process
        return self.process

    def _close(self) -> None:
        if self.process is not None:
            self.process.close()
            self._slots.on_process_end()
            self.process = None

    def _run(self) -> None:
        failures = 0
        while True:
            delay = 0.0
            try:
                self.ready()
                failures, self.is_ready = 0, True
                self._slots.changed()
            except NotStarted as error:
                if self._slots.aborted.is_set():
                    break
                self.is_ready = False
                failures += 1
                delay = min(LONGEST_WAIT, 2.0 ** min(failures, 10))
                if not error.refused or self._started > 1:  # else the command reports it
                    log.error("the handlers are not ready: %s; again in %.0f s", error, delay)
                self._slots.not_started(error)
            except Exception:
                failures += 1
                delay = LONGEST_WAIT
                log.exception("a handler's process could not be started")
            try:
                held = self._todo.get(timeout=delay or LOOK)
            except queue.Empty:  # a process that dies while waiting is replaced before a job comes
                continue
            if held is None:
                break
            self.is_ready = False
            try:
                self._slots.work(self, held, self._place)
            except Exception:
                log.exception("job=%s the worker broke", held.id)
            self.held = None
            self._slots.changed()
        self._close()


class Slots:
    """All slots, and what they share."""

    def __init__(
        self,
        client: BridgeClient,
        setup: Setup,
        place: Path,
        count: int,
        *,
        lease: int = 60,
        jobs_per_process: int = 0,
        owns_children: bool = False,
        on_outcome: Callable[[str, float], object] = lambda _outcome, _seconds: None,
        on_process_end: Callable[[], object] = lambda: None,
        **download: Any,
    ) -> None:
        """Take `download`, the limits of Download; call `on_outcome` with each attempt's outcome and its seconds.

        `owns_children`: this program is just a worker, so that its children are handlers' processes and what outlived
        them. Otherwise no foreign child is touched, and a process that cleared its environment and started its own
        session survives.
        """
        self._client, self._setup, self.lease, self._download = client, setup, lease, download
        self.place, self.jobs_per_process = place, jobs_per_process
        self._on_outcome, self.on_process_end = on_outcome, on_process_end
        self.results = Results(client)
        self._starting = threading.Lock()
        self._started: list[HandlerProcess] = []
        self._condition = threading.Condition()
        self.aborted = threading.Event()
        self.trouble: NotStarted | None = None
        self.machine_faults = 0  # in a row
        self._owns_children = owns_children
        if owns_children:
            platforms.adopt_orphans()
        self.all = [Slot(number, self) for number in range(count)]
        self._watch = Watch(self._processes, setup.memory, setup.processes)

    @property
    def cancel_seconds(self) -> float:
        """Return how long a cancelled handler may take before it is killed."""
        return self._setup.cancel_seconds

    @property
    def content_types(self) -> list[str]:
        """Return the content types that have handlers."""
        return list(self._setup.handlers)

    def start_all(self) -> None:
        """Start the threads, which start the processes."""
        for slot in self.all:
            slot.thread.start()

    def start(self, directory: Path) -> HandlerProcess:
        """Start a process; strays of earlier ones are ended first."""
        with self._starting:
            self._started = [process for process in self._started if process.process.poll() is None]
            known = [process.process.pid for process in self._started]
            if self._owns_children and (count := platforms.reap_strays(known)):
                log.warning("ended %d process(es) that a handler had left behind", count)
            self._started.append(HandlerProcess(self._setup, directory))
            return self._started[-1]

    def free(self) -> int:
        """Return how many slots have no job and a process that is ready."""
        return sum(1 for slot in self.all if slot.held is None and slot.is_ready)

    def busy(self) -> list[Held]:
        """Return the attempts that are being processed."""
        return [held for slot in self.all if (held := slot.held) is not None]

    def wait(self, condition: Callable[[], Any], seconds: float | None = None) -> Any:
        """Wait until `condition()` is true or the time is over; return its last value."""
        with self._condition:
            return self._condition.wait_for(condition, seconds)

    def changed(self) -> None:
        """Wake the threads that wait for a condition."""
        with self._condition:
            self._condition.notify_all()

    def give(self, held: Held) -> bool:
        """Give a job to a free slot; return False if there is none."""
        slot = next((s for s in sorted(self.all, key=lambda s: not s.is_ready) if s.held is None), None)
        if slot is None:
            return False
        slot.give(held)
        return True

    def not_started(self, error: NotStarted) -> None:
        """Record why a process did not start."""
        self.trouble = error
        self.changed()

    def work(self, slot: Slot, held: Held, place: Path) -> None:
        """Process one job, in its slot's thread."""
        began = time.monotonic()
        attempt = Attempt(self._client, self.results, held, slot, place, **self._download)
        try:
            with traces.step(held.claim, "attempt") as facts:
                attempt.run(self.lease)
                facts["bridge.outcome"] = attempt.outcome or "broken"
        finally:
            self.machine_faults = self.machine_faults + 1 if attempt.outcome == "machine" else 0
            self._on_outcome(attempt.outcome or "broken", time.monotonic() - began)

    def close(self, seconds: float = 10.0) -> None:
        """End threads and processes after their current jobs; those that do not end in time are killed."""
        self.aborted.set()
        for slot in self.all:
            slot.end()
        until = time.monotonic() + seconds
        for slot in self.all:
            if slot.thread.ident is not None:
                slot.thread.join(max(0.1, until - time.monotonic()))
        self._watch.stop()
        for process in self._processes():
            process.discard()

    def _processes(self) -> list[HandlerProcess]:
        return [process for slot in self.all if (process := slot.process) is not None]
