"""Runs the client commands as a test's tenant, against the shared bridge."""

from functools import partial

import pytest

from bridge import embedded
from tests.support.command import Terminal, starting
from tests.support.installation import Installation
from tests.support.quick_command import quick_jobbridge


@pytest.fixture
def settings(client):
    return {"BRIDGE_URL": client.url, "BRIDGE_KEY": client.key}


@pytest.fixture
def run(tmp_path, settings):
    """Run a command with these settings, to its end."""
    return partial(quick_jobbridge, cwd=tmp_path, **settings)


@pytest.fixture
def terminal(tmp_path, settings):
    """Yield a function that starts a command in a terminal; it is killed with the test."""
    with starting(tmp_path, Terminal, **settings) as start:
        yield start


@pytest.fixture
def begin(tmp_path, settings):
    """Yield a function that starts a command without a terminal; it is killed with the test."""
    with starting(tmp_path, **settings) as start:
        yield start


@pytest.fixture(scope="session")
def doctors_redis(tmp_path_factory):
    """Yield a Redis whose settings a test may change; each installation sets them back."""
    with embedded.start(tmp_path_factory.mktemp("doctor"), postgres=False, durable=False) as running:
        yield running.redis_url


@pytest.fixture
def place(doctors_redis, new_database, tmp_path):
    """Return a healthy installation, except for fsync."""
    return Installation(new_database(), doctors_redis, tmp_path / "data")
