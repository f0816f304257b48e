"""Who makes keys: none exceeds or outlives its maker, who did it is kept, and what a key made can end with it."""

from datetime import UTC, datetime, timedelta

import pytest

from bridge.admission import keys
from bridge.admission.key_makers import make_key
from bridge.caller import Caller
from bridge.errors import BridgeError, TooMany, Unauthorized
from bridge.names import KEYS_BASE
from tests.admission.test_keys import made as new_key
from tests.admission.test_keys import with_key
from tests.support.client import ok, refused
from tests.support.quick_command import quick_jobbridge as jobbridge
from tests.support.waiting import wait_until

LATE = datetime(2999, 1, 1, tzinfo=UTC)


def made(client, **fields):
    return new_key(client, **{"scopes": ["admin"], **fields})


def test_a_key_with_an_end_makes_none_that_outlives_it(bridge):
    end = datetime.now(UTC) + timedelta(hours=1)
    short = bridge.client(expires_at=end)
    inherited = made(short)
    assert datetime.fromisoformat(inherited["expires_at"]) == end
    assert datetime.fromisoformat(made(with_key(short, inherited))["expires_at"]) == end
    sooner = made(short, expires_at=(end - timedelta(minutes=1)).isoformat())
    assert datetime.fromisoformat(sooner["expires_at"]) < end
    for later in (end + timedelta(microseconds=1), end + timedelta(days=9000)):
        body = {"name": "x", "scopes": ["read"], "expires_at": later.isoformat()}
        problem = refused(short.post(KEYS_BASE, body), 422, "validation")
        assert set(problem["errors"]) == {"expires_at"}


@pytest.mark.parametrize(
    ("maker", "wanted"),
    [
        ({"scopes": ["read", "work"]}, {"scopes": ["submit"]}),
        ({"scopes": ["read"]}, {"scopes": ["read", "admin"]}),
        ({"scopes": ["admin"], "content_types": ["a", "b"]}, {"content_types": None}),
        ({"scopes": ["admin"], "content_types": ["a", "b"]}, {"content_types": ["a", "c"]}),
        ({"scopes": ["admin"], "tenant": "mine"}, {"tenant": "default"}),
        ({"scopes": ["admin"], "tenant": "mine"}, {"tenant": "other"}),
        ({"scopes": ["admin"], "expires_at": LATE}, {"expires_at": LATE + timedelta(days=1)}),
    ],
)
def test_the_core_makes_no_key_that_is_more_than_its_maker(runtime, maker, wanted):
    """Whoever may call it: over HTTP only admins do."""
    given = {"scopes": ["read"], "tenant": maker.get("tenant", "default"), "content_types": None, "expires_at": None}
    with runtime.engine.begin() as connection:
        text = keys.create_key(connection, "maker", **maker)
        row = keys.find_key(connection, keys.prefix_of(text))
        assert row is not None
        who = Caller(row.id, row.tenant, frozenset({"admin"}), None)  # what a cache may still believe
        with pytest.raises(BridgeError):
            make_key(connection, who, "x", **{**given, **wanted}, most=100)
    with runtime.engine.begin() as connection:
        assert len(keys.list_keys(connection)) == 1


def test_a_key_that_was_revoked_meanwhile_makes_none(runtime):
    with runtime.engine.begin() as connection:
        text = keys.create_key(connection, "maker", ["admin"])
        row = keys.find_key(connection, keys.prefix_of(text))
        assert row is not None
        keys.revoke_key(connection, row.prefix)
        with pytest.raises(Unauthorized):
            make_key(connection, Caller(row.id), "x", ["read"], "default", None, None, most=100)


def test_the_live_keys_of_a_tenant_are_bounded_and_others_do_not_feel_it(runtime):
    with runtime.engine.begin() as connection:
        for number in range(3):
            make_key(connection, Caller(), str(number), ["read"], "full", None, None, most=3)
        with pytest.raises(TooMany):
            make_key(connection, Caller(), "x", ["read"], "full", None, None, most=3)
        make_key(connection, Caller(), "x", ["read"], "other", None, None, most=3)
        keys.revoke_key(connection, keys.list_keys(connection, "full")[0].prefix)
        make_key(connection, Caller(), "x", ["read"], "full", None, None, most=3)


def test_makers_and_revokers_are_shown_and_what_a_key_made_ends_with_it(bridge, client):
    leaked = made(client)
    child = made(with_key(client, leaked), scopes=["work"])
    grandchild = made(with_key(client, made(with_key(client, leaked))), scopes=["read"])
    mine = keys.prefix_of(client.key)
    assert leaked["made_by"] == mine
    assert child["made_by"] == leaked["prefix"]
    direct = ok(client.get(KEYS_BASE, params={"made_by": leaked["prefix"]}))["keys"]
    assert len(direct) == 2
    assert {key["made_by"] for key in direct} == {leaked["prefix"]}

    worker = with_key(client, child)
    job_id = client.create("leaked")
    held = worker.claim("leaked", lease=600)
    ok(worker.heartbeat(held))
    ok(client.request("DELETE", f"{KEYS_BASE}/{leaked['prefix']}"))
    ok(with_key(client, grandchild).get(""))
    done = ok(client.request("DELETE", f"{KEYS_BASE}/{leaked['prefix']}?made=true"))
    assert (done["also_revoked"], done["revoked_by"]) == (3, mine)
    assert done["released"] <= 1  # the sweep of the clocks may have been first
    wait_until(lambda: client.status(job_id) == "pending", "the job to be put back")
    listed = {key["prefix"]: key for key in ok(client.get(KEYS_BASE))["keys"]}
    assert all(listed[key["prefix"]]["revoked_by"] == mine for key in (leaked, child, grandchild))
    assert listed[mine]["revoked_at"] is None
    wait_until(lambda: worker.heartbeat(held).status_code == 401, "the made keys to end")


def test_what_another_tenants_key_made_is_nobodys_to_list_or_revoke(bridge, client):
    other = bridge.client()
    theirs = made(other)
    assert ok(client.get(KEYS_BASE, params={"made_by": keys.prefix_of(other.key)}))["keys"] == []
    refused(client.request("DELETE", f"{KEYS_BASE}/{keys.prefix_of(other.key)}?made=true"), 404)
    ok(with_key(other, theirs).get(""))


def test_the_list_of_keys_comes_in_pages(client):
    prefixes = [made(client)["prefix"] for _ in range(6)]
    pages = client.pages(KEYS_BASE, "keys", limit=2)
    assert max(map(len, pages)) <= 2
    assert [key["prefix"] for page in pages for key in page] == [keys.prefix_of(client.key), *prefixes]


def test_the_command_line_shows_makers_and_revokes_what_a_key_made(bridge, client, tmp_path):
    leaked = made(client)
    made(with_key(client, leaked))
    url = bridge.settings.require("database_url")
    shown = jobbridge("keys", "list", "--made-by", leaked["prefix"], cwd=tmp_path, BRIDGE_DATABASE_URL=url)
    assert leaked["prefix"] in shown.stdout
    done = jobbridge("keys", "revoke", leaked["prefix"], "--with-made", cwd=tmp_path, BRIDGE_DATABASE_URL=url)
    assert "2 keys revoked" in done.stdout
    rows = bridge.sql("SELECT revoked_by FROM api_keys WHERE prefix = :p OR made_by = :p", p=leaked["prefix"])
    assert [row.revoked_by for row in rows] == ["command", "command"]
