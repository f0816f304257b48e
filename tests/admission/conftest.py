"""A key in the core's database, and a minute that does not end."""

import pytest

from bridge.admission import keys


@pytest.fixture
def make_key(runtime):
    """Return a function that makes a key that may work."""

    def make():
        with runtime.engine.begin() as connection:
            return keys.create_key(connection, "test", ["work"])

    return make


@pytest.fixture
def made_key(make_key):
    return make_key()


@pytest.fixture
def still(monkeypatch):
    """Keep the minute from ending within the test."""
    monkeypatch.setattr("bridge.admission.limits._minute", lambda: "1")
