"""What all keys of a tenant may ask for together: making more keys buys nothing, and no other tenant feels it."""

from contextlib import ExitStack
from uuid import UUID, uuid4

import pytest

from bridge.admission.limits import Limits
from bridge.caller import Caller
from bridge.errors import TooMany
from tests.support.client import ok, refused
from tests.support.core import Core
from tests.support.waiting import wait_until

LIMITS = "tenant_requests=10,tenant_parked=4,tenant_in_hand=3"


@pytest.fixture
def two(make_runtime):
    """Return the limits of two processes."""
    return [Limits(make_runtime(process=name, limits=LIMITS)) for name in ("p1", "p2")]


def share(*limits):
    """Both tell, then both know."""
    for one in (*limits, *limits):
        one.share()


def admitted(limits, tenant, keys):
    """How many requests of so many new keys, in turns, are let in."""
    for count in range(30):
        try:
            limits.request(keys[count % len(keys)], tenant)
        except TooMany:
            return count
    return 30


def parked(limits, tenant="t1", key_id=None, content_types=("a",)):
    """Return a poll (of a new key) that waits, refused where it may not."""
    whose = key_id or uuid4(), tenant, content_types
    limits.check_parked(*whose)
    return limits.parked(*whose)


def test_requests_of_many_keys_count_together_also_in_two_processes(two, still):
    keys = [uuid4() for _ in range(7)]
    for key in keys:
        two[0].request(key, "t1")
    two[1].request(uuid4(), "t1")
    share(*two)
    assert admitted(two[1], "t1", [uuid4(), uuid4()]) == 2
    share(*two)
    assert admitted(two[0], "t1", [uuid4()]) == 0
    assert admitted(two[0], "t2", [uuid4()]) == 10


def test_polls_of_many_keys_that_wait_count_together_also_in_two_processes(two):
    first, second = two
    with ExitStack() as waiting:
        for _ in range(4):
            waiting.enter_context(parked(first))
        share(first, second)
        with pytest.raises(TooMany, match="tenant"):
            parked(first)
        with parked(second):  # its first of this tenant: with it the process hears of the others
            share(first, second)
            with pytest.raises(TooMany, match="tenant"):
                parked(second)
        with parked(first, "t2"), parked(second, "t2"):
            pass
    share(first, second)
    with parked(second), parked(first):
        pass


def test_jobs_in_the_hands_of_many_keys_count_together(make_runtime):
    runtime = make_runtime(limits=LIMITS)
    core, other = Core(runtime, "t1"), Core(runtime, "t2")
    limits = Limits(runtime)
    held = [core.claim(core.create(), key=Caller(UUID(int=number), "t1")) for number in range(1, 3)]
    limits.room(uuid4(), "t1")  # the first one asks; then it is counted
    limits.look()
    assert limits.room(uuid4(), "t1") == 1
    limits.took(uuid4(), "t1", 1)
    with pytest.raises(TooMany, match="tenant"):
        limits.room(uuid4(), "t1")
    assert limits.room(uuid4(), other.tenant) == 3
    assert held[0] is not None
    core.result(held[0], key=Caller(UUID(int=1), "t1"))
    limits._tenants_hand.of("t1").next_look = 0.0
    limits.look()
    assert limits.room(uuid4(), "t1") == 2, "what is held counts, not what might have been"


@pytest.mark.slow
def test_over_http_too_many_keys_pauses_and_requests_of_a_tenant_are_a_429(own_bridge):
    bridge = own_bridge(limits="keys=3,pauses=2,tenant_requests=40", api_processes="1", celery=False, beat=False)
    client = bridge.client()
    new = {"name": "n", "scopes": ["read"]}
    for _ in range(2):
        assert client.post("/api/v1/keys", new).status_code == 201
    assert "keys" in refused(client.post("/api/v1/keys", new), 429, "too_many")["detail"]
    for name in ("w1", "w2"):
        ok(client.post(f"/api/v1/workers/{name}/pause", {"reason": "disk full"}))
    assert "paused" in refused(client.post("/api/v1/workers/w3/pause", {"reason": "x"}), 429, "too_many")["detail"]
    others = [bridge.client(client.tenant) for _ in range(4)]

    def exhausted():
        return any(one.get("").status_code == 429 for one in others)

    wait_until(exhausted, "the tenant's requests to be used up", 60)
    assert "tenant" in refused(client.get(""), 429, "too_many")["detail"]
    ok(bridge.client().get(""))
