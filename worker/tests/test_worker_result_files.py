"""The files of a result: what a handler may return as one, and that nothing that its process told of is trusted."""

from __future__ import annotations

import os

import pytest

from bridge_worker import Result
from bridge_worker.result_files import INLINE_BYTES, MOST_ARTIFACTS, BadFiles, leave, open_left, take


@pytest.fixture
def directories(tmp_path):
    """Return the job's directory, and the worker's."""
    for name in ("job", "worker"):
        (tmp_path / name).mkdir()
    return tmp_path / "job", tmp_path / "worker"


def test_what_is_left_is_what_is_taken(directories, tmp_path):
    job, worker = directories
    (tmp_path / "made.txt").write_text("long text")
    (tmp_path / "kept.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "kept.json")
    left = leave(Result(path=tmp_path / "made.txt", artifacts={"a.json": tmp_path / "link", "b": b"bytes"}), job)
    files = take(left, job, worker)
    assert left == {"content": None}
    assert files.text.read_text() == "long text"
    assert [(name, kind, file.read_bytes()) for name, kind, file in files.artifacts] == [
        ("a.json", "application/json", b"{}"),
        ("b", "application/octet-stream", b"bytes"),
    ]
    assert (tmp_path / "kept.json").exists(), "of a link, what it names stays"
    assert list(job.iterdir()) == []


def test_a_text_goes_as_a_file_where_it_is_too_long_for_an_answer(directories):
    job, worker = directories
    short = leave(Result("x" * INLINE_BYTES), job)
    assert (len(short["content"]), short["text"]) == (INLINE_BYTES, None)
    files = take(leave(Result("ä" * (INLINE_BYTES // 2) + "x"), job), job, worker)
    assert files.text.stat().st_size == INLINE_BYTES + 1


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (lambda place: Result("text", path=place / "none"), "content and path"),
        (lambda place: Result(path=place / "none"), "and there is none"),
        (lambda place: Result(path=place), "and there is none"),
        (lambda place: Result("text", artifacts={"a": 7}), "returned int as a file"),
        (lambda place: Result("text", artifacts={"a": "/nowhere"}), "and there is none"),
        (lambda place: Result("text", artifacts=[b"a"]), "must be a mapping"),
        (lambda place: Result("text", artifacts={str(n): b"" for n in range(MOST_ARTIFACTS + 1)}), "must be a mapping"),
        *((lambda place, n=n: Result("text", artifacts={n: b""}), "no name of a file")
          for n in ("", ".hidden", "a/b", "a\\b", "a\nb", "x" * 201, "ä" * 128, 7)),
    ],
)  # fmt: skip
def test_what_is_no_file_is_refused_with_its_reason(directories, result, reason):
    job, _ = directories
    with pytest.raises(BadFiles, match=reason):
        leave(result(job), job)


@pytest.mark.parametrize(
    "told",
    [
        {"content": "text", "artifacts": ["../a"]},
        {"content": "text", "artifacts": "a"},
        {"content": "text", "artifacts": ["a"] * (MOST_ARTIFACTS + 1)},
        {"content": None},
        {"content": None, "text": "result-text"},
        {"text": "result-text"},
        {"content": "text", "artifacts": ["link"]},
        {"content": "text", "artifacts": ["pipe"]},
    ],
    ids=str,
)
def test_what_a_process_told_and_did_not_leave_is_refused(directories, told):
    job, worker = directories
    if told.get("artifacts") == ["link"]:
        (job / "artifact-0").symlink_to("/etc/passwd")
    elif told.get("artifacts") == ["pipe"]:
        os.mkfifo(job / "artifact-0")
    with pytest.raises(BadFiles, match="the handler's process"):
        take(told, job, worker)


def test_a_file_that_cannot_be_opened_is_not_one_that_was_not_left(tmp_path):
    with pytest.raises(OSError, match="too long"):
        open_left(tmp_path / ("x" * 300))
