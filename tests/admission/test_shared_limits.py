"""Limits that the API processes share through Redis, and without it."""

from contextlib import ExitStack
from uuid import uuid4

import pytest

from bridge.admission.limits import Limits
from bridge.errors import TooMany
from tests.admission.test_tenant_limits import admitted, parked, share


@pytest.fixture
def two(make_runtime):
    runtimes = (make_runtime(process=name, limits="requests=10,parked=4,failures=10") for name in ("p1", "p2"))
    return [Limits(runtime) for runtime in runtimes]


def test_requests_are_counted_together_once_they_are_shared(two, still):
    first, second = two
    key_id = uuid4()
    for _ in range(4):
        first.request(key_id, "default")
        second.request(key_id, "default")
    share(first, second)
    assert admitted(first, "default", [key_id]) == 2
    assert admitted(second, "default", [key_id]) == 2
    share(first, second)
    assert admitted(first, "default", [key_id]) == 0
    assert admitted(first, "default", [uuid4()]) == 10


def test_parked_polls_are_counted_together(two):
    first, second = two
    key_id = uuid4()
    with parked(first, "default", key_id), parked(first, "default", key_id), parked(second, "default", key_id):
        share(first, second)
        with parked(second, "default", key_id), pytest.raises(TooMany):
            parked(second, "default", key_id)
    for limits in (first, second):
        limits.share()
    with ExitStack() as polls:
        for _ in range(4):
            polls.enter_context(parked(second, "default", key_id))


@pytest.mark.parametrize("garbage", ["", "x", "1@", "@1", "1@x", "-1@9", "²@9", "1@" + "9" * 5000])
def test_garbage_in_redis_spoils_no_limit(two, redis, garbage):
    first, second = two
    key_id = uuid4()
    redis.hset(f"core:limits:parked:{key_id}", "p3", garbage)
    with parked(first, "default", key_id), parked(first, "default", key_id), parked(second, "default", key_id):
        for limits in (first, second):
            limits.share()
        with parked(second, "default", key_id), pytest.raises(TooMany):
            parked(second, "default", key_id)


def test_content_types_that_the_polls_of_a_key_wait_for(make_runtime, still):
    limits = Limits(make_runtime(limits="content_types=3"))
    key_id = uuid4()

    def waits(*types: str, key=key_id):
        return parked(limits, "default", key, types)

    with waits("a", "b"), waits("b", "c"), waits("a", "c"):
        for types in (["d"], ["a", "d"], ["d", "e"]):
            with pytest.raises(TooMany):
                waits(*types)
        with waits("d", "e", "f", key=uuid4()):
            pass
    with waits("d", "e", "f"), pytest.raises(TooMany):
        waits("a")
    with pytest.raises(TooMany):
        waits("a", "b", "c", "d")
    assert not limits._awaited


def test_without_redis_each_process_counts_for_itself_and_forgets_what_is_over(make_runtime, monkeypatch):
    minute = ["1"]
    monkeypatch.setattr("bridge.admission.limits._minute", lambda: minute[0])
    limits = Limits(make_runtime(redis_url="redis://127.0.0.1:1/0", limits="requests=10,failures=2"))
    key_id = uuid4()
    assert admitted(limits, "default", [key_id]) == 10
    for last in range(100):
        limits.failure(f"192.0.2.{last}")
    limits.share()
    assert admitted(limits, "default", [key_id]) == 0
    minute[0] = "2"
    share(limits)
    assert admitted(limits, "default", [key_id]) == 10
    assert not limits._used, "a minute that is over is counted no more, whoever asked in it"
