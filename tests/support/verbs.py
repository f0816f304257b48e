"""The verbs of the machine (tests/support/machine.py): how often each one is tried, and with what."""

from typing import Any

from hypothesis import strategies as st

from models.job_state import Asked, JobState
from tests.support.model import ACK, LEASE, QUEUE, TIMEOUT

SELDOM = st.sampled_from([False, False, False, True])
OFTEN = st.sampled_from([True, True, True, False])
KINDS = ("audio", "video")
WHO = st.tuples(st.sampled_from([0, 0, 0, 1]), st.sampled_from(["w1", "w2", "w3"]))
ASKED = st.tuples(st.sampled_from(KINDS), st.sampled_from([0, 1, 3, 3]), st.sampled_from([0, 1, 2]), SELDOM)

# How often each verb is tried, and with what; a job, a claim and an outcome are drawn from those that there are.
VERBS: dict[str, tuple[int, dict[str, Any]]] = {
    "create": (
        3,
        {
            "count": st.sampled_from([1, 1, 2]),
            "batch": st.booleans(),
            "key": st.sampled_from([None, "k1", "k2"]),
            "asked": ASKED,
        },
    ),
    "claim": (
        7,
        {
            "job_id": ...,
            "worker": WHO,
            "leased": st.booleans(),
            "claim_id": SELDOM,
            "all_": SELDOM,
            "live": OFTEN,
        },
    ),
    "heartbeat": (3, {"claim": ..., "news": st.booleans(), "token": OFTEN}),
    "result": (
        5,
        {
            "claim": ...,
            "success": SELDOM,
            "retryable": OFTEN,
            "content": st.sampled_from(["text", "another"]),
            "token": OFTEN,
            "foreign": SELDOM,
        },
    ),
    "release": (2, {"claim": ..., "token": st.booleans()}),
    "cancel": (1, {"job_id": ...}),
    "restart": (3, {"job_id": ...}),
    "steer": (
        2,
        {
            "asked": st.sampled_from(Asked),
            "kind": st.sampled_from(KINDS),
            "status": st.sampled_from([None, *JobState]),
            "dry_run": st.booleans(),
        },
    ),
    "let_pass": (4, {"job_id": ..., "seconds": st.sampled_from([ACK, LEASE, TIMEOUT, QUEUE])}),
    "let_pass_for_all": (5, {"seconds": st.sampled_from([ACK, LEASE])}),
    "expire": (5, {}),
    "go_silent": (9, {"job_id": ..., "worker": WHO, "live": st.booleans()}),
    "kill_key": (1, {"key": st.sampled_from([0, 1]), "revoked": st.booleans()}),
    "release_due": (1, {}),
    "hand_over": (
        3,
        {
            "broker": st.sampled_from(["takes", "takes", "confirms", "refuses", "dies"]),
            "confirming": st.booleans(),
            "times": st.sampled_from([1, 1, 1, 5]),
        },
    ),
    "confirm": (1, {"outcome": ...}),
    "resend": (1, {"outcome": ..., "named": st.booleans()}),
    "resend_failing": (1, {}),
    "purge": (3, {"job_id": ..., "old": OFTEN}),
    "fold": (1, {}),
}
WEIGHTED = st.sampled_from([verb for verb, (weight, _) in VERBS.items() for _ in range(weight)])
