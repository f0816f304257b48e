"""The reference handlers over the sample files; skipped where their libraries are not installed."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import pytest
from odd_material import pdf, picture
from PIL import Image

from bridge_worker import JobCancelled, PermanentError
from bridge_worker.job import Job

SAMPLES = Path(__file__).resolve().parents[2] / "examples" / "samples"


def job():
    return Job({"job_id": "x", "content_type": "x"})


@pytest.mark.parametrize(("handler", "name", "word"), [("speech", "speech.wav", "two"), ("video", "clip.mp4", "world")])
def test_speech(tmp_path, handler, name, word):
    pytest.importorskip("pocketsphinx")
    module = pytest.importorskip(f"bridge_worker.handlers.{handler}")
    heard = job()
    result = module.handle(heard, shutil.copy(SAMPLES / name, tmp_path / "any.avi"))
    assert word in result.content.split()
    assert result.metadata["seconds"] == pytest.approx({"speech.wav": 6.4, "clip.mp4": 3.7}[name], abs=0.3)
    assert heard.progress_report()["progress"] > 0.9


def test_cancelled_transcription_ends():
    speech = pytest.importorskip("bridge_worker.handlers.speech")
    cancelled = job()
    cancelled.cancel("cancelled")
    with pytest.raises(JobCancelled):
        speech.handle(cancelled, SAMPLES / "speech.wav")


def test_a_worker_without_ocr_says_so(tmp_path, monkeypatch):
    documents = pytest.importorskip("bridge_worker.handlers.documents")
    monkeypatch.setenv("PATH", "/nowhere")
    (tmp_path / "sign.png").write_bytes(picture("PNG", "Bridge closed"))
    (tmp_path / "scan.pdf").write_bytes(pdf(1))
    with pytest.raises(PermanentError, match="no OCR; install tesseract"):
        documents.handle(job(), tmp_path / "sign.png")
    assert "no OCR (tesseract)" in documents.handle(job(), tmp_path / "scan.pdf").metadata["warnings"][0]


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="needs tesseract")
def test_a_language_of_ocr_that_is_none_is_the_workers_fault(tmp_path):
    ocr = pytest.importorskip("bridge_worker.handlers.ocr")
    (tmp_path / "sign.png").write_bytes(picture("PNG", "x"))
    for language, error in (("e", ValueError), ("eng+", ValueError), ("xyz_none", RuntimeError)):
        with pytest.raises(error, match=re.escape(language)):
            ocr.read(Job({"job_id": "x", "content_type": "x"}, {"ocr_language": language}), tmp_path / "sign.png")


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="needs tesseract")
def test_of_a_long_scan_the_first_pages_are_read(tmp_path, monkeypatch):
    module = pytest.importorskip("bridge_worker.handlers.pdf")
    image = Image.open(io.BytesIO(picture("PNG", "Scanned page")))
    image.save(tmp_path / "scan.pdf", "PDF", save_all=True, append_images=[image])
    monkeypatch.setattr(module, "OCR_PAGES", 1)
    text, _, warnings = module.convert(job(), tmp_path / "scan.pdf", "scan.pdf", lambda: "")
    assert text.count("Scanned page") == 1
    assert "Only the first 1 of 2 pages were read." in warnings


def test_a_pdf_whose_layout_cannot_be_told_is_read_page_by_page():
    module = pytest.importorskip("bridge_worker.handlers.pdf")

    def refused():
        raise PermanentError("too odd")

    assert "42" in module.convert(job(), SAMPLES / "report.pdf", "report.pdf", refused)[0]


def test_sound_of_unknown_length_is_heard_without_progress():
    speech = pytest.importorskip("bridge_worker.handlers.speech")
    heard = job()
    assert speech.transcribe(heard, [bytes(3200)], None) == []
    assert heard.progress_report() == {}
