"""The servers and processes of `up` and `demo`, called directly: what was found ended or does not answer."""

import io
import signal
import sys

import pytest
from rich.console import Console

from bridge.cli.local import up
from bridge.cli.local.stack import Stack, kept_worker_key
from bridge.cli.local.supervisor import ChildEnded, ending_signals
from bridge.embedded.ports import free_port

NOBODY = "postgresql+psycopg2://u:p@127.0.0.1:1/x"


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Yield a function that starts a stack's servers in a directory without settings; it is stopped with the test."""
    monkeypatch.chdir(tmp_path)
    started = []

    def start(**changes):
        given = {"BRIDGE_DATA_DIR": str(tmp_path / "data"), "BRIDGE_PORT": str(free_port()), **changes}
        started.append(Stack(given, throw_away=True, fsync=False))
        return started[-1]

    yield start
    for stack in started:
        stack.stop()


def ends_at_once(stack) -> None:
    child = stack.family.start("short", [sys.executable, "-c", "raise SystemExit(3)"], {})
    child.process.wait()


@pytest.mark.parametrize("well", [True, False])
def test_a_process_that_ends_at_its_start_counts_against_it_only_while_the_servers_are_well(begin, servers, well):
    stack = begin(BRIDGE_DATABASE_URL=servers.database_url if well else NOBODY)
    assert stack.servers is not None
    assert stack.servers.postgres is None  # that of the setting is used; Redis is embedded
    ends_at_once(stack)
    with pytest.raises(ChildEnded, match=r"short ended with status 3: read .*short\.log"):
        stack.check()
    (told,) = stack.keep_up()
    assert told.startswith("short ended with status 3 and was started again: read ")
    assert stack.family.children[0].hopeless == (1 if well else 0)


def test_a_server_that_has_ended_is_named_with_its_log(begin):
    stack = begin(BRIDGE_DATABASE_URL=NOBODY)
    stack.check()
    stack.servers.redis.kill()
    with pytest.raises(ChildEnded, match=r"valkey ended: read .*valkey\.log"):
        stack.check()


def test_an_api_that_does_not_answer_in_time_is_said_and_a_signal_ends_the_wait_quietly(begin, servers):
    stack = begin(BRIDGE_DATABASE_URL=servers.database_url, BRIDGE_REDIS_URL=servers.redis_url)
    assert stack.servers is None
    stack.family.start("api", [sys.executable, "-c", "import time; time.sleep(600)"], {})
    with ending_signals() as signals:
        with pytest.raises(ChildEnded, match=r"api did not answer within 0 s: read .*api\.log"):
            stack.await_api(signals, seconds=0.2)
        signal.raise_signal(signal.SIGTERM)
        assert stack.await_api(signals) is False


def test_with_keys_off_nobody_gets_one(begin, tmp_path):
    stack = begin(BRIDGE_DATABASE_URL=NOBODY, BRIDGE_AUTH="off")
    assert stack.make_key("admin", ["admin"]) is None
    assert kept_worker_key(stack, tmp_path / "kept") is None
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("on", [True, False])
def test_what_is_off_is_not_announced(begin, on):
    stack = begin(BRIDGE_DATABASE_URL=NOBODY, BRIDGE_AUTH="on" if on else "off", BRIDGE_UI="on" if on else "off")
    out = io.StringIO()
    up._announce(stack, Console(file=out, width=200), None, None)
    assert ("the dashboard" in out.getvalue()) == on
    assert ("Keys are off (BRIDGE_AUTH=off)" in out.getvalue()) == (not on)
