"""The producers, the workers and the operator of a run: each a loop in a thread of its own."""

import random
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.chaos.calls import Caller
from tests.chaos.history import Given, History, Outcome
from tests.chaos.system import CONTENT_TYPES, PROCESS_TENANT, TENANTS, System

LEASE = 10  # the shortest that a poll may name
# Producers wait while so many jobs have not ended, or so many outcomes are not confirmed: the pipeline is the slowest
# of all, and a backlog that grows for half an hour would hide how long a lost outcome takes.
MOST_UNFINISHED = 400
MOST_UNCONFIRMED = 1000


class Phase:
    """How far the run is: `creating` until the faults end, `working` until all jobs have ended."""

    def __init__(self) -> None:
        self.creating = threading.Event()
        self.working = threading.Event()
        self.creating.set()
        self.working.set()
        self.unfinished, self.unconfirmed = 0, 0  # jobs and outcomes, as PostgreSQL had them last

    def wait_for_room(self) -> None:
        """Return when more may be created, or nothing is created any more."""
        while self.creating.is_set() and (self.unfinished > MOST_UNFINISHED or self.unconfirmed > MOST_UNCONFIRMED):
            time.sleep(0.2)

    def stop(self) -> None:
        self.creating.clear()
        self.working.clear()


class Producer:
    """Creates jobs over HTTP, each under a key, and asks again until it has the answer."""

    def __init__(self, system: System, history: History, phase: Phase, tenant: str, seed: str) -> None:
        self._phase, self._tenant, self._seed, self._who = phase, tenant, seed, f"producer-{tenant}"
        self._random = random.Random(f"{seed}-{self._who}")
        self._caller = Caller(history, system.url, system.keys[tenant, "admin"], tenant, self._who)
        path = system.files / self._who
        path.write_bytes(f"source of {tenant}".encode())
        self._path = str(path)

    def run(self) -> None:
        count = 0
        while self._phase.creating.is_set():
            count += 1
            many = self._random.randrange(2, 16) if self._random.random() < 0.5 else 1
            key = f"{self._tenant}-{self._seed}-{count}"
            bodies = [self._body(f"{key}-{n}") for n in range(many)]
            body: Any = bodies[0] if many == 1 else {"jobs": bodies}
            while True:
                call, _ = self._caller.call("create" if many == 1 else "batch", json=body, key=key, count=many,
                                            headers={"Idempotency-Key": key})  # fmt: skip
                if call.ok or not self._phase.working.is_set():
                    break
                time.sleep(0.2)
            slow = self._tenant == PROCESS_TENANT
            time.sleep((1.0 if slow else 0.02 * many) * self._random.random())
            self._phase.wait_for_room()

    def _body(self, task: str) -> dict[str, Any]:
        rng, mood = self._random, self._random.random()
        limits: dict[str, Any] = {"max_retries": 50}
        if mood < 0.03:
            limits = {"max_retries": rng.randrange(2)}
        elif mood < 0.05:
            limits |= {"timeout_seconds": rng.randrange(1, 4)}
        elif mood < 0.07:
            limits |= {"queue_timeout_seconds": rng.randrange(1, 4)}
        return {
            "source_file_path": self._path, "content_type": rng.choice(CONTENT_TYPES), "ingestion_task_id": task,
            "priority": rng.choice(["low", "normal", "high"]), "task_options": {"task": task}, **limits,
        }  # fmt: skip


