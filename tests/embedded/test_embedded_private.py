"""What the embedded servers keep is their owner's alone: modes, roles, accounts, and what their logs hold."""

import os
import pwd
import secrets
import shutil
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from bridge import embedded
from bridge.embedded import account, places
from bridge.private_files import NotOurs, open_log, private_directory, read_of_another, write_private
from models import migrations

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root runs PostgreSQL as another user")
#: What a superuser may run.
FORBIDDEN = ("COPY (SELECT 1) TO PROGRAM 'cat'", "COPY (SELECT 1) TO '/tmp/x'", "SELECT pg_read_file('/etc/passwd')")
WORD = "Stachelschweinragout"


def connect(url: str):
    return psycopg2.connect(url.replace("+psycopg2", ""))


def mode(place: Path) -> int:
    return stat.S_IMODE(place.stat().st_mode)


@pytest.fixture
def place(tmp_path):
    yield tmp_path / "data"
    home = tmp_path / "data" / "postgres"
    if home.is_symlink():
        shutil.rmtree(home.resolve(), ignore_errors=True)


def test_all_of_it_is_private_whatever_the_umask_and_the_bridges_role_runs_no_program(place):
    umask = os.umask(0)
    try:
        with embedded.start(place) as servers, closing(connect(servers.database_url)) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user")
            assert cursor.fetchone() == (False, False, False)
            for statement in FORBIDDEN:
                connection.rollback()
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(statement)
    finally:
        os.umask(umask)
    assert mode(place) == mode(place / "logs") == mode(place / "secrets") == 0o700
    for file in [*(place / "logs").iterdir(), *(place / "secrets").iterdir()]:
        assert mode(file) == 0o600, file
    for entry in (place / "valkey").rglob("*"):
        assert not mode(entry) & 0o077, entry


def test_a_log_that_is_no_file_keeps_its_mode(tmp_path):
    for place in (Path("/dev/null"), tmp_path / "log"):
        place.touch()
    (tmp_path / "log").chmod(0o644)
    before = mode(Path("/dev/null"))
    for place in (Path("/dev/null"), tmp_path / "log"):
        os.close(open_log(place))
    assert (mode(Path("/dev/null")), mode(tmp_path / "log")) == (before, 0o600)


def test_what_was_open_to_others_is_closed_at_the_next_start_and_a_directory_of_ones_own_is_left(tmp_path):
    for name, expected in ((".bridge", 0o700), ("chosen", 0o755)):
        place = tmp_path / name
        (place / "logs").mkdir(parents=True)
        (place / "logs" / "valkey.log").write_text("")
        for opened in (place, place / "logs"):
            opened.chmod(0o755)
        (place / "logs" / "valkey.log").chmod(0o644)
        with embedded.start(place, postgres=False, durable=False):
            assert mode(place) == expected
            assert mode(place / "logs") == 0o700
            assert mode(place / "logs" / "valkey.log") == 0o600


@pytest.fixture
def an_old_cluster(place):
    """Return a data directory of an earlier version: its role is a superuser; as root, PostgreSQL's user owns it."""
    with embedded.start(place, redis=False) as servers:
        migrations.upgrade(servers.database_url)
        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE FUNCTION seven() RETURNS int LANGUAGE sql AS 'SELECT 7'; CREATE SEQUENCE alone")
            cursor.execute("CREATE TYPE mood AS ENUM ('good'); CREATE TABLE kept AS SELECT 7 AS n")
        password = (place / "secrets" / "postgres").read_text().strip()
        assert servers.postgres is not None
        with connect(servers.postgres.superuser_url) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE ROLE other SUPERUSER LOGIN PASSWORD 'x'")
        other = servers.database_url.replace(f"jobbridge:{password}", "other:x")
        with connect(other) as connection, connection.cursor() as cursor:
            cursor.execute("REASSIGN OWNED BY jobbridge TO postgres")
            cursor.execute("DROP ROLE jobbridge")
            cursor.execute("ALTER ROLE postgres RENAME TO jobbridge")
            cursor.execute("ALTER ROLE jobbridge PASSWORD %s", (password,))
        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            cursor.execute("DROP ROLE other")
    (place / "secrets" / "postgres-superuser").unlink()
    if ROOT:
        home = (place / "postgres").resolve()
        before = pwd.getpwnam("nobody")
        account.give_tree(home / "cluster", (before.pw_uid, before.pw_gid))
        os.chown(home, before.pw_uid, before.pw_gid)
        home.chmod(0o700)
    return place


def test_a_cluster_of_an_earlier_version_keeps_its_data_and_loses_its_rights(an_old_cluster):
    for _ in range(2):
        with embedded.start(an_old_cluster, redis=False) as servers:
            with connect(servers.database_url) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
                assert cursor.fetchone() == (False,)
                cursor.execute("SELECT n, seven(), nextval('alone') FROM kept")
                assert cursor.fetchone()[:2] == (7, 7)
                cursor.execute("ALTER TYPE mood ADD VALUE IF NOT EXISTS 'bad'")
                cursor.execute("SELECT rolname FROM pg_roles WHERE rolsuper")
                assert cursor.fetchall() == [("postgres",)]
            migrations.downgrade(servers.database_url, "base")  # needs everything to be its own
            migrations.upgrade(servers.database_url)
            if ROOT:
                home = (an_old_cluster / "postgres").resolve()
                assert home.stat().st_uid == 0
                theirs = {os.lstat(entry).st_uid for entry in (home / "cluster").rglob("*")}
                (uid, _) = account.server_account() or (None, None)
                assert theirs == {uid}


