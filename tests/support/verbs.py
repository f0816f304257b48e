"""The verbs of the machine (tests/support/machine.py): how often each one is tried, and with what."""

from typing import Any

from hypothesis.strategies import booleans, sampled_from, tuples

from models.job_state import Asked, JobState
from tests.support.model import ACK, LEASE, QUEUE, TIMEOUT

SELDOM = sampled_from([False, False, False, True])
OFTEN = sampled_from([True, True, True, False])
KINDS = ("audio", "video")
WHO = tuples(sampled_from([0, 0, 0, 1]), sampled_from(["w1", "w2", "w3"]))
ASKED = tuples(sampled_from(KINDS), sampled_from([0, 1, 3, 3]), sampled_from([0, 1, 2]), SELDOM)


def verb(weight: int, **drawn: Any) -> tuple[int, dict[str, Any]]:
    """Return how often a verb is tried, and with what: a job, a claim and an outcome (...) of those that there are."""
    return weight, drawn


VERBS = {
    "create": verb(
        3, count=sampled_from([1, 1, 2]), batch=booleans(), key=sampled_from([None, "k1", "k2"]), asked=ASKED
    ),
    "claim": verb(7, job_id=..., worker=WHO, leased=booleans(), claim_id=SELDOM, all_=SELDOM, live=OFTEN),
    "heartbeat": verb(3, claim=..., news=booleans(), token=OFTEN),
    "result": verb(
        5,
        claim=...,
        success=SELDOM,
        retryable=OFTEN,
        content=sampled_from(["text", "another"]),
        token=OFTEN,
        foreign=SELDOM,
    ),
    "release": verb(2, claim=..., token=booleans()),
    "cancel": verb(1, job_id=...),
    "restart": verb(3, job_id=...),
    "steer": verb(
        2,
        asked=sampled_from(Asked),
        kind=sampled_from(KINDS),
        status=sampled_from([None, *JobState]),
        dry_run=booleans(),
    ),
    "let_pass": verb(4, job_id=..., seconds=sampled_from([ACK, LEASE, TIMEOUT, QUEUE])),
    "let_pass_for_all": verb(5, seconds=sampled_from([ACK, LEASE])),
    "expire": verb(5),
    "go_silent": verb(9, job_id=..., worker=WHO, live=booleans()),
    "kill_key": verb(1, key=sampled_from([0, 1]), revoked=booleans()),
    "release_due": verb(1),
    "hand_over": verb(
        3,
        broker=sampled_from(["takes", "takes", "confirms", "refuses", "dies"]),
        confirming=booleans(),
        times=sampled_from([1, 1, 1, 5]),
    ),
    "confirm": verb(1, outcome=...),
    "resend": verb(1, outcome=..., named=booleans()),
    "resend_failing": verb(1),
    "purge": verb(3, job_id=..., old=OFTEN),
    "fold": verb(1),
}
WEIGHTED = sampled_from([name for name, (weight, _) in VERBS.items() for _ in range(weight)])