class Worker:
    """Claims jobs and does them, well mostly. With `zombie` it stops for longer than its lease, and comes back."""

    def __init__(
        self, system: System, history: History, phase: Phase, n: int, seed: str, *, zombie: bool = False
    ) -> None:
        self._phase, self._zombie = phase, zombie
        self._random = random.Random(f"{seed}-worker-{n}")
        self._tenant = TENANTS[n % len(TENANTS)]
        half = self._tenant == "alpha" and n % 2 == 0
        self._types = CONTENT_TYPES[::2] if half else CONTENT_TYPES
        self._name, self._life = f"worker-{n}", 1
        key = system.keys[self._tenant, "half" if half else "work"]
        self._caller = Caller(history, system.url, key, self._tenant, self._name)

    def run(self) -> None:
        while self._phase.working.is_set():
            for given in self._claim():
                self._do(given)

    def _claim(self) -> tuple[Given, ...]:
        """Return the answer of a poll, asked for again under the same claim_id until it comes."""
        worker = f"{self._name}-{self._life}"
        wait = self._random.choice([1, 2, 5])
        params = {
            "worker_id": worker, "content_types": ",".join(self._types), "wait": wait, "lease": LEASE,
            "max_jobs": self._random.choice([1, 1, 2, 4]) if not self._zombie else 1,
            "claim_id": f"{self._random.randrange(10**12)}",
        }  # fmt: skip
        while self._phase.working.is_set():
            call, _ = self._caller.call("poll", params=params, worker=worker, wait=float(wait), timeout=wait + 8,
                                        content_types=frozenset(self._types))  # fmt: skip
            if call.ok:
                return call.given
            if call.code == "paused":  # as its supervisor would: a new life, with a new name
                self._life += 1
                return ()
            time.sleep(0.1)
        return ()

    def _do(self, given: Given) -> None:
        mood = self._random.random()
        if self._zombie:
            self._sign(given)
            time.sleep(LEASE + 1 + self._random.random() * 8)
            if mood < 0.5:
                self._sign(given)
            self._submit(given, f"zombie {given.token}")
            return
        if mood < 0.03:
            return  # vanished before any sign of life
        if mood < 0.05:
            self._sign(given)
            return  # vanished with a lease
        if mood < 0.25:
            self._call("download", given)
        if mood < 0.29:
            self._call("release", given, json={"lease_token": given.token})
            return
        if mood < 0.34:
            self._submit(given, None)
            return
        if mood < 0.60:
            self._sign(given)
        if mood < 0.36:
            time.sleep(self._random.random() * 3)
        for _ in range(3 if mood < 0.40 else 1):
            self._submit(given, f"text {given.token}")

    def _sign(self, given: Given) -> None:
        self._call("heartbeat", given, json={"lease_token": given.token, "progress": 0.5})

    def _submit(self, given: Given, content: str | None) -> None:
        """Submit a result, repeated unchanged until it is answered, as a worker must."""
        body: dict[str, Any] = {"success": content is not None, "lease_token": given.token}
        body |= {"content": content} if content is not None else {"error_message": "no"}
        for _ in range(20):
            if self._call("result", given, json=body, content=content) != Outcome.UNKNOWN:
                return
            time.sleep(0.2)

    def _call(self, what: str, given: Given, **said: Any) -> Outcome:
        expects = frozenset({403, 409}) if what == "download" else frozenset({409})
        call, _ = self._caller.call(
            what, job_id=given.job_id, attempt=given.attempt, token=given.token, expects=expects,
            worker=f"{self._name}-{self._life}", headers={"X-Lease-Token": given.token}, **said,
        )  # fmt: skip
        return call.outcome


class Operator:
    """Looks at jobs, cancels a few, puts failed ones back, and asks for jobs of another tenant."""

    def __init__(self, system: System, history: History, phase: Phase, seed: str) -> None:
        self._history, self._phase = history, phase
        self._random = random.Random(f"{seed}-operator")
        self._callers = {
            tenant: Caller(history, system.url, system.keys[tenant, "admin"], tenant, f"operator-{tenant}")
            for tenant in TENANTS
        }

    def run(self) -> None:
        while self._phase.creating.is_set():
            time.sleep(0.15)
            known = [call for call in self._history.calls[-400:] if call.ok and call.job_ids and call.tenant in TENANTS]
            if known:
                call = self._random.choice(known)
                self._look(call.tenant, self._random.choice(call.job_ids))

    def _look(self, tenant: str, job_id: str) -> None:
        mood = self._random.random()
        caller = self._callers[tenant]
        what: str = self._random.choice(["status", "job", "explain", "read"])
        if mood < 0.1:
            other = self._random.choice([one for one in TENANTS if one != tenant])
            self._callers[other].call(what, job_id=job_id, expects=frozenset({404}))
        elif mood < 0.15:
            caller.call("cancel", job_id=job_id, expects=frozenset({409}))
        elif mood < 0.2:
            caller.call("list", params={"limit": 100})
            caller.call("statistics")
        elif mood < 0.4:
            call, _ = caller.call("list", params={"limit": 20, "status": self._random.choice(
                ["failed", "timeout", "cancelled"])})  # fmt: skip
            for one in call.job_ids[:3]:
                caller.call("retry", job_id=one, expects=frozenset({409}))
        else:
            caller.call(what, job_id=job_id, expects=frozenset({409}))


def clients(system: System, history: History, phase: Phase, seed: str, workers: int) -> list[Callable[[], None]]:
    """Return the loops of all clients that speak HTTP."""
    producers = [Producer(system, history, phase, tenant, seed) for tenant in (*TENANTS, PROCESS_TENANT)]
    doing = [Worker(system, history, phase, n, seed) for n in range(workers)]
    zombies = [Worker(system, history, phase, 1000 + n, seed, zombie=True) for n in range(3)]
    operator = Operator(system, history, phase, seed)
    return [*(one.run for one in producers), *(one.run for one in (*doing, *zombies)), operator.run]
