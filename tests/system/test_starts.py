"""A process starts whatever is away: PostgreSQL, Redis, the broker. What needs them is done when they answer."""

import signal
from contextlib import ExitStack

import psutil
import pytest
from sqlalchemy import make_url

from bridge.embedded.ports import free_port
from tests.support.client import Client, ok, refused, status_of
from tests.support.command import starting
from tests.support.cut_off import no_connections
from tests.support.waiting import wait_until

BOOTSTRAP = "a-key-for-containers-of-32-characters"
NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def begin(tmp_path):
    """Yield a function that starts a command whose servers do not answer; it is killed with the test."""
    given = {"BRIDGE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "BRIDGE_REDIS_URL": NOWHERE}
    with starting(tmp_path, **given) as start:
        yield start


@pytest.fixture
def closed_database(new_database):
    """Yield the URL of a database that lets nobody in, and what opens it."""
    with ExitStack() as closed:
        closed.enter_context(no_connections(make_url(url := new_database())))
        yield url, closed.close


def test_api_processes_start_and_are_replaced_without_servers_and_make_the_bootstrap_key_later(
    begin, closed_database, tmp_path
):
    database, open_it = closed_database
    port = free_port()
    given = {"BRIDGE_PORT": str(port), "BRIDGE_API_PROCESSES": "2", "BRIDGE_BOOTSTRAP_KEY": BOOTSTRAP}
    api = begin("api", BRIDGE_DATABASE_URL=database, BRIDGE_DATA_DIR=str(tmp_path / "data"), **given)
    url = f"http://127.0.0.1:{port}"
    health = f"{url}/healthz"
    client = Client(url, BOOTSTRAP, tmp_path / "data" / "files")
    client.files.mkdir(parents=True)
    wait_until(lambda: status_of(health) == 200, "the API to start")
    refused(client.get("/readyz"), 503)
    refused(client.get(""), 503)
    master = psutil.Process(api.process.pid)
    for _ in range(2):
        before = wait_until(lambda: len(there := master.children()) == 2 and there, "both processes")
        before[0].kill()
        wait_until(lambda before=before: before[0] not in master.children(), "its end")
        wait_until(lambda: len(master.children()) == 2 and status_of(health) == 200, "another one in its place")
    assert api.process.poll() is None
    open_it()
    wait_until(lambda: client.get("/readyz").status_code == 200, "PostgreSQL to be there")
    for _ in range(10):
        ok(client.get("", headers={"Connection": "close"}))
    assert client.job(client.create())["status"] == "pending"
    assert "Traceback" not in api.text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["celery"], "rying again in 4"),
        (["beat"], "look at the sweeps' queue"),  # once for each outage
        (["flower", "--port", str(free_port())], "rying again in 4"),
    ],
    ids=["celery", "beat", "flower"],
)
@pytest.mark.slow
def test_a_process_of_celery_waits_for_its_broker(begin, arguments, line, tmp_path):
    process = begin(*arguments, BRIDGE_DATA_DIR=str(tmp_path))
    process.says(line)
    assert process.process.poll() is None
    process.family()
    assert process.ends(signal.SIGTERM) == 0
    assert process.left() == []
