"""A core whose uploads lie in a directory of the test's own."""

import pytest

from tests.support.core import Core


@pytest.fixture
def core(make_runtime, tmp_path):
    return Core(make_runtime(data_dir=str(tmp_path / "data")))
