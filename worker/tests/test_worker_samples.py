"""The reference handlers over the sample files; skipped where their libraries are not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge_worker import JobCancelled, PermanentError
from bridge_worker.job import Job

SAMPLES = Path(__file__).resolve().parents[2] / "examples" / "samples"


def job():
    return Job({"job_id": "x", "content_type": "x"})


@pytest.mark.parametrize(
    ("name", "text"),
    [("report.pdf", "one number: 42"), ("minutes.docx", "| audio | 1 |"), ("notes.html", "* first point")],
)
def test_documents(name, text):
    documents = pytest.importorskip("bridge_worker.handlers.documents")
    assert text in documents.handle(job(), SAMPLES / name).content


def test_no_document(tmp_path):
    documents = pytest.importorskip("bridge_worker.handlers.documents")
    (tmp_path / "x.pdf").write_bytes(b"\x00\x01\x02" * 100)
    with pytest.raises(PermanentError):
        documents.handle(job(), tmp_path / "x.pdf")


@pytest.mark.parametrize(("handler", "name", "word"), [("speech", "speech.wav", "two"), ("video", "clip.mp4", "world")])
def test_speech(handler, name, word):
    pytest.importorskip("pocketsphinx")
    module = pytest.importorskip(f"bridge_worker.handlers.{handler}")
    heard = job()
    result = module.handle(heard, SAMPLES / name)
    assert word in result.content.split()
    assert result.metadata["seconds"] == pytest.approx({"speech.wav": 6.4, "clip.mp4": 3.7}[name], abs=0.3)
    assert heard.progress_report()["progress"] > 0.9


def test_no_media(tmp_path):
    speech = pytest.importorskip("bridge_worker.handlers.speech")
    (tmp_path / "x.wav").write_bytes(b"no sound at all")
    with pytest.raises(PermanentError):
        speech.handle(job(), tmp_path / "x.wav")


def test_cancelled_transcription_ends():
    speech = pytest.importorskip("bridge_worker.handlers.speech")
    cancelled = job()
    cancelled.cancel("cancelled")
    with pytest.raises(JobCancelled):
        speech.handle(cancelled, SAMPLES / "speech.wav")
