"""One sending of what is due, to a broker as the machine (tests/support/machine.py) wants it."""

from contextlib import suppress
from typing import Any

from bridge.outbox import outcomes
from bridge.runtime import Runtime


class Refused(Exception):
    """The broker takes nothing."""


class Died(Exception):
    """The process that hands over is gone."""


def handed_over(runtime: Runtime, tenant: str, broker: str) -> set[tuple[str, int]]:
    """Return the outcomes of a tenant that a broker took: (job ID, n).

    It `takes` what it is given, `confirms` it as a quick pipeline does, before the sender has noted that it was taken,
    or `refuses` it; or the sender `dies` at the first one.
    """
    taken = set()

    def send(task_id: str, kwargs: dict[str, Any], whose: str) -> None:
        job_id, n = kwargs["job_id"], kwargs["n"]
        assert task_id == f"continue-{job_id}-{n}"
        if whose != tenant:  # what a machine that was killed has left
            return
        if broker in ("refuses", "dies"):
            raise Refused if broker == "refuses" else Died
        taken.add((job_id, n))
        if broker == "confirms":
            assert outcomes.confirm(runtime, job_id, n)

    with suppress(Died):
        outcomes.deliver(runtime, send, (Refused,), batch=1000, jitter=0)
    with suppress(Died):
        outcomes.repeat(runtime, send, (Refused,), 0, jitter=0)
    return taken
