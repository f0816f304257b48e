"""A video's speech to text: PyAV takes the sound out, pocketsphinx reads it. For content type `video`."""

from __future__ import annotations

from pathlib import Path

from bridge_worker.handlers import sound, speech
from bridge_worker.job import Job, Result


def handle(job: Job, path: Path) -> Result:
    """Transcribe a video's first audio track. Raises PermanentError when it cannot be read."""
    return speech.transcribed("video", job, sound.look(job, path))
