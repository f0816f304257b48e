"""Keys: made, listed and revoked over HTTP; checked from memory; a revoked one is felt at once and holds nothing."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from bridge.admission import keys
from bridge.admission.key_cache import KeyCache
from bridge.caller import Caller
from bridge.errors import Unauthorized
from bridge.jobs.revoke_key import revoke
from bridge.names import KEYS_BASE
from tests.support.client import Client, ok, refused
from tests.support.quick_command import quick_jobbridge as jobbridge
from tests.support.racing import watching
from tests.support.waiting import wait_until


def made(client, **fields):
    answer = client.post(KEYS_BASE, {"name": "made", "scopes": ["work"], **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def with_key(client, key):
    return Client(client.url, key["key"], client.files, client.tenant)


def test_a_key_is_shown_once_and_listed_without_its_secret(bridge, client):
    created = made(client, scopes=["read", "work"], content_types=["audio"], expires_at="2999-01-01T00:00:00Z")
    ok(with_key(client, created).get(""))
    listed = ok(client.get(KEYS_BASE))
    assert created["prefix"] in [key["prefix"] for key in listed["keys"]]
    assert {key["tenant"] for key in listed["keys"]} == {client.tenant}
    assert created["key"] not in str(listed)
    whole = "SELECT CAST(k AS text) AS whole, content_types FROM api_keys k WHERE prefix = :prefix"
    (stored,) = bridge.sql(whole, prefix=created["prefix"])
    secret = created["key"].removeprefix(f"{created['prefix']}_")
    assert secret != created["key"]
    assert secret not in stored.whole
    assert secret.encode().hex() not in stored.whole
    assert stored.content_types == ["audio"]


def test_an_admin_administers_its_own_tenant_and_one_of_default_every_tenant(bridge, client):
    other = bridge.client()
    theirs = made(other)
    refused(client.post(KEYS_BASE, {"name": "x", "scopes": ["work"], "tenant": other.tenant}), 403, "forbidden")
    refused(client.request("DELETE", f"{KEYS_BASE}/{theirs['prefix']}"), 404, "not_found")
    refused(client.request("DELETE", f"{KEYS_BASE}/jb_%00"), 404)
    root = bridge.client("default")
    assert made(root, tenant=client.tenant)["tenant"] == client.tenant
    assert made(root)["tenant"] == "default"
    assert ok(root.request("DELETE", f"{KEYS_BASE}/{theirs['prefix']}"))["released"] == 0
    assert len({key["tenant"] for key in ok(root.get(KEYS_BASE))["keys"]}) > 1


def test_an_admin_limited_to_content_types_makes_no_key_beyond_them(bridge):
    limited = bridge.client(content_types=["audio"])
    refused(limited.post(KEYS_BASE, {"name": "x", "scopes": ["work"]}), 403)
    refused(limited.post(KEYS_BASE, {"name": "x", "scopes": ["work"], "content_types": ["audio", "video"]}), 403)
    assert made(limited, content_types=["audio"])["content_types"] == ["audio"]


BAD: dict[str, list[Any]] = {
    "name": ["", "x" * 101, 5],
    "scopes": [[], ["root"], "work"],
    "tenant": ["A b"],
    "content_types": [[], ["a:b"]],
    "expires_at": ["2001-01-01T00:00:00Z", "tomorrow"],
    "secret_hash": ["x"],
}


@pytest.mark.parametrize("field", BAD)
def test_a_bad_field_of_a_new_key_is_named(client, field):
    for value in BAD[field]:
        body = {"name": "x", "scopes": ["work"], field: value}
        errors = refused(client.post(KEYS_BASE, body), 422, "validation")["errors"]
        assert {name.partition(".")[0] for name in errors} == {field}, value


def test_two_keys_live_side_by_side_until_the_old_one_is_revoked(client):
    old, new = made(client, scopes=["read"]), made(client, scopes=["read"])
    ok(with_key(client, old).get(""))
    ok(with_key(client, new).get(""))
    first = ok(client.request("DELETE", f"{KEYS_BASE}/{old['prefix']}"))
    assert ok(client.request("DELETE", f"{KEYS_BASE}/{old['prefix']}"))["revoked_at"] == first["revoked_at"]
    wait_until(lambda: with_key(client, old).get("").status_code == 401, "the old key to end")
    ok(with_key(client, new).get(""))


def test_revoking_gives_back_what_the_key_holds_without_spending_a_retry(client):
    created = made(client, scopes=["work"])
    hostile = with_key(client, created)
    first, second = client.create("revoked"), client.create("revoked")
    held = hostile.claim("revoked", lease=600)
    assert held["job_id"] == first
    ok(hostile.heartbeat(held))
    # The sweep of the clocks may come first: the count is tried below.
    assert ok(client.request("DELETE", f"{KEYS_BASE}/{created['prefix']}"))["released"] <= 1
    again = client.claim("revoked")
    assert again["job_id"] == first, "back at the head"
    assert (again["retry_count"], again["attempt"]) == (0, 2)
    assert client.job(first)["attempts"][0]["how"] == "released"
    wait_until(lambda: hostile.heartbeat(held).status_code == 401, "the key to end")
    refused(hostile.result(held), 401, "unauthorized")
    assert client.status(second) == "pending"


def test_a_parked_poll_of_a_revoked_key_is_answered_with_nothing(bridge, client):
    created = made(client, scopes=["work"])
    hostile = with_key(client, created)
    with ThreadPoolExecutor(1) as pool:
        parked = pool.submit(hostile.poll, "nothing-here", wait=60)
        used = "SELECT 1 FROM api_keys WHERE prefix = :prefix AND last_used_at IS NOT NULL"
        wait_until(lambda: bridge.sql(used, prefix=created["prefix"]), "the poll to have come")
        ok(client.request("DELETE", f"{KEYS_BASE}/{created['prefix']}"))
        assert ok(parked.result(timeout=30))["jobs"] == []
    wait_until(lambda: hostile.poll("nothing-here").status_code == 401, "the key to end")


def test_what_an_expired_key_holds_goes_back_with_the_next_sweep(bridge, client):
    worker = bridge.client(client.tenant, ("work",), expires_at=datetime.now(UTC) + timedelta(hours=1))
    client.create("expired")
    held = worker.claim("expired", lease=3600)
    bridge.sql("UPDATE api_keys SET expires_at = now() WHERE prefix = :p", p=keys.prefix_of(worker.key))
    wait_until(lambda: client.status(held["job_id"]) == "pending", "the sweep")
    wait_until(lambda: worker.heartbeat(held).status_code == 401, "the key to end")


@pytest.fixture
def statements(runtime):
    seen: list[str] = []
    with watching(runtime.engine, lambda connection, cursor, statement, *_: seen.append(statement)):
        yield seen


def test_a_key_in_use_is_checked_without_a_query(runtime, made_key, statements):
    ring = KeyCache(runtime.engine)
    ring.caller(made_key)
    del statements[:]
    for _ in range(1000):
        ring.caller(made_key)
    assert statements == []


def used(runtime):
    """How many keys were used."""
    with runtime.engine.connect() as connection:
        return sum(row.last_used_at is not None for row in keys.list_keys(connection))


def test_a_refresh_looks_at_all_keys_in_one_query_and_writes_last_used_at_once_a_minute(runtime, make_key, statements):
    ring = KeyCache(runtime.engine)
    several = [make_key() for _ in range(5)]
    for key in several:
        ring.caller(key)
    del statements[:]
    ring.refresh()
    assert len(statements) == 2
    for key in several:
        ring.caller(key)
    ring.refresh()
    assert len(statements) == 3
    assert used(runtime) == 5


def test_who_knows_only_the_prefix_of_a_key_does_not_make_it_look_used(runtime, made_key):
    """The runbook goes by `last_used_at` to say whether a leaked key was used."""
    ring = KeyCache(runtime.engine)
    for _ in range(2):
        with pytest.raises(Unauthorized):
            ring.caller(f"{keys.prefix_of(made_key)}_wrong")
        ring.refresh()
    assert used(runtime) == 0
    ring.caller(made_key)
    ring.refresh()
    assert used(runtime) == 1


def test_a_refresh_forgets_what_was_revoked_and_tells_whose_it_was(runtime, made_key):
    gone: list[UUID] = []
    ring = KeyCache(runtime.engine, gone.append)
    caller = ring.caller(made_key)
    with runtime.engine.begin() as connection:
        assert keys.revoke_key(connection, keys.prefix_of(made_key)) == 1
        assert keys.revoke_key(connection, keys.prefix_of(made_key)) == 0
    ring.refresh()
    assert gone == [caller.key_id]
    assert ring.remembered(made_key) is None
    with pytest.raises(Unauthorized):
        ring.caller(made_key)


@pytest.mark.parametrize("wrong", ["", "jb_", "{prefix}", "{prefix}_wrong", "{key}x", "x{key}", "ä", "jb_00000000_x"])
def test_a_wrong_secret_does_not_count_and_spoils_nothing(runtime, made_key, wrong):
    ring = KeyCache(runtime.engine)
    for _ in range(2):
        with pytest.raises(Unauthorized):
            ring.caller(wrong.format(prefix=keys.prefix_of(made_key), key=made_key))
        assert ring.caller(made_key).scopes == {"work"}


def test_a_revocation_counts_what_it_gives_back(core, made_key):
    who = KeyCache(core.engine).caller(made_key)
    for _ in range(3):
        assert core.claim(core.create(), key=who) is not None
    done = [revoke(core.runtime, Caller(), keys.prefix_of(made_key)) for _ in range(2)]
    assert [(one.released, one.also) for one in done] == [(3, 0), (0, 0)]


def test_a_key_is_revoked_also_where_its_jobs_cannot_be_given_back_at_once(bridge, client):
    created = made(client, scopes=["work"])
    hostile = with_key(client, created)
    job_id = client.create("revoked")
    ok(hostile.heartbeat(hostile.claim("revoked", lease=600)))
    with bridge.engine.connect() as connection:
        connection.execute(text("LOCK TABLE job_attempts IN SHARE MODE"))  # no attempt can be ended
        refused(client.request("DELETE", f"{KEYS_BASE}/{created['prefix']}"), 503, "unavailable")
        wait_until(lambda: hostile.poll("revoked").status_code == 401, "the key to end")
    assert ok(client.request("DELETE", f"{KEYS_BASE}/{created['prefix']}"))["revoked_at"] is not None
    wait_until(lambda: client.status(job_id) == "pending", "the job to be given back")


def test_revoking_on_the_command_line_gives_back_too(bridge, client, tmp_path):
    """`jobbridge keys revoke` has no mirror at hand; the dispatcher finds the jobs in PostgreSQL within a second."""
    created = made(client, scopes=["work"])
    hostile = with_key(client, created)
    client.create("revoked")
    held = hostile.claim("revoked", lease=600)
    url = bridge.settings.require("database_url")
    done = jobbridge("keys", "revoke", created["prefix"], cwd=tmp_path, BRIDGE_DATABASE_URL=url)
    assert done.stdout.startswith("1 key revoked"), done
    assert client.claim("revoked")["job_id"] == held["job_id"]
