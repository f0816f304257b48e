"""A store of uploads for one test."""

import pytest

from tests.support.of_an_attempt import Work


@pytest.fixture
def work(core, tmp_path):
    """Return a maker of claims and their uploads, in a store of this test alone."""
    object.__setattr__(core.runtime.settings, "store", f"file:{tmp_path / 'uploads'}")
    return Work(core)
