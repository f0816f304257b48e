"""One run: clients and nemesis, then heal, drain, rest, read, check."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests
from sqlalchemy.exc import SQLAlchemyError

from bridge import names
from tests.chaos import end_state
from tests.chaos.checker import INVARIANTS, check
from tests.chaos.clients import Phase, clients
from tests.chaos.end_state import EndState
from tests.chaos.history import History, Violation
from tests.chaos.intake import Intake
from tests.chaos.nemesis import Nemesis, Planned
from tests.chaos.recovery import recoveries, worst
from tests.chaos.rest import at_rest
from tests.chaos.system import ACK_SECONDS, PROCESS_TENANT, System
from tests.support.waiting import wait_until

DRAIN_SECONDS = 180.0
WORKERS = 18
INTAKES = 2


class Run:
    """A bridge, its clients, the nemesis, and the evidence."""

    def __init__(self, place: Path, seed: str, **options: Any) -> None:
        """`options` are System's."""
        self.seed = seed
        self.history, self.end, self.phase = History(), EndState(ack_seconds=ACK_SECONDS), Phase()
        self.end.process_tenant = PROCESS_TENANT
        self.system = System(place, **options)
        self.nemesis = Nemesis(self.system, self.history)
        self._rounds = 0
        self._running: list[Future[None]] = []
        self._intakes: list[Future[None]] = []
        self._died: list[str] = []
        self._load = 0.0  # the highest seen; of others too: it explains late recoveries
        self._over = threading.Event()
        threading.Thread(target=self._count, daemon=True).start()
        wait_until(self._documented, "the API to answer", 60)

    def torment(self, seconds: float, planned: list[Planned]) -> None:
        """Clients for so many seconds, and these faults meanwhile."""
        self._rounds += 1
        self.phase = phase = Phase()
        seed = f"{self.seed}.{self._rounds}"
        loops = clients(self.system, self.history, phase, seed, WORKERS)
        intakes = [Intake(self.system, self.history, phase, n, seed).run for n in range(INTAKES)]
        threads = ThreadPoolExecutor(len(loops) + len(intakes))
        self._running = [threads.submit(loop) for loop in loops]
        self._intakes = [threads.submit(loop) for loop in intakes]
        threads.shutdown(wait=False)  # which only says that nothing more will come
        self.nemesis.run(planned, seconds, self.look)

    def look(self) -> None:
        """Do what a supervisor does, about five times a second."""
        for line in self.system.revive(self.nemesis.held):
            print(f"{time.strftime('%X')}  {line}", flush=True)

    def _count(self) -> None:
        """Ask each second how much is unfinished, in a thread of its own: PostgreSQL may be frozen."""
        while not self._over.wait(1):
            self._load = max(self._load, os.getloadavg()[0])
            try:
                self.phase.unfinished, self.phase.unconfirmed = end_state.unfinished(self.system.engine)
            except SQLAlchemyError:
                self.system.engine.dispose()

    def drain(self) -> None:
        """Heal, let all jobs end and the clients go, and all outcomes be confirmed."""
        self.phase.creating.clear()
        self.system.heal()
        healed = time.monotonic()
        self.phase.unfinished = 1  # until it was counted anew

        def drained() -> bool:
            return self.phase.unfinished == 0 and all(one.done() for one in self._intakes)

        self._wait(drained, "every job had ended", healed)
        self.phase.stop()
        for one in (*self._running, *self._intakes):
            if (error := one.exception(90)) is not None:
                self._died.append(f"{type(error).__name__}: {error}")
        self._wait(self._confirmed, "every outcome was confirmed", healed)

    def _confirmed(self) -> bool:
        return self.system.number("SELECT count(*) FROM continuations WHERE confirmed_at IS NULL") == 0

    def settle(self) -> None:
        """Drain, rest, and read what is there."""
        self.drain()
        try:
            at_rest(self.system, self.history, self.end, self.seed)
        except (AssertionError, requests.RequestException) as error:
            self._died.append(f"the bridge at rest: {error}")
        healed = time.monotonic()
        self._wait(self._confirmed, "every outcome was confirmed", healed)
        self._wait(lambda: not any(self.left().values()), "nothing was left", healed, 90)
        end_state.read_jobs(self.system.engine, self.end)
        end_state.read_pipeline(self.system.receipts, self.end)
        self.end.left = {
            **self.left(),
            "threads of clients that died": len(self._died),
            "times the API ended by itself": self.system.ended.count("api"),
        }

    def _wait(self, done: Callable[[], bool], what: str, since: float, seconds: float = DRAIN_SECONDS) -> None:
        """Wait; what never comes is left to the checker, which says more."""

        def looked() -> bool:
            self.look()
            return done()

        try:
            wait_until(looked, f"that {what}", seconds)
            print(f"{time.strftime('%X')}  {time.monotonic() - since:.1f} s later {what}", flush=True)
        except AssertionError as late:
            print(f"{time.strftime('%X')}  {late}", flush=True)

    def left(self) -> dict[str, int]:
        """Return what a bridge at rest has none of."""
        count = "SELECT count(*) FROM "
        others = "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND "
        asked = {
            "outcomes that are still to be sent": f"{count}continuations WHERE next_at IS NOT NULL",
            "idle transactions": f"{count}{others}state LIKE 'idle in%' AND xact_start < now() - interval '2 s'",
            "advisory locks": f"{count}pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory'"
            " AND xact_start < now() - interval '2 s'",  # a sweep holds one for as long as it takes
            "statements that hang": f"{count}{others}state = 'active' AND query_start < now() - interval '20 s'",
        }
        left = {name: self.system.number(statement) for name, statement in asked.items()}
        with self.system.redis() as client:
            for queue in (*names.QUEUES, "pipeline"):  # in which Celery's messages wait
                waiting = int(client.llen(queue))
                left[f"messages in {queue}"] = waiting if waiting > 5 else 0  # beat goes on sending
            unacknowledged = int(client.hlen("bridge.unacked"))
            left["unacknowledged messages"] = unacknowledged if unacknowledged > 5 else 0
            left["unacknowledged messages of the pipeline"] = int(client.hlen("sample_pipeline.unacked"))
        return left

    def _documented(self) -> bool:
        """Read what the OpenAPI document declares; whether it was there."""
        try:
            answer = requests.get(f"{self.system.url}/openapi.json", timeout=5)
        except requests.RequestException:
            return False
        if answer.status_code == 200:
            self.end.declared = end_state.declared(answer.json())
        return answer.status_code == 200

    def verdict(self) -> list[Violation]:
        """All that is wrong."""
        return check(self.history, self.end)

    def summary(self) -> Sequence[str]:
        """Return what happened, in lines."""
        calls, jobs = self.history.calls, self.end.jobs.values()
        ok, unanswered = sum(call.ok for call in calls), sum(call.status is None for call in calls)
        told = sum(len(job.told) for job in jobs)
        counts = ", ".join(f"{count} {name}" for name, count in self.nemesis.counts.most_common())
        slowest = worst(recoveries(self.history, self.end)).items()
        return [
            f"seed {self.seed}: {len(jobs)} jobs, {len(calls)} calls ({ok} ok, {unanswered} unanswered),"
            f" {len(self.end.deliveries)} deliveries of {told} outcomes",
            f"{self.nemesis.done.total()} faults: {counts}",
            *(f"  {count:4} × {name}" for name, count in sorted(self.nemesis.done.items())),
            *(f"  worst recovery: {kind}: {seconds:.1f} s" for kind, seconds in slowest),
            *(f"  a client died: {died}" for died in self._died),
            f"load of the machine: at most {self._load:.1f} on {os.cpu_count()} cores",
            f"ended by themselves: {', '.join(self.system.ended) or 'none'}",
            f"{len(INVARIANTS)} invariants were checked: {', '.join(INVARIANTS)}",
        ]

    def stop(self) -> None:
        self._over.set()
        self.phase.stop()
        self.system.stop()
