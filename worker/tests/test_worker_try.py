"""`bridge-worker try`: one file through a handler, without a bridge; its status and what it says."""

from __future__ import annotations

import json

import pytest

from bridge_worker import cli


@pytest.fixture
def try_one(tmp_path, capsys):
    """Return a function that tries a handler of `conversions` with a file; it returns status, output and errors."""
    (tmp_path / "a file.txt").write_text("spoken")

    def one(handler: str, *arguments: str, file: str = "a file.txt") -> tuple[int, str, str]:
        given = [
            "try",
            str(tmp_path / file),
            "--handler",
            f"audio=conversions:{handler}",
            "--option",
            f"dir={tmp_path}",
        ]
        status = cli.main([*given, *arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return one


def test_the_text_is_printed_and_its_metadata_told(try_one):
    status, text, errors = try_one("text")
    assert (status, text) == (0, "text\n")
    assert 'metadata: {"bytes": 6}' in errors


def test_the_handler_is_given_what_a_job_says(try_one):
    status, _, errors = try_one("show", "--task-options", '{"language": "de"}', "--seconds", "60")
    assert status == 0
    shown = json.loads(errors.partition("metadata: ")[2])
    assert (shown["task_options"], shown["source_name"], shown["source_size"]) == ({"language": "de"}, "a file.txt", 6)


def test_a_failure_is_status_1_with_its_reason(try_one):
    status, text, errors = try_one("raises", "--task-options", '{"error": "PermanentError"}')
    assert (status, text) == (1, "")
    assert "no such format" in errors


def test_a_handler_that_no_job_can_be_given_is_status_2(try_one):
    for handler, why in (
        ("takes_one", "cannot be called with (job, path)"),
        ("says_str", "is annotated to return str"),
    ):
        status, text, errors = try_one(handler)
        assert (status, text) == (2, "")
        assert why in errors


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--option", "no_value"], "--option 'no_value': expected NAME=VALUE"),
        (["--cancel-seconds", "-1"], "--cancel-seconds: not below 0"),
        (["--max-processes", "0"], "--max-processes: at least 1"),
        (["--task-options", "{"], "--task-options: "),
        (["--task-options", "[]"], "--task-options: "),
    ],
)
def test_what_cannot_be_meant_is_status_2_and_one_line(try_one, arguments, reason):
    status, text, errors = try_one("text", *arguments)
    assert (status, text) == (2, "")
    assert errors.startswith(f"bridge-worker try: {reason}")
    assert errors.count("\n") == 1


def test_a_file_that_is_not_there_is_status_2(try_one):
    status, _, errors = try_one("text", file="none.txt")
    assert status == 2
    assert "none.txt: no such file" in errors
