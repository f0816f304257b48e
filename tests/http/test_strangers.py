"""Connections without a key: they stop nobody, also where descriptors are few."""

import re
import resource
import shutil
import socket
import subprocess
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest
import requests

from tests.support.activation import Activated
from tests.support.waiting import wait_until

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
SOFT, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)
STRANGERS = 2000


@pytest.fixture
def api(servers, new_database, tmp_path):
    """Yield the API, of one process, not started."""
    redis = servers.redis_url.rpartition("/")[0] + "/903"
    given = {"BRIDGE_DATABASE_URL": new_database(), "BRIDGE_REDIS_URL": redis, "BRIDGE_API_PROCESSES": "1"}
    activated = Activated(tmp_path, **given, BRIDGE_REDIS_PREFIX="strangers")
    yield activated
    activated.close()


@pytest.fixture
def many_files():
    """Raise the limit of open files to what the test needs."""
    if HARD < 2 * STRANGERS:
        pytest.skip(f"the hard limit of open files is {HARD}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (HARD, HARD))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, HARD))


def answers(url: str) -> bool:
    """Whether a newcomer is answered within 5 s."""
    try:
        return requests.get(f"{url}/healthz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


def test_the_soft_limit_of_open_files_is_raised_at_the_start(api, many_files):
    api.start(files=f"1024:{HARD}")
    wait_until(lambda: answers(api.url), "the API")
    (process,) = psutil.Process(api.process.pid).children()
    assert process.rlimit(resource.RLIMIT_NOFILE)[0] > 2 * STRANGERS


def test_connections_without_a_key_stop_nobody_where_descriptors_are_few(api, many_files):
    api.start(files="1024:1024")
    wait_until(lambda: answers(api.url), "the API")
    half, whole = b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: ", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    for sent in (half, b"", whole):
        with ExitStack() as held:
            for number in range(STRANGERS):
                stranger = held.enter_context(socket.create_connection(("127.0.0.1", api.port), 30))
                stranger.sendall(sent)
                if number % 500 == 499:
                    wait_until(lambda: answers(api.url), "a newcomer to be answered")
            for _ in range(20):
                assert answers(api.url), sent
    log = api.log.read_text()
    assert "the hard limit of open files is 1024" in log
    assert "Traceback" not in log


def test_without_keys_a_socket_that_was_handed_over_must_be_local(servers, new_database, tmp_path):
    given = {"BRIDGE_DATABASE_URL": new_database(), "BRIDGE_REDIS_URL": servers.redis_url, "BRIDGE_AUTH": "off"}
    api = Activated(tmp_path, **given)
    api.socket.close()
    api.socket = socket.create_server(("0.0.0.0", 0))
    with closing(api):
        api.start()
        assert api.process is not None
        assert api.process.wait(60) != 0
        assert "listens on 0.0.0.0" in api.log.read_text()


@pytest.mark.slow
def test_a_process_that_cannot_start_again_leaves_the_others(api):
    """Here the directory of its counters is gone; whatever it is, the API does not end for it."""
    api.settings["BRIDGE_API_PROCESSES"] = "2"
    api.start()
    wait_until(lambda: answers(api.url), "the API")
    master = psutil.Process(api.process.pid)
    counters = api.files.parent / "metrics"
    wait_until(lambda: answers(api.url) and len([*counters.glob("counter_*.db")]) == 2, "both processes to serve")
    one, _ = master.children()
    counters.rename(counters.with_name("elsewhere"))
    one.kill()
    wait_until(lambda: "process_start_failed" in api.log.read_text(), "its replacement to fail")
    assert answers(api.url)
    counters.with_name("elsewhere").rename(counters)
    wait_until(lambda: api.log.read_text().count("Booting worker") > 3 and len(master.children()) == 2, "another one")
    assert api.process.poll() is None
    assert answers(api.url)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing")
def test_systemd_takes_the_units(tmp_path):
    for unit in UNITS.iterdir():
        there = re.sub(r"/(srv/bridge|opt/worker)\S*", "/bin/true", unit.read_text())
        there = there.replace("User=bridge", "User=root")
        (tmp_path / unit.name).write_text(there.replace("WorkingDirectory=/bin/true", "WorkingDirectory=/"))
    units = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert not [line for line in done.stderr.splitlines() if str(tmp_path) in line or "jobbridge" in line], done.stderr
    assert done.returncode == 0, done.stderr
