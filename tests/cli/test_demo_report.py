"""What the demo says of each job, and of what it has proved: from documents, without running it."""

import io
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from rich.console import Console

from bridge.cli.local import demo
from bridge.cli.local.checkout import CheckoutError
from bridge.cli.local.demo_report import Receipt, Sent, faults, read_receipts, show, verdict
from tests.support.scripted_answers import answer, scripted

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SENT = Sent("id-1", "document", "report.pdf")


def receipt(status="completed", content="text", deliveries=1):
    return Receipt(1, status, content, NOW, deliveries)


WRONG = [
    ("failed", "No page.", [receipt("failed", "No page.")], ["report.pdf is failed, not completed: No page."]),
    ("pending", None, [], ["report.pdf is pending, not completed", "report.pdf was continued 0 times, not once"]),
    ("completed", None, [receipt(), receipt()], ["report.pdf was continued 2 times, not once"]),
    ("completed", None, [receipt("failed")], ["report.pdf is completed, but the pipeline was told failed"]),
    ("completed", None, [receipt(content=" \n")], ["report.pdf came back without text"]),
    ("completed", None, [receipt(deliveries=2)], []),
]


@pytest.mark.parametrize(("status", "why", "got", "said"), WRONG)
def test_what_proves_nothing_is_said_job_by_job(status, why, got, said):
    found = faults([SENT], {"id-1": {"status": status, "error_message": why}}, {"id-1": got} if got else {})
    assert found == said
    assert ("Not proven" in verdict(found, {"id-1": got}, 2, 3.0)) == bool(said)


def test_a_job_that_nobody_sent_is_a_fault():
    assert faults([], {}, {"id-2": [receipt()]}) == ["the pipeline received 1 jobs that nobody sent"]


def test_a_job_that_failed_is_shown_with_its_attempts_and_its_error_and_nothing_in_it_is_markup():
    unacknowledged = {"attempt": 1, "worker_id": "w", "claimed_at": str(NOW), "ended_at": str(NOW), "how": "timed out"}
    running = {"attempt": 2, "worker_id": "w", "claimed_at": str(NOW), "acknowledged_at": str(NOW), "ended_at": None}
    job = {"created_at": str(NOW), "attempts": [unacknowledged, running], "error_message": "[red]No page"}
    out = io.StringIO()
    show(Console(file=out, width=100), SENT, job, [])
    said = out.getvalue()
    for words in ("claimed by w (attempt 1)", "timed out (attempt 1)", "download began", "[red]No page"):
        assert words in said
    assert said.count("acknowledged") == 1


def test_a_pipeline_that_has_not_begun_has_no_receipts(tmp_path):
    place: Path = tmp_path / "receipts.sqlite3"
    assert read_receipts(place) == {}
    sqlite3.connect(place).close()
    assert read_receipts(place) == {}


def test_a_demo_without_sample_files_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SAMPLES", tmp_path)
    with pytest.raises(CheckoutError, match="no sample files in "):
        demo.run(tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_a_job_that_the_api_does_not_show_ends_the_demo_with_what_it_said():
    with scripted(answer("500 Internal Server Error", b"broken")) as api, requests.Session() as session:
        stack = SimpleNamespace(url=api.url)
        with pytest.raises(demo.DemoFailed, match=r"/id-1 answered 500: broken$"):
            demo._job(stack, session, "id-1")  # type: ignore[arg-type]
