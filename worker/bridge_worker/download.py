"""Fetches a job's source file, resuming where a broken connection left off."""

from __future__ import annotations

import email.message
import logging
import mimetypes
import re
import shutil
from pathlib import Path

import requests

from bridge_worker import retrying
from bridge_worker.client import BridgeClient, CallFailed, encoded
from bridge_worker.held import Held

log = logging.getLogger(__name__)
CHUNK = 65536  # bytes; as much at most is fetched twice after a break


RESERVE = 64 * 2**20  # bytes of the disk that a download leaves free
MOST = 16 * 2**30  # bytes of a source file, unless --max-download says otherwise


class Refused(Exception):
    """A source file that this attempt cannot have, and no later one: gone, or too large."""


class NotHere(OSError):
    """A source file that this machine cannot take now: no room, or something between it and the bridge."""


class Download:
    """One file on its way to `directory`; keeps what has arrived between attempts."""

    def __init__(self, client: BridgeClient, held: Held, directory: Path, *, most: int = MOST) -> None:
        """`most` is the largest file that is taken, in bytes."""
        self._client, self._held, self._directory, self._most = client, held, directory, most
        self._partial = directory / "source.part"
        self._partial.touch()
        self._etag = ""
        self._received = 0
        self._suffix = ""

    def fetch(self) -> Path:
        """Download the whole file and return its path, with the suffix its name or type suggests.

        Raises CallFailed when the bridge refuses or stays away until the job's deadline or a cancel, Refused where no
        later attempt would fare better, and OSError when the file cannot be stored.
        """
        retrying.call(
            f"job={self._held.id} download",
            self._attempt,
            give_up=self._held.over,
            patience=self._held.patience(),
        )
        return self._partial.rename(self._directory / f"source{self._suffix}")

    def _attempt(self) -> None:
        headers = {}
        if self._received and self._etag:
            headers = {"Range": f"bytes={self._received}-", "If-Range": self._etag}
        try:
            response = self._client.open_download(self._held.claim, headers)
        except CallFailed as error:
            if error.status == 416:  # the file is shorter than what we have: begin again
                self._etag = ""
                raise CallFailed("the file changed while it was read", job_status=error.job_status) from error
            if error.status == 404 and error.job_status == "processing":
                raise Refused(f"{self._name()}: the source file is gone; submit it again as a new job") from error
            raise
        with response:
            self._receive(response)

    def _receive(self, response: requests.Response) -> None:
        start = self._start(response)
        etag = response.headers.get("ETag", "")
        self._etag = "" if etag.startswith("W/") else etag  # a weak one proves nothing about bytes
        self._suffix = _suffix(response, self._held.claim.source_name)
        length = response.headers.get("Content-Length")
        expected = start + int(length) if length and length.isdigit() else None
        self._received = start
        self._check_room(response, expected)
        with self._partial.open("r+b") as file:
            file.truncate(start)
            file.seek(start)
            try:
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    self._received += len(chunk)
                    if self._received > self._most:
                        raise self._too_large(f"more than {self._most}")
                    if self._held.over.is_set():
                        raise CallFailed("the job is no longer wanted", status=409)
            except (requests.RequestException, ConnectionError, TimeoutError) as error:
                raise CallFailed(f"broken off after {self._received} bytes") from error
        if expected is not None and self._received != expected:
            raise CallFailed(f"broken off after {self._received} of {expected} bytes")

    def _check_room(self, response: requests.Response, expected: int | None) -> None:
        """Refuse before a byte is written what would not fit."""
        if encoding := encoded(response):
            raise NotHere(f"the source file came with Content-Encoding {encoding}: what stands between must not encode")
        if expected is not None and expected > self._most:
            raise self._too_large(str(expected))
        free = shutil.disk_usage(self._directory).free
        needed = (expected or self._received) - self._received + RESERVE
        if free < needed:
            raise NotHere(f"{self._directory} has {free} bytes free, {needed} are needed (--work-dir)")

    def _too_large(self, size: str) -> Refused:
        return Refused(f"{self._name()}: the source file has {size} bytes; this worker takes at most {self._most}"
                       " (--max-download)")  # fmt: skip

    def _name(self) -> str:
        return self._held.claim.source_name or "source file"

    def _start(self, response: requests.Response) -> int:
        """Return where the answer's first byte belongs: what we have for the right 206, 0 for a 200."""
        if response.status_code != 206:
            return 0
        match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != self._received:
            self._etag = ""
            raise CallFailed("the bridge sent another part of the file than was asked for")
        return self._received


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
