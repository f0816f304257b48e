"""Takes the sound out of any file that FFmpeg reads, as 16 kHz mono 16-bit PCM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av

from bridge_worker.job import PermanentError

RATE = 16000  # samples per second
BYTES_PER_SECOND = 2 * RATE


@dataclass(frozen=True)
class Facts:
    """What a media file says of itself; seconds and pixels, None where unknown."""

    seconds: float | None
    width: int | None
    height: int | None


def facts(path: Path) -> Facts:
    """Read a media file's header. Raises PermanentError when it is none or holds no sound."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise PermanentError("the file holds no sound")
            seconds = container.duration / av.time_base if container.duration else None
            video = container.streams.video[0] if container.streams.video else None
            return Facts(seconds, video.width if video else None, video.height if video else None)
    except av.FFmpegError as error:
        raise PermanentError(f"not a media file that can be read: {error.strerror}") from error


def pcm(path: Path) -> Iterator[bytes]:
    """Yield the first sound track as 16-bit mono samples. Raises PermanentError on broken data."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(audio=0):
                for part in resampler.resample(frame):
                    yield _samples(part)
            for part in resampler.resample(None):
                yield _samples(part)
    except av.FFmpegError as error:
        raise PermanentError(f"the sound cannot be decoded: {error.strerror}") from error


def _samples(frame: av.AudioFrame) -> bytes:
    """Return a mono s16 frame's bytes without the padding behind them."""
    return bytes(frame.planes[0])[: 2 * frame.samples]
