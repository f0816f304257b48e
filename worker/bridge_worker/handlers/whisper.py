"""Speech to text with faster-whisper, where it is installed (extra `whisper`). For content types `audio` and `video`.

    bridge-worker --handler bridge_worker.handlers.whisper:Whisper --option model=/models/large-v3 --option device=cuda

`model` is the directory of a converted model on this machine: nothing is downloaded.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import faster_whisper  # type: ignore[import-not-found,unused-ignore]
import numpy

from bridge_worker.handlers import sound
from bridge_worker.handlers.said import text_result
from bridge_worker.job import Job, Result

LANGUAGE = re.compile(r"[a-z]{2,3}")


class Whisper:
    """One model, loaded once a process."""

    def setup(self, options: dict[str, str]) -> None:
        """Load it. Options: `model` (a directory), `device` (auto, cpu, cuda), `compute_type`, `beam_size`."""
        model = options.get("model", "")
        if not model or not Path(model).is_dir():
            raise ValueError(f"--option model={model}: expected the directory of a model for faster-whisper")
        self._beam = int(options.get("beam_size", "5"))
        self._model = faster_whisper.WhisperModel(
            model, device=options.get("device", "auto"), compute_type=options.get("compute_type", "default"),
            local_files_only=True,
        )  # fmt: skip

    def handle(self, job: Job, path: Path) -> Result:
        """Transcribe; `task_options["language"]` such as "de" saves guessing. Raises PermanentError, JobCancelled."""
        source = sound.look(job, path)
        samples = numpy.frombuffer(b"".join(source.pcm()), numpy.int16).astype(numpy.float32) / 32768
        language = job.task_options.get("language")
        known = language if isinstance(language, str) and LANGUAGE.fullmatch(language) else None
        lines: list[str] = []
        metadata: dict[str, Any] = {"seconds": source.seconds}
        if len(samples):
            segments, told = self._model.transcribe(samples, language=known, beam_size=self._beam, vad_filter=True)
            for segment in segments:
                job.raise_if_cancelled()
                lines.append(segment.text.strip())
                job.progress(segment.end * sound.RATE / len(samples), f"{segment.end:.0f} s")
            metadata |= {"language": told.language, "segments": len(lines)}
        if not lines and not source.warnings:
            source.warnings.append("No speech was heard.")
        return text_result("whisper", "\n".join(lines), metadata, source.warnings)
