"""How the embedded servers' processes are started, waited for, ended and started again; and where their files lie."""

import os
import platform
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bridge import embedded
from bridge.embedded import account, places, process
from tests.support.waiting import wait_until

ROOT = os.geteuid() == 0


@pytest.fixture
def begin(tmp_path):
    """Yield a function that starts Python code as a server; it is killed with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(code, **given):
        arguments = [sys.executable, "-c", code]
        log = tmp_path / "server.log"
        started.append(
            process.spawn(arguments, death=signal.SIGKILL, log=log, cwd=tmp_path, environment={}, **given)
        )  # fmt: skip
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.wait()


def test_a_log_that_is_large_is_put_aside_once(begin, tmp_path):
    log = tmp_path / "server.log"
    with log.open("wb") as sparse:
        sparse.truncate(10_000_001)
    assert begin("print('begins')").wait(60) == 0
    assert (tmp_path / "server.log.1").stat().st_size == 10_000_001
    assert process.last_line(log) == "begins"
    assert process.last_line(tmp_path / "none.log") == "nothing was logged"


def test_a_server_that_reads_nothing_of_what_it_is_fed_is_no_error(begin):
    assert begin("import os; os.close(0)", feed=b"x" * 1_000_000).wait(60) == 0


def test_a_server_that_does_not_become_ready_is_killed_and_its_last_words_are_told(begin, tmp_path):
    child = begin("import time; print('begins', flush=True); time.sleep(600)")
    log = tmp_path / "server.log"
    wait_until(log.read_text, "its words")
    with pytest.raises(embedded.EmbeddedError, match=r"it was not ready within 0 s: begins \(log: .*server.log\)"):
        process.await_ready(child, lambda: False, what="it", log=log, seconds=0)
    assert child.returncode == -signal.SIGKILL


def test_a_server_that_does_not_obey_is_killed(begin, tmp_path):
    child = begin(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    wait_until((tmp_path / "server.log").read_text, "its words")
    process.stop(child, signal.SIGTERM, seconds=0.05)
    assert child.returncode == -signal.SIGKILL
    process.stop(child, signal.SIGTERM)  # it has ended: nothing is to do


def test_a_server_that_ends_again_waits_and_one_that_cannot_start_is_told(tmp_path):
    with embedded.start(tmp_path / "data", postgres=False, durable=False) as servers:
        server = servers.redis
        assert server is not None
        assert servers.revive() == []
        server.kill()
        assert [line.partition(":")[0] for line in servers.revive()] == [
            "valkey ended and was started again on its data"
        ]
        server.kill()
        with socket.create_server(("127.0.0.1", server.port)):
            assert servers.revive()[0].startswith("valkey ended; it is started again in 1 s: read ")
            assert servers.revive() == []  # not yet due
            (told,) = wait_until(servers.revive, "the next try")
            assert told.startswith("embedded Valkey ended with status 1: ")
        assert servers.stopped() == "valkey"
        servers.stop()


def test_a_package_that_is_missing_says_how_to_do_without():
    with pytest.raises(embedded.EmbeddedError, match=r"^nosuch-server is not installed: .* or set BRIDGE_REDIS_URL$"):
        places.package_directory("nosuch_server", "BRIDGE_REDIS_URL")


def test_a_machine_for_which_there_is_no_server_says_how_to_do_without(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    with pytest.raises(embedded.EmbeddedError, match=r"no server for linux-vax: set BRIDGE_REDIS_URL$"):
        embedded.start(tmp_path / "data", postgres=False)


def test_what_a_killed_postgresql_left_is_not_taken_for_a_running_one(tmp_path):
    (tmp_path / "postgres" / "cluster").mkdir(parents=True)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "postgres").write_text("password\n")
    for pid, found in ((os.getpid(), True), (2**22 + 1, False)):  # beyond the largest process ID
        lines = [pid, tmp_path, 0, 5432, "", "", "", "ready   "]
        (tmp_path / "postgres" / "cluster" / "postmaster.pid").write_text("\n".join(map(str, lines)))
        assert (embedded.running_url(tmp_path) is not None) == found


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return an installed package of binaries, readable by its owner alone; copies go below the test's directory."""
    monkeypatch.setattr(places, "ROOT_HOME", tmp_path / "home")
    made = tmp_path / "site-packages" / "servers"
    (made / "pginstall" / "bin").mkdir(parents=True, mode=0o700)
    (made / "pginstall" / "bin" / "postgres").write_bytes(b"#!/bin/sh\n")
    (made / "pginstall" / "bin" / "postgres").chmod(0o700)
    (made / "pginstall" / "share.conf").write_text("a = 1\n")
    (made / "pginstall" / "share.conf").chmod(0o600)
    (made / "pginstall" / "link").symlink_to("share.conf")
    return made


@pytest.mark.parametrize("libraries", [False, True])
@pytest.mark.skipif(not ROOT, reason="only root copies the binaries")
def test_roots_copy_of_the_binaries_is_made_once_and_everybody_may_read_it(package, libraries):
    if libraries:
        package.with_name("servers.libs").mkdir()
        (package.with_name("servers.libs") / "lib.so").write_bytes(b"lib")
    copy = places.readable_copy(package)
    assert copy.is_relative_to(places.ROOT_HOME)
    modes = {
        place.name: place.stat().st_mode & 0o777
        for place in copy.parent.rglob("*")
        if place.is_file() and not place.is_symlink()
    }
    expected = {"postgres": 0o755, "share.conf": 0o644}
    assert modes == ({**expected, "lib.so": 0o644} if libraries else expected)
    assert (copy / "pginstall" / "link").is_symlink()
    before = copy.stat().st_mtime_ns
    assert places.readable_copy(package) == copy
    assert copy.stat().st_mtime_ns == before
    assert [place.name for place in places.ROOT_HOME.iterdir()] == [copy.parent.name]  # no half-made one is left


@pytest.mark.skipif(not ROOT, reason="only root copies the binaries")
def test_roots_place_that_is_another_users_or_cannot_be_made_is_refused(package, monkeypatch):
    places.ROOT_HOME.mkdir()
    os.chown(places.ROOT_HOME, 54321, -1)
    with pytest.raises(embedded.EmbeddedError, match="belongs to user 54321: remove it, or set BRIDGE_DATABASE_URL"):
        places.readable_copy(package)
    monkeypatch.setattr(places, "ROOT_HOME", Path("/proc/nowhere"))
    with pytest.raises(embedded.EmbeddedError, match=r"/proc/nowhere cannot be made: .*; set BRIDGE_DATABASE_URL"):
        places.readable_copy(package)


def test_whoever_is_not_root_runs_postgresql_in_the_data_directory_itself(tmp_path, monkeypatch):
    data = places.open_data_directory(tmp_path / "data")
    home = places.cluster_home(data, None, temporary=False)
    data.release()
    assert home == tmp_path / "data" / "postgres"
    assert home.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert account.server_account() is None
