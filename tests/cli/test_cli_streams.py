"""Where the text of a result may be written to: what is a file is replaced, what is none is written into."""

import os
from pathlib import Path

import pytest

from bridge.cli.remote import files


@pytest.mark.parametrize(
    "place", ["-", "/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "pipe", "link-to-pipe"]
)
def test_what_is_no_file_is_written_into(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    os.symlink("pipe", "link-to-pipe")
    assert files._is_stream(Path(place))


@pytest.mark.parametrize("place", ["new", "old", "link", "directory", "none/new", "/dev/shm/new", "loop", "a\0b"])
def test_what_is_one_is_replaced_or_refused(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").write_text("old")
    (tmp_path / "directory").mkdir()
    os.symlink("old", "link")
    os.symlink("loop", "loop")
    assert not files._is_stream(Path(place))
