"""The commands for production: db and keys."""

import re

import pytest
from sqlalchemy import create_engine, text

from tests.support.client import Client
from tests.support.client_commands import lines, said
from tests.support.command import refusal
from tests.support.own_database import own_database
from tests.support.waiting import wait_until


@pytest.fixture
def empty_database(servers):
    """Yield the URL of a database without any schema."""
    with own_database(servers.database_url) as url:
        yield url


@pytest.fixture
def settings():
    return {}


def test_the_schema_goes_up_and_down_and_says_where_it_is(run, empty_database):
    url = {"BRIDGE_DATABASE_URL": empty_database}
    assert said(run("db", "current", **url)) == "empty\n"
    newest = said(run("db", "upgrade", **url))
    assert re.fullmatch(r"\d{4}\n", newest)
    assert said(run("db", "current", **url)) == newest
    assert said(run("db", "upgrade", **url)) == newest  # again is well
    assert said(run("db", "downgrade", "base", **url)) == "empty\n"
    assert said(run("db", "current", **url)) == "empty\n"
    with create_engine(empty_database).connect() as connection:
        left = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars().all()
    assert left == ["alembic_version"]


@pytest.mark.parametrize("which", ["upgrade", "downgrade"])
def test_a_revision_that_does_not_exist_is_one_line(run, empty_database, which):
    line = refusal(run("db", which, "nosuch", BRIDGE_DATABASE_URL=empty_database))
    assert "revision nosuch: " in line


def test_downgrade_wants_to_be_told_how_far(run, empty_database):
    assert "REVISION" in lines(run("db", "downgrade", BRIDGE_DATABASE_URL=empty_database), 2)[-1]


@pytest.mark.parametrize(
    "command", [("db", "current"), ("db", "upgrade"), ("keys", "list"), ("keys", "revoke", "jb_1")]
)
def test_a_database_that_does_not_answer_is_one_line_without_the_password(run, command):
    line = refusal(run(*command, BRIDGE_DATABASE_URL="postgresql://user:a-password@127.0.0.1:1/x"))
    assert line.startswith("jobbridge: PostgreSQL cannot be used: ")
    assert "a-password" not in line


def test_a_database_without_a_schema_says_what_to_do(run, empty_database):
    line = refusal(run("keys", "list", BRIDGE_DATABASE_URL=empty_database))
    assert line == "jobbridge: the database's schema is missing or old: run `jobbridge db upgrade`"


def test_without_any_database_the_two_ways_are_named(run, tmp_path):
    line = refusal(run("keys", "list"))
    assert line == (
        f"jobbridge: BRIDGE_DATABASE_URL is not set, and {tmp_path / '.bridge'} holds no database: set it, or start"
        " `jobbridge up` in this directory first"
    )


@pytest.fixture
def keys(run, bridge):
    """Run `jobbridge keys …` on the shared bridge's database."""

    def begin(*arguments):
        return run("keys", *arguments, BRIDGE_DATABASE_URL=bridge.settings.require("database_url"))

    return begin


def test_a_key_is_printed_alone_and_works_at_once_and_not_after_its_revocation(keys, bridge, tmp_path):
    key = said(keys("create", "pipeline", "--scopes", "submit,read", "--tenant", "press")).strip()
    assert re.fullmatch(r"jb_[0-9a-f]{8}_[\w-]{43}", key)
    client = Client(bridge.url, key, bridge.files, "press")
    assert client.create()
    assert client.poll().status_code == 403

    prefix = "_".join(key.split("_")[:2])
    listed = next(line for line in said(keys("list")).splitlines() if prefix in line)
    assert listed.split() == [prefix, "pipeline", "press", "read,submit", "all", "–", *listed.split()[6:-1], "valid"]
    assert key not in said(keys("list"))

    assert said(keys("revoke", prefix)) == "1 key revoked\n"
    wait_until(lambda: client.get("").status_code == 401, "the revocation to be felt")
    assert f"{prefix} pipeline" in said(keys("list"))
    (revoked,) = [line for line in said(keys("list")).splitlines() if prefix in line]
    assert revoked.rstrip().endswith("revoked by command")
    assert refusal(keys("revoke", prefix), 1) == f"jobbridge: no valid key has the prefix {prefix}"


def test_a_key_may_be_limited_to_types_and_to_a_time(keys, bridge):
    arguments = ["--scopes", "work", "--content-types", "audio, video", "--expires", "2999-12-31"]
    key = said(keys("create", "gpu 1", *arguments)).strip()
    prefix = "_".join(key.split("_")[:2])
    listed = next(line for line in said(keys("list")).splitlines() if prefix in line)
    assert "audio,video" in listed
    assert "2999-12-31 00:00" in listed
    client = Client(bridge.url, key, bridge.files)
    assert client.poll("document").status_code == 403
    assert client.poll("audio,document").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--scopes", "submit,write"], "scopes must be some of submit, work, read, admin"),
        (["--scopes", ""], "scopes must be some of submit, work, read, admin"),
        (["--scopes", "read", "--tenant", "A B"], "the tenant must be 1 to 50 characters of a-z 0-9 . _ -"),
        (["--scopes", "read", "--content-types", ""], "the list of content types is empty; leave it out to allow all"),
        (["--scopes", "read", "--content-types", "Audio"], "content type 'Audio' must be 1 to 50 characters"),
        (["--scopes", "read", "--expires", "soon"], "--expires soon: write 2027-01-31 or"),
        (["--scopes", "read", "--expires", "2001-01-01"], "--expires is in the past"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused_in_one_line(keys, arguments, line):
    assert line in refusal(keys("create", "x", *arguments))


def test_a_forgotten_option_is_named(keys):
    assert "--scopes" in lines(keys("create", "x"), 2)[-1]


def test_a_key_that_calls_has_a_secret_which_is_made_anew_and_nobody_else_has_one(keys, bridge):
    address = "https://hooks.example.org/in"
    key, secret = said(keys("create", "calls", "--scopes", "submit", "--callback-url", address)).split()
    prefix = "_".join(key.split("_")[:2])
    again = said(keys("webhook-secret", prefix)).strip()
    assert secret.startswith("whsec_")
    assert again.startswith("whsec_")
    assert again != secret
    assert "hooks.example.org" in said(keys("list"))
    assert refusal(keys("webhook-secret", "jb_nosuch"), 1) == "jobbridge: no valid key has the prefix jb_nosuch"
    inside = refusal(keys("create", "x", "--scopes", "submit", "--callback-url", "https://127.0.0.1/"))
    assert "callback_url" in inside


def test_who_has_set_one_server_is_told_of_the_other(run):
    line = refusal(run("api", BRIDGE_DATABASE_URL="postgresql://u@127.0.0.1:1/x"))
    assert line.startswith("jobbridge: BRIDGE_REDIS_URL is not set, and no `jobbridge up` runs its own servers")
