"""The handler of faster-whisper in a handler's process, with a stand-in for the library: no model is to be had here."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("av")
pytest.importorskip("numpy")

from converting_one import convert, job_of, ready
from odd_material import WAV, wav

from bridge_worker.process import NotStarted, Setup


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "stand_ins"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.bin").touch()
    return tmp_path / "model"


@pytest.fixture
def start(model, tmp_path):
    with ExitStack() as started:

        def process(**options):
            setup = Setup({"audio": "bridge_worker.handlers.whisper:Whisper"}, {"model": str(model), **options},
                          sandbox=True, cancel_seconds=5.0)  # fmt: skip
            return started.enter_context(ready(setup, tmp_path / "process"))

        yield process


def test_sound_becomes_text_and_the_model_is_loaded_once(start, model):
    process = start(device="cpu", compute_type="int8", beam_size="2")
    outcome, result = convert(process, WAV, job_of(language="en"))
    assert outcome.kind == "result", outcome
    lines = result["content"].splitlines()
    assert lines[0].startswith("heard ")
    assert lines[1] == "with beam 2 on cpu int8, 1 loaded"
    metadata = result["metadata"]
    assert (metadata["handler"], metadata["language"], metadata["segments"]) == ("whisper", "en", 2)
    assert float(lines[0].split()[1]) == pytest.approx(metadata["seconds"], abs=0.2)
    again = convert(process, WAV, job_of())[1]
    assert again["metadata"]["language"] == "guessed"
    assert "1 loaded" in again["content"]


def test_a_language_that_is_none_is_guessed(start):
    process = start()
    for language in ("EN", "x" * 50, 7, ["en"], "../x"):
        assert convert(process, WAV, job_of(language=language))[1]["metadata"]["language"] == "guessed", language


def test_silence_is_a_warning_and_no_sound_is_refused(start):
    process = start()
    _, result = convert(process, wav(b"\0\0" * 16000), job_of())
    assert (result["content"], result["metadata"]["warnings"]) == ("", ["No speech was heard."])
    _, result = convert(process, wav(b""), job_of())
    assert result["metadata"]["warnings"] == ["The sound track holds no samples."]
    outcome, _ = convert(process, b"no sound at all", job_of())
    assert outcome.kind == "file"
    assert "talk.wav" in outcome.text


def test_a_cancel_is_heard_between_two_segments(start, model):
    (model / "slow").touch()
    held = job_of()
    held.progress = lambda report: held.abandon("cancelled") if report.get("progress") == 1 else None
    process = start()
    assert convert(process, WAV, held)[0].kind == "cancelled"
    assert process.alive()  # it was not killed: the model stays loaded


@pytest.mark.parametrize("name", ["", "large-v3", "/nowhere"])
def test_a_model_that_is_not_here_is_told_and_not_fetched(start, name):
    with pytest.raises(NotStarted, match="expected the directory of a model"):
        start(model=name)
