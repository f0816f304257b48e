"""Spoken English to text with pocketsphinx, whose model comes in its wheel. For content type `audio`.

It shows the flow of a job without a GPU or a download; its accuracy is poor.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pocketsphinx import Decoder, Endpointer  # type: ignore[import-untyped]

from bridge_worker.handlers import sound
from bridge_worker.handlers.said import text_result
from bridge_worker.job import Job, Result


def handle(job: Job, path: Path) -> Result:
    """Transcribe a sound file, one line per utterance. Raises PermanentError when it cannot be read."""
    return transcribed("speech", job, sound.look(job, path))


def transcribed(handler: str, job: Job, source: sound.Source) -> Result:
    """Return a source's text with what is known of it."""
    lines = transcribe(job, source.pcm(), source.seconds)
    metadata = {"seconds": source.seconds, "utterances": len(lines)}
    if source.width:
        metadata |= {"width": source.width, "height": source.height}
    if not lines and not source.warnings:
        source.warnings.append("No speech was heard.")
    return text_result(handler, "\n".join(lines), metadata, source.warnings)


def transcribe(job: Job, chunks: Iterable[bytes], seconds: float | None) -> list[str]:
    """Return the utterances found in 16 kHz mono PCM; `seconds` is its length, for the progress.

    Raises JobCancelled as soon as the job is no longer wanted.
    """
    decoder = Decoder(samprate=sound.RATE, loglevel="FATAL")
    endpointer = Endpointer(sample_rate=sound.RATE)
    lines: list[str] = []
    heard, pending, speaking = 0, b"", False
    for chunk in chunks:
        pending += chunk
        while len(pending) > endpointer.frame_bytes:  # the last frame, whole or not, ends the stream below
            frame, pending = pending[: endpointer.frame_bytes], pending[endpointer.frame_bytes :]
            speaking = _feed(decoder, endpointer.process(frame), endpointer.in_speech, speaking, lines)
        heard += len(chunk)
        job.raise_if_cancelled()
        if seconds:
            job.progress(heard / sound.BYTES_PER_SECOND / seconds, f"{len(lines)} utterances")
    if pending:  # the endpointer cannot end a stream without a sample
        speaking = _feed(decoder, endpointer.end_stream(pending), False, speaking, lines)
    if speaking:
        _end(decoder, lines)
    return lines


def _feed(decoder: Decoder, speech: bytes | None, in_speech: bool, speaking: bool, lines: list[str]) -> bool:
    """Give speech to the decoder; return whether an utterance is open now."""
    if speech is None:
        return speaking
    if not speaking:
        decoder.start_utt()
    if speech:  # the end of a stream may be empty, which the decoder refuses
        decoder.process_raw(speech)
    if in_speech:
        return True
    _end(decoder, lines)
    return False


def _end(decoder: Decoder, lines: list[str]) -> None:
    decoder.end_utt()
    hypothesis = decoder.hyp()
    if hypothesis is not None and hypothesis.hypstr:
        lines.append(hypothesis.hypstr)