@needs_root
def test_no_file_is_written_where_another_user_could_have_put_a_link(tmp_path):
    nobody = pwd.getpwnam("nobody")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, nobody.pw_uid, nobody.pw_gid)
    target = tmp_path / "root's own"
    target.write_text("as it was")
    (theirs / "password").symlink_to(target)
    with pytest.raises(NotOurs, match="belongs to another user"):
        write_private(theirs / "password", "secret")
    with pytest.raises(NotOurs):
        private_directory(theirs)
    assert target.read_text() == "as it was"
    assert sorted(entry.name for entry in theirs.iterdir()) == ["password"]
    with pytest.raises(OSError, match="symbolic"):
        read_of_another(theirs / "password")
    os.mkfifo(theirs / "pipe")
    assert read_of_another(theirs / "pipe") == ""


@needs_root
def test_a_link_in_a_home_that_an_earlier_version_gave_away_is_not_followed(place, tmp_path):
    nobody = pwd.getpwnam("nobody")
    target = tmp_path / "root's own"
    target.write_text("as it was")
    target.chmod(0o600)
    home = places.ROOT_HOME / f"test-{secrets.token_hex(4)}"
    home.mkdir()
    for name in ("password", "belongs-to", "temporary"):
        (home / name).symlink_to(target)
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    place.mkdir()
    (place / "postgres").symlink_to(home)
    with embedded.start(place, redis=False, durable=False, keep=True) as servers:
        assert connect(servers.database_url)
    assert (target.read_text(), target.stat().st_uid, mode(target)) == ("as it was", 0, 0o600)
    assert home.stat().st_uid == 0
    assert not (home / "password").exists()


@needs_root
def test_only_what_its_former_user_owned_is_given_to_the_new_one(tmp_path):
    nobody = pwd.getpwnam("nobody")
    tree = tmp_path / "cluster"
    (tree / "base").mkdir(parents=True)
    (tree / "base" / "its own").write_text("")
    roots = tmp_path / "root's own"
    roots.write_text("")
    for entry in (tree, tree / "base", tree / "base" / "its own"):
        os.chown(entry, nobody.pw_uid, nobody.pw_gid)
    os.link(roots, tree / "base" / "hard link")
    (tree / "base" / "link").symlink_to(roots)
    account.give_tree(tree, (12345, 12345))
    assert roots.stat().st_uid == 0
    assert {os.lstat(entry).st_uid for entry in (tree, tree / "base", tree / "base" / "its own")} == {12345}


@needs_root
def test_postgresql_runs_as_an_account_of_its_own_or_where_none_can_be_made_as_nobody(monkeypatch):
    assert account.server_account() == pwd.getpwnam(account.NAME)[2:4]
    monkeypatch.setattr(account, "NAME", "jobbridge-none")
    monkeypatch.setattr(account, "_MAKING", (["no-such-useradd"], ["false"]))
    assert account.server_account() == pwd.getpwnam("nobody")[2:4]
    monkeypatch.setattr(account, "_INSTEAD", ("no-such-user", "root"))
    with pytest.raises(embedded.EmbeddedError, match="PostgreSQL cannot run as root"):
        account.server_account()


@pytest.mark.slow
def test_no_text_of_a_document_reaches_the_servers_log(place):
    with embedded.start(place, redis=False, durable=False) as servers:
        engine = create_engine(servers.database_url)
        failing = [
            "SELECT CAST(:word AS text) WHERE 1 / 0 = 1",
            "INSERT INTO narrow VALUES (:word, 1)",
            "INSERT INTO narrow VALUES ('x', 1), (:word || 'x', 1)",
            "SELECT no_such_column, :word",
            "SELECT :word FROM pg_sleep(2)",
            "DO $do$ BEGIN RAISE WARNING 'seen'; PERFORM pg_sleep(0.1), '" + WORD + "'; END $do$",
        ]
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE narrow (t text CHECK (length(t) < 5), n int UNIQUE)"))
        failed = 0
        for statement in failing:
            with engine.connect() as connection, suppress(DBAPIError):
                failed += 1
                connection.execute(text("SET statement_timeout = 1500"))
                connection.execute(text(statement), {"word": WORD} if ":word" in statement else {})
                failed -= 1
        assert failed == len(failing) - 1, "all but the last"
        deadlock(engine)
        assert servers.postgres is not None
        log = servers.postgres.log.read_text()
    assert "ERROR:  " in log
    assert "deadlock detected" in log
    assert WORD not in log, [line for line in log.splitlines() if WORD in line]


def deadlock(engine) -> None:
    """Two transactions with the word in their statements wait for each other."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO narrow VALUES ('a', 10), ('b', 11)"))
    barrier = threading.Barrier(2)

    def lock(first: int, second: int) -> None:
        with engine.connect() as connection:
            update = text("UPDATE narrow SET t = 'c' WHERE n = :n AND CAST(:word AS text) <> ''")
            connection.execute(update, {"n": first, "word": WORD})
            barrier.wait(10)
            with suppress(DBAPIError):
                connection.execute(update, {"n": second, "word": WORD})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lock, (10, 11), (11, 10)))
