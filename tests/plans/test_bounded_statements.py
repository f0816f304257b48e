"""The LIMIT of each bounded change is evaluated once, whatever plan PostgreSQL chooses."""

import json
from dataclasses import replace
from typing import Any

import pytest

from bridge.blobs import collect
from bridge.insight import counters
from bridge.jobs import batches, expire, purge, unserved
from bridge.jobs.release import evict, take_from_key
from bridge.mirror import release_due
from bridge.outbox import outcomes
from bridge.outbox.resend_sooner import resend_sooner
from tests.support.core import KEY
from tests.support.racing import watching

BOUNDED = {
    "purge": purge.purge,
    "release_due": lambda runtime: release_due.release_due(runtime.engine, runtime.mirror),
    "expire": expire.expire,
    "deliver": lambda runtime: outcomes.deliver(runtime, lambda *_: None, ()),
    "resend_sooner": lambda runtime: resend_sooner(confirming(runtime)),
    "resend_failing": lambda runtime: outcomes.resend_failing(runtime, "default"),
    "take_from_key": lambda runtime: list(take_from_key(runtime.engine, KEY.key_id)),
    "evict": lambda runtime: evict(runtime, "default", ["w1", "w2"], [KEY.key_id]),
    "fold": counters.fold,
    "collect": collect.collect,
    "look_at_open_batches": batches.look_at_open,
    "tell_unserved": unserved.tell_unserved,
}


def confirming(runtime):
    settings = runtime.settings.model_copy(update={"continuation_confirm_seconds": 30})
    return replace(runtime, settings=settings)


def locks(plan, above=()):
    """How each place that locks rows is reached from the change that it is for: the nodes' relationships upwards."""
    path = () if plan["Node Type"] == "ModifyTable" else (*above, plan.get("Parent Relationship"))
    if plan["Node Type"] == "LockRows":
        yield path
    for below in plan.get("Plans", []):
        yield from locks(below, path)


@pytest.mark.parametrize("name", BOUNDED)
def test_the_rows_of_a_batch_are_chosen_once(core, name):
    chosen: list[Any] = []

    def explain(connection, cursor, statement, parameters, *_):
        if "SKIP LOCKED" not in statement:
            return
        cursor.execute("EXPLAIN (FORMAT JSON) " + statement, parameters)
        answer = cursor.fetchone()[0]
        answer = json.loads(answer) if isinstance(answer, str) else answer
        chosen.extend((path, statement) for path in locks(answer[0]["Plan"]))

    with watching(core.engine, explain):
        BOUNDED[name](core.runtime)
    assert chosen
    for path, statement in chosen:
        assert "InitPlan" in path, statement
