"""Takes the sound out of any file that FFmpeg reads, as 16 kHz mono 16-bit PCM, and follows no reference in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av

from bridge_worker.handlers.said import name_of, refuse_empty
from bridge_worker.job import Job, PermanentError

RATE = 16000  # samples per second
BYTES_PER_SECOND = 2 * RATE
#: What only names other files or addresses, or reads a device: as a source it is never what somebody meant.
REFERENCES = {"hls", "applehttp", "concat", "dash", "sdp", "rtsp", "rtp", "imf", "webm_dash_manifest", "sap",
              "mpegtsraw", "image2", "lavfi", "vobsub", "tty", "redir", "xbin"}  # fmt: skip


@dataclass
class Source:
    """A media file that was looked at; seconds and pixels, None where unknown. `warnings` grow as it is read."""

    path: Path
    name: str
    seconds: float | None = None
    width: int | None = None
    height: int | None = None
    warnings: list[str] = field(default_factory=list)

    def pcm(self) -> Iterator[bytes]:
        """Yield the first sound track as 16-bit mono samples. Raises PermanentError where there is none to be had."""
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        heard = 0
        try:
            with self.path.open("rb") as file, _open(file) as container:
                for frame in container.decode(audio=0):
                    if frame.samples == 0:
                        continue
                    for part in resampler.resample(frame):
                        heard += part.samples
                        yield _samples(part)
                for part in resampler.resample(None) if heard else ():
                    if part is not None and part.samples:
                        heard += part.samples
                        yield _samples(part)
        except (av.FFmpegError, ValueError, IndexError, EOFError, PermissionError) as error:
            if not heard:
                raise PermanentError(f"{self.name}: the sound cannot be decoded ({_why(error)}); convert it to WAV, MP3"
                                     " or MP4 and submit it again") from error  # fmt: skip
            self.warnings.append(f"The sound breaks off after {heard / RATE:.0f} s: the file is damaged or cut off.")
        if not heard:
            self.warnings.append("The sound track holds no samples.")


def look(job: Job, path: Path) -> Source:
    """Read a media file's header. Raises PermanentError when it is none, holds no sound, or only names others."""
    refuse_empty(job, path)
    source = Source(path, name_of(job, path))
    try:
        with path.open("rb") as file, _open(file) as container:
            if REFERENCES & set(container.format.name.split(",")):
                raise PermissionError(container.format.name)
            if not container.streams.audio:
                raise PermanentError(f"{source.name}: the file holds no sound track")
            source.seconds = container.duration / av.time_base if container.duration else None
            if container.streams.video:
                source.width, source.height = container.streams.video[0].width, container.streams.video[0].height
    except PermissionError as error:
        raise PermanentError(f"{source.name}: a list of other files or addresses, and these are not followed; send the"
                             " sound itself") from error  # fmt: skip
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise PermanentError(f"{source.name}: not a media file that can be read ({_why(error)}); convert it to WAV, MP3"
                             " or MP4 and submit it again") from error  # fmt: skip
    return source


def _open(file: Any) -> Any:
    """Open what `file` holds, and nothing that it names: no protocol is allowed, and any opening is refused."""
    return av.open(file, options={"protocol_whitelist": "none"}, io_open=_refuse, metadata_errors="replace")


def _refuse(url: str, flags: int, options: dict[str, Any]) -> Any:
    raise PermissionError("references to other files and addresses are not followed")


def _why(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)[:200]


def _samples(frame: av.AudioFrame) -> bytes:
    """Return a mono s16 frame's bytes without the padding behind them."""
    return bytes(frame.planes[0])[: 2 * frame.samples]
