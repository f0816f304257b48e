"""Keys in memory: what a process remembers is bounded, and a look that fails or is overtaken says nothing of a key."""

from uuid import UUID

import gevent
import pytest

from bridge.admission import key_cache, keys
from bridge.admission.key_cache import KeyCache
from bridge.admission.key_makers import name_of
from bridge.admission.session_secret import session_secret
from bridge.caller import NO_KEY, Caller
from bridge.settings import load_settings
from tests.support.racing import meanwhile


def test_the_key_that_was_asked_for_longest_ago_makes_room_for_a_new_one(runtime, make_key, monkeypatch):
    monkeypatch.setattr(key_cache, "MOST_REMEMBERED", 2)
    ring = KeyCache(runtime.engine)
    first, second, third = (make_key() for _ in range(3))
    ring.caller(first)
    ring.caller(second)
    assert ring.remembered(first) is not None
    ring.caller(third)
    assert [ring.remembered(key) is not None for key in (first, second, third)] == [True, False, True]
    assert ring.caller(second).scopes == {"work"}


def test_two_refreshes_at_once_tell_of_a_revoked_key_once(runtime, made_key):
    gone: list[UUID] = []
    ring = KeyCache(runtime.engine, gone.append)
    caller = ring.caller(made_key)
    with runtime.engine.begin() as connection:
        keys.revoke_key(connection, keys.prefix_of(made_key))
    with meanwhile(runtime.engine, "FROM api_keys", ring.refresh):
        ring.refresh()
    assert gone == [caller.key_id]


def test_a_request_that_is_ended_amid_a_look_refuses_no_key(runtime, made_key):
    def end():
        raise gevent.GreenletExit

    ring = KeyCache(runtime.engine)
    with meanwhile(runtime.engine, "FROM api_keys", end), pytest.raises(gevent.GreenletExit):
        ring.caller(made_key)
    assert ring.caller(made_key).scopes == {"work"}


def test_the_bootstrap_key_counts_from_the_first_request_on(runtime):
    key = f"jb_bootstrap_{'x' * 32}"
    ring = KeyCache(runtime.engine, bootstrap=key)
    assert "admin" in ring.caller(key).scopes
    assert "admin" in KeyCache(runtime.engine).caller(key).scopes


@pytest.mark.parametrize("name", ["", "x" * 101, "a\0b"])
def test_a_name_that_cannot_be_stored_makes_no_key(runtime, name):
    with runtime.engine.begin() as connection, pytest.raises(ValueError, match="1 to 100 characters"):
        keys.create_key(connection, name, ["work"])


def test_who_revokes_is_recorded_by_prefix_and_nobody_without_keys(runtime, made_key):
    with runtime.engine.begin() as connection:
        assert name_of(connection, KeyCache(runtime.engine).caller(made_key)) == keys.prefix_of(made_key)
        assert name_of(connection, Caller(NO_KEY)) == keys.BY_NOBODY


def test_a_session_secret_that_is_set_counts_whatever_the_database_keeps(runtime):
    kept = session_secret(runtime.engine, runtime.settings)
    told = [session_secret(runtime.engine, load_settings({"BRIDGE_SESSION_SECRET": one * 32})) for one in "aab"]
    assert told[0] == told[1] != told[2]
    assert kept not in told
    assert session_secret(runtime.engine, runtime.settings) == kept
