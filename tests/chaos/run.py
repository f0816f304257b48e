"""One run: clients and nemesis, then heal, drain, rest, read, check."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import requests

from tests.chaos import end_state
from tests.chaos.checker import INVARIANTS, Violation, check
from tests.chaos.clients import Phase, clients
from tests.chaos.end_state import EndState
from tests.chaos.history import History
from tests.chaos.intake import Intake
from tests.chaos.nemesis import Nemesis, schedule
from tests.chaos.recovery import recoveries, worst
from tests.chaos.rest import at_rest
from tests.chaos.system import ACK_SECONDS, PROCESS_TENANT, System
from tests.waiting import wait_until

DRAIN_SECONDS = 180.0
WORKERS = 12


class Run:
    """A bridge, its clients, the nemesis, and the evidence."""

    def __init__(
        self, place: Path, seed: str, *, wsgi: str = "api.wsgi:app", bouncer: bool = False, workers: int = WORKERS
    ) -> None:
        self.seed = seed
        self.history, self.end, self.phase = History(), EndState(ack_seconds=ACK_SECONDS), Phase()
        self.end.process_tenant = PROCESS_TENANT
        self.system = System(place, wsgi=wsgi, bouncer=bouncer)
        self.nemesis = Nemesis(self.system, self.history)
        self._looked = 0.0
        loops = clients(self.system, self.history, self.phase, seed, workers)
        loops += [Intake(self.system, self.history, self.phase, n, seed).run for n in range(2)]
        self._loops: list[Callable[[], None]] = loops
        self._threads = ThreadPoolExecutor(len(loops))
        self._running: list[Future[None]] = []
        self._died: list[str] = []

    def torment(self, seconds: float, *, pace: float = 1.0, calm: bool = False) -> None:
        """Clients for so many seconds, and faults meanwhile unless `calm`."""
        wait_until(lambda: self._document() is not None, "the API to answer", 60)
        self._running = [self._threads.submit(loop) for loop in self._loops]
        planned = [] if calm else schedule(self.seed, seconds, pace)
        self.nemesis.run(planned, seconds, self.look)

    def look(self) -> None:
        """What a supervisor does, and what the clients go by; about five times a second."""
        for line in self.system.revive(self.nemesis.held):
            print(f"{time.strftime('%X')}  {line}", flush=True)
        if time.monotonic() > self._looked + 1:
            self._looked = time.monotonic()
            try:
                self.phase.unfinished = end_state.unfinished(self.system.engine)
            except Exception:
                self.system.engine.dispose()

    def settle(self) -> None:
        """Heal, let all jobs end and all outcomes be confirmed, rest, and read what is there."""
        self.phase.creating.clear()
        self.system.heal()
        healed = time.monotonic()

        def drained() -> bool:
            self.look()
            intake = [one for one, loop in zip(self._running, self._loops, strict=True) if "Intake" in str(loop)]
            return self.phase.unfinished == 0 and all(one.done() for one in intake)

        self._wait(drained, "all jobs to end")
        print(f"{time.monotonic() - healed:.1f} s after the heal every job had ended", flush=True)
        self.phase.stop()
        for one in self._running:
            if (error := one.exception(60)) is not None:
                self._died.append(f"{type(error).__name__}: {error}")
        at_rest(self.system, self.history, self.end, self.seed)
        self._wait(lambda: (self.look(), self._open() == 0)[1], "every outcome to be confirmed")
        print(f"{time.monotonic() - healed:.1f} s after the heal every outcome was confirmed", flush=True)
        self._wait(lambda: (self.look(), not any(self._left().values()))[1], "nothing to be left", 90)
        self._read()

    def _wait(self, predicate: Callable[[], bool], what: str, seconds: float = DRAIN_SECONDS) -> None:
        """What does not come is seen by the checker, which says more."""
        try:
            wait_until(predicate, what, seconds)
        except AssertionError as late:
            print(f"{time.strftime('%X')}  {late}", flush=True)

    def _open(self) -> int:
        return int(self.system.sql("SELECT count(*) FROM continuations WHERE confirmed_at IS NULL")[0][0])  # type: ignore[index]

    def _left(self) -> dict[str, int]:
        """What a bridge at rest has none of."""
        count = "SELECT count(*) FROM "
        others = "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND "
        asked = {
            "outcomes that are still to be sent": f"{count}continuations WHERE next_at IS NOT NULL",
            "idle transactions": f"{count}{others}state LIKE 'idle in%' AND xact_start < now() - interval '2 s'",
            "advisory locks": f"{count}pg_locks WHERE locktype = 'advisory'",
            "statements that hang": f"{count}{others}state = 'active' AND query_start < now() - interval '20 s'",
        }
        left = {name: int(self.system.sql(statement)[0][0]) for name, statement in asked.items()}  # type: ignore[index]
        with self.system.redis() as client:
            for queue in self.system.broker_queues:
                waiting = client.llen(queue)
                left[f"messages in {queue}"] = waiting if waiting > 5 else 0  # beat goes on sending
            left["unacknowledged messages"] = max(0, client.hlen("bridge.unacked") - 5)
            left["unacknowledged messages of the pipeline"] = client.hlen("sample_pipeline.unacked")
        return left

    def _document(self) -> dict[str, object] | None:
        try:
            answer = requests.get(f"{self.system.url}/openapi.json", timeout=5)
        except requests.RequestException:
            return None
        if answer.status_code != 200:
            return None
        self.end.declared = end_state.declared(answer.json())
        return dict(answer.json())

    def _read(self) -> None:
        end_state.read_jobs(self.system.engine, self.end)
        end_state.read_pipeline(self.system.receipts, self.end)
        self.end.left = {
            **self._left(),
            "threads of clients that died": len(self._died),
            "times the API ended by itself": self.system.ended.count("api"),
        }

    def verdict(self) -> list[Violation]:
        """All that is wrong."""
        return check(self.history, self.end)

    def summary(self) -> list[str]:
        """What happened, in lines."""
        calls = self.history.calls
        ok, unknown = sum(call.ok for call in calls), sum(call.status is None for call in calls)
        lines = [f"seed {self.seed}: {len(self.end.jobs)} jobs, {len(calls)} calls ({ok} ok, {unknown} unanswered), "
                 f"{len(self.end.deliveries)} deliveries of {sum(len(job.told) for job in self.end.jobs.values())}"
                 " outcomes"]  # fmt: skip
        counts = ", ".join(f"{count} {name}" for name, count in self.nemesis.counts.most_common())
        lines.append(f"{self.nemesis.done.total()} faults: {counts}")
        lines += [f"  {count:4} × {name}" for name, count in sorted(self.nemesis.done.items())]
        lines += [f"  worst recovery: {kind}: {seconds:.1f} s" for kind, seconds in
                  worst(recoveries(self.history, self.end)).items()]  # fmt: skip
        lines += [f"  a client died: {died}" for died in self._died]
        lines.append(f"ended by themselves: {', '.join(self.system.ended) or 'none'}")
        lines.append(f"{len(INVARIANTS)} invariants were checked: {', '.join(INVARIANTS)}")
        return lines

    def stop(self) -> None:
        self.phase.stop()
        self.system.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)
