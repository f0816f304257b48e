"""Stands in for faster-whisper, whose models are not to be had here: the calls of the handler, and what they return.

The signatures are those of faster-whisper 1.2.1; what it hears is the length of the sound.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy

LOADED: list[str] = []


class WhisperModel:
    def __init__(
        self,
        model_size_or_path: str,
        device: str = "auto",
        compute_type: str = "default",
        local_files_only: bool = False,
    ) -> None:
        assert Path(model_size_or_path, "model.bin").is_file()
        assert local_files_only
        self._on = f"{device} {compute_type}"
        LOADED.append(self._on)
        self._place = Path(model_size_or_path)

    def transcribe(
        self, audio: Any, language: str | None = None, beam_size: int = 5, vad_filter: bool = False
    ) -> tuple[Iterator[SimpleNamespace], SimpleNamespace]:
        assert audio.dtype == numpy.float32
        assert -1 <= audio.min() <= audio.max() <= 1
        assert vad_filter
        seconds = len(audio) / 16000

        def segments() -> Iterator[SimpleNamespace]:
            if audio.any():
                yield SimpleNamespace(text=f" heard {seconds:.1f} s", end=seconds / 2)
                yield SimpleNamespace(text=f" with beam {beam_size} on {self._on}, {len(LOADED)} loaded ", end=seconds)
            while (self._place / "slow").exists():
                yield SimpleNamespace(text="and on", end=seconds)

        return segments(), SimpleNamespace(language=language or "guessed")
