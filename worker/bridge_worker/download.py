"""Fetches a job's source file, or its checkpoint, resuming where a broken connection left off."""

from __future__ import annotations

import base64
import contextlib
import email.message
import hashlib
import logging
import mimetypes
import re
import shutil
import time
from pathlib import Path

import requests

from bridge_worker import kill_points, retrying
from bridge_worker.answers import Answer, CallFailed, encoded, pieces
from bridge_worker.client import BridgeClient
from bridge_worker.held import Held
from bridge_worker.keeping import EARLIER_FILE
from bridge_worker.source_fetch import SourceRefused

log = logging.getLogger(__name__)
LOOK = 64 * 2**20  # bytes between two checks of the free space, where the bridge named no size
RESERVE = 64 * 2**20  # bytes of disk space that a download leaves free
CHECKPOINT_SHARE, CHECKPOINT_SILENCE_SECONDS = 0.25, 300.0  # of the time until the deadline; without a further byte
MOST = 16 * 2**30  # bytes of a source file, unless --max-download says otherwise


class Refused(Exception):
    """A file that neither this attempt nor a later one can get: gone, too large; a checkpoint that comes too slowly."""


class NotHere(OSError):
    """A source file that this machine cannot take now: no space, or something between it and the bridge."""


class Download:
    """One file on its way to `directory`; keeps what has arrived between attempts."""

    what = "source"  # begins the names of its files
    noun, gone = "source file", "the source file is gone; submit it again as a new job"

    def __init__(
        self,
        client: BridgeClient,
        held: Held,
        directory: Path,
        *,
        most: int = MOST,
        reserve: int = RESERVE,
        look: int = LOOK,
    ) -> None:
        """Take limits in bytes: `most` of a file, `reserve` kept free on the disk, `look` between checks of that."""
        self._client, self._held, self._directory = client, held, directory
        self._most, self._reserve, self._look = most, reserve, look
        self._partial = directory / f"{self.what}.part"
        self._partial.touch()
        self._etag = ""
        self._received = 0
        self._hash = hashlib.sha256()  # of what was received
        self._wrong = ""  # that of a whole file which was not the one of the digest
        self._suffix = ""

    def fetch(self) -> Path:
        """Download the whole file and return its path, with the suffix its name or type suggests.

        Raises CallFailed when the bridge refuses or stays away until the job's deadline or a cancel, Refused where no
        later attempt would succeed, and OSError when the file cannot be stored.
        """
        retrying.call(
            f"job={self._held.id} {self.what} download",
            self._attempt,
            give_up=self._held.over,
            patience=self._held.patience(),
        )
        kill_points.reach("download.done")
        return self._partial.rename(self._directory / f"{self.what}{self._suffix}")

    def _open(self, headers: dict[str, str]) -> requests.Response:
        return self._client.open_download(self._held.claim, headers)

    def _attempt(self) -> None:
        headers = {}
        if self._received and self._etag:
            headers = {"Range": f"bytes={self._received}-", "If-Range": self._etag}
        try:
            response = self._open(headers)
        except SourceRefused as error:
            raise Refused(f"{self._name()}: {error}") from None
        except CallFailed as error:
            self._held.hear(error)
            if error.status == 416:  # the file is shorter than what we have: begin again
                self._etag = ""
                raise CallFailed("the file changed while it was read", job_status=error.job_status) from error
            if error.status == 404 and error.job_status == "processing":
                raise Refused(f"{self._name()}: {self.gone}") from error
            raise
        with response:
            self._held.hear(Answer({}, response.headers.get("X-Job-Status")))
            self._held.on_over(lambda: _end_reading(response))
            try:
                self._receive(response)
            finally:
                self._held.on_over(lambda: None)

    def _receive(self, response: requests.Response) -> None:
        start = self._start(response)
        etag = response.headers.get("ETag", "")
        self._etag = "" if etag.startswith("W/") else etag  # a weak one proves nothing about bytes
        self._suffix = _suffix(response, self._held.claim.source_name)
        length = response.headers.get("Content-Length")
        expected = start + int(length) if length and re.fullmatch("[0-9]{1,18}", length) else None
        self._received = start
        self._check_room(response, expected)
        kill_points.reach("download.begun")
        with self._partial.open("r+b") as file:
            file.truncate(start)
            file.seek(start)
            if start == 0:
                self._hash = hashlib.sha256()
            look_at = start + self._look
            for piece in pieces(response):
                file.write(piece)
                self._hash.update(piece)
                self._received += len(piece)
                kill_points.reach("download.half")
                if self._received > self._most:
                    raise self._too_large(f"more than {self._most}")
                self._check_wanted()
                if self._received >= look_at:
                    look_at += self._look
                    self._check_free(expected)
        if expected is not None and self._received != expected:
            raise CallFailed(f"broken off after {self._received} of {expected} bytes")
        self._check_digest(self._declared(), _digest(response))

    def _declared(self) -> str | None:
        """Return the SHA-256 in the claim: a proxy may remove that of the answer."""
        return self._held.claim.source_sha256

    def _check_digest(self, declared: str | None, told: str | None) -> None:
        """Raise CallFailed where the file is another one; Refused where it came a second time."""
        wanted, came = declared or told, self._hash.hexdigest()
        if wanted in (None, came):
            return
        self._etag = ""
        if came == self._wrong:  # the way here does not change the same bytes twice
            which = "that was declared" if declared else "whose digest came with it"
            raise Refused(f"{self._name()}: the {self.noun} is not the one {which}: its SHA-256 is {came},"
                          f" not {wanted}")  # fmt: skip
        self._wrong = came
        raise CallFailed("the bytes that came are not those of their digest")

    def _check_wanted(self) -> None:
        """Raise CallFailed once the job is no longer wanted."""
        if self._held.is_over():
            raise CallFailed("the job is no longer wanted", status=409)

    def _check_room(self, response: requests.Response, expected: int | None) -> None:
        """Refuse a file that would not fit, before a byte is written."""
        if encoding := encoded(response):
            raise NotHere(f"the {self.noun} came with Content-Encoding {encoding}: what stands between must not encode")
        if expected is not None and expected > self._most:
            raise self._too_large(str(expected))
        self._check_free(expected)

    def _check_free(self, expected: int | None) -> None:
        """Raise NotHere where the remaining bytes do not fit on the disk."""
        free = shutil.disk_usage(self._directory).free
        needed = max(0, (expected or 0) - self._received) + self._reserve
        if free < needed:
            raise NotHere(f"{self._directory} has {free} bytes free, {needed} are needed (--work-dir)")

    def _too_large(self, size: str) -> Refused:
        return Refused(f"{self._name()}: the {self.noun} has {size} bytes; this worker takes at most {self._most}"
                       " (--max-download)")  # fmt: skip

    def _name(self) -> str:
        return self._held.claim.source_name or self.noun

    def _start(self, response: requests.Response) -> int:
        """Return where the answer's first byte belongs: what we have for the right 206, 0 for a 200."""
        if response.status_code != 206:
            return 0
        match = re.match(r"bytes ([0-9]{1,18})-", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != self._received:
            self._etag = ""
            raise CallFailed("the bridge sent another part of the file than was asked for")
        return self._received


class CheckpointDownload(Download):
    """The checkpoint that an earlier attempt uploaded, likewise; refused where it takes too long."""

    what, noun, gone = EARLIER_FILE, "checkpoint", "the checkpoint is gone"

    def __init__(self, client: BridgeClient, held: Held, directory: Path, **limits: int) -> None:
        super().__init__(client, held, directory, **limits)
        self._came, self._furthest = time.monotonic(), 0
        self._until = self._came + held.seconds_left() * CHECKPOINT_SHARE

    def _attempt(self) -> None:
        try:
            super()._attempt()
        except CallFailed as error:
            self._check_wanted(error.retry_after or 0.0)
            raise

    def _check_wanted(self, pause: float = 0.0) -> None:
        """Raise Refused, too, where the time is over, or will be after a pause: the attempt needs the rest."""
        super()._check_wanted()
        now = time.monotonic()
        if self._received > self._furthest:
            self._came, self._furthest = now, self._received
        if now + pause > min(self._until, self._came + CHECKPOINT_SILENCE_SECONDS):
            raise Refused(f"only {self._furthest} bytes of it came in time")

    def _open(self, headers: dict[str, str]) -> requests.Response:
        try:
            return self._client.open_checkpoint(self._held.claim, headers)
        except CallFailed as error:
            if error.status != 405:
                raise
            # A process of the version before, during an upgrade: the next try may reach another.
            raise CallFailed(str(error)) from None

    def _declared(self) -> str | None:
        return self._held.claim.checkpoint_sha256

    def _name(self) -> str:
        return self.noun


def _end_reading(response: requests.Response) -> None:
    """Wake the thread that waits for the next byte of this answer; called from another thread."""
    with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
        response.raw.shutdown()


def _digest(response: requests.Response) -> str | None:
    """Return the SHA-256 in Repr-Digest (RFC 9530) in hex, if there is one."""
    found = re.search(r"(?:^|[ ,])sha-256=:([A-Za-z0-9+/]{43}=):", response.headers.get("Repr-Digest", ""))
    return None if found is None else base64.b64decode(found[1]).hex()


def _suffix(response: requests.Response, name: str | None) -> str:
    """Return a suffix such as '.pdf' from the claim's name or the headers, or ''; handlers recognise files by it."""
    header = email.message.Message()
    header["Content-Disposition"] = response.headers.get("Content-Disposition", "")
    suffix = Path(name or "").suffix.lower() or Path(header.get_filename() or "").suffix.lower()
    if not suffix:
        media_type = response.headers.get("Content-Type", "").split(";")[0].strip()
        if media_type != "application/octet-stream":
            suffix = mimetypes.guess_extension(media_type) or ""
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else ""
