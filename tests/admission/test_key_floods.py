"""Floods of keys that do not count: they lock nobody out, push no key out of memory, and cost one query at a time."""

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bridge.admission import keys
from bridge.admission.key_cache import MOST_REMEMBERED, KeyCache
from bridge.errors import Unauthorized
from tests.support.client import Client, ok
from tests.support.racing import watching
from tests.support.waiting import wait_until


def made_up():
    return f"jb_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"


def test_a_flood_of_made_up_keys_pushes_no_key_that_counts_out_and_is_not_remembered(runtime, made_key):
    ring = KeyCache(runtime.engine)
    ring.caller(made_key)
    prefixes = [f"jb_{number:08x}" for number in range(MOST_REMEMBERED + 500)]
    ring._unknown = dict.fromkeys(prefixes[:MOST_REMEMBERED], ring._known[keys.prefix_of(made_key)])
    for _ in range(20):
        with pytest.raises(Unauthorized):
            ring.caller(made_up())
    assert len(ring._unknown) <= MOST_REMEMBERED
    assert ring.remembered(made_key) is not None


def test_all_that_ask_while_a_look_is_under_way_share_the_next_one(runtime, made_key):
    ring = KeyCache(runtime.engine)
    looks, first, go_on = [], threading.Event(), threading.Event()

    def slow(connection, cursor, statement, *_):
        if "FROM api_keys" in statement:
            looks.append(statement)
            first.set()
            go_on.wait(30)

    def refused(key):
        with pytest.raises(Unauthorized):
            ring.caller(key)

    with watching(runtime.engine, slow), ThreadPoolExecutor(60) as pool:
        asked = [pool.submit(refused, made_up())]
        assert first.wait(30)
        asked += [pool.submit(refused, made_up()) for _ in range(50)]
        honest = pool.submit(ring.caller, made_key)
        wait_until(lambda: len(ring._next.prefixes) == 51, "all of them to wait for it")
        go_on.set()
        assert honest.result(timeout=60).scopes == {"work"}
        for one in asked:
            one.result(timeout=60)
    assert len(looks) == 2


def test_valid_keys_that_no_process_has_in_memory_count_in_the_midst_of_a_flood(own_bridge):
    bridge = own_bridge(celery=False, beat=False, api_processes="1", limits="failures=5")
    with ThreadPoolExecutor(8) as pool:

        def wrong(_):
            return Client(bridge.url, made_up(), bridge.files).get("").status_code

        statuses = list(pool.map(wrong, range(40)))
        assert set(statuses) == {401, 429}
        flood = [pool.submit(wrong, number) for number in range(200)]
        for _ in range(10):
            ok(bridge.client().get(""))
        assert {one.result(timeout=60) for one in flood} <= {401, 429}
