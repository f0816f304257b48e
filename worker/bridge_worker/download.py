"""Fetches a job's source file, or its checkpoint, resuming where a broken connection left off."""

from __future__ import annotations

import email.message
import mimetypes
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from bridge_worker import kill_points, transfers
from bridge_worker.answers import CallFailed
from bridge_worker.claim import Claim
from bridge_worker.client import BASE, BridgeClient, SourceRequest
from bridge_worker.held import Held
from bridge_worker.keeping import EARLIER_FILE
from bridge_worker.source_fetch import SourceRefused
from bridge_worker.text import one_line
from jobbridge_client.downloads import Saving, receive
from jobbridge_client.steps import Reply, Request

LOOK = 64 * 2**20  # bytes between two checks of the free space, where the bridge named no size
RESERVE = 64 * 2**20  # bytes of disk space that a download leaves free
CHECKPOINT_SHARE, CHECKPOINT_SILENCE_SECONDS = 0.25, 300.0  # of the time until the deadline; without a further byte
MOST = 16 * 2**30  # bytes of a source file, unless --max-download says otherwise


class Refused(Exception):
    """A file that neither this attempt nor a later one can get: gone, too large; a checkpoint that comes too slowly."""


class NotHere(OSError):
    """A source file that this machine cannot take now: no space, or something between it and the bridge."""


class Download(Saving):
    """One file on its way to `directory`; keeps what has arrived between tries."""

    what = "source"  # begins the names of its files
    noun, gone = "source file", "the source file is gone; submit it again as a new job"
    passing = 0  # a status after which another try may do better

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
        self._most, self._reserve, self._look, self._look_at = most, reserve, look, 0
        self._partial = directory / f"{self.what}.part"
        # The digest in the claim counts before that of the answer, which a proxy may remove.
        super().__init__(self._partial.open("w+b"), sha256=self._declared(held.claim))
        self._expected: int | None = None
        self._redirect: Mapping[str, str] | None = None  # the headers of one to the producer's server
        self._suffix = ""

    def fetch(self) -> Path:
        """Download the whole file and return its path, with the suffix its name or type suggests.

        Raises CallFailed when the bridge refuses or stays away until the job's deadline or a cancel, Refused where no
        later attempt would succeed, and OSError when the file cannot be stored.
        """
        steps = receive(self._place(self._held.claim), self, self._held.patience())
        try:
            with self._file:
                what, check = f"{self.what} download", self._check_wanted
                transfers.run(self._client, self._held, what, steps, check, passing=self.passing)
        except SourceRefused as error:
            raise Refused(f"{self._name()}: {error}") from None
        except CallFailed as error:
            if error.status == 404 and error.job_status == "processing":
                raise Refused(f"{self._name()}: {self.gone}") from error
            raise
        kill_points.reach("download.done")
        return self._partial.rename(self._directory / f"{self.what}{self._suffix}")

    def _place(self, claim: Claim) -> str:
        if claim.source_file_url == "":
            raise CallFailed("the bridge named a source file elsewhere; the key is not sent there", status=400)
        return claim.source_file_url or f"{BASE}/{claim.job_id}/download"

    def _declared(self, claim: Claim) -> str | None:
        return claim.source_sha256

    def asked(self) -> dict[str, str]:
        """Return the headers that request the missing bytes from the bridge."""
        self._redirect = None
        return super().asked()

    def away(self, redirect: Reply) -> Request:
        """Return the request to the bridge's store, or to the address that the producer named. Raises BadAnswer."""
        if redirect.headers.get("x-source-fetch") != "worker":
            return super().away(redirect)
        self._redirect = redirect.headers
        headers = {"Accept": "*/*", **self._going_on()}
        return SourceRequest("GET", redirect.headers.get("location", ""), headers=headers, taker=self, away=True)

    def note(self, reply: Reply) -> None:
        """Note what is said about the file; what the bridge says counts before what the producer's server says."""
        super().note(reply)
        told = reply.headers if self._redirect is None else self._redirect
        self._digest = told.get("repr-digest", self._digest)
        self._suffix = _suffix(told, reply.headers.get("content-type", ""), self._held.claim.source_name)

    def begin(self, reply: Reply) -> None:
        """Refuse a file that would not fit, before a byte is written. Raises Refused, NotHere, BadAnswer."""
        if (encoding := reply.headers.get("content-encoding", "").strip().lower()) not in ("", "identity"):
            raise NotHere(f"the {self.noun} came with Content-Encoding {one_line(encoding, 50)}: what stands between"
                          " must not encode")  # fmt: skip
        super().begin(reply)
        length = transfers.length_of(reply)
        self._expected = None if length is None else self.received + length
        if self._expected is not None and self._expected > self._most:
            raise self._too_large(str(self._expected))
        self._check_free()
        self._look_at = self.received + self._look
        kill_points.reach("download.begun")

    def take(self, piece: bytes) -> None:
        """Write the next bytes. Raises Refused, NotHere, OSError; CallFailed once the job is no longer wanted."""
        super().take(piece)
        kill_points.reach("download.half")
        if self.received > self._most:
            raise self._too_large(f"more than {self._most}")
        self._check_wanted()
        if self.received >= self._look_at:
            self._look_at += self._look
            self._check_free()

    def _refused(self, came: str, wanted: str) -> Exception:
        which = "that was declared" if self._sha256 else "whose digest came with it"
        return Refused(f"{self._name()}: the {self.noun} is not the one {which}: its SHA-256 is {came}, not {wanted}")

    def _check_wanted(self, _pause: float = 0.0) -> None:
        """Raise NotWanted once the job is no longer wanted."""
        if self._held.is_over():
            raise transfers.NotWanted("the job is no longer wanted")

    def _check_free(self) -> None:
        """Raise NotHere where the remaining bytes do not fit on the disk."""
        free = shutil.disk_usage(self._directory).free
        needed = max(0, (self._expected or 0) - self.received) + self._reserve
        if free < needed:
            raise NotHere(f"{self._directory} has {free} bytes free, {needed} are needed (--work-dir)")

    def _too_large(self, size: str) -> Refused:
        return Refused(f"{self._name()}: the {self.noun} has {size} bytes; this worker takes at most {self._most}"
                       " (--max-download)")  # fmt: skip

    def _name(self) -> str:
        return self._held.claim.source_name or self.noun


class CheckpointDownload(Download):
    """The checkpoint that an earlier attempt uploaded, likewise; refused where it takes too long."""

    what, noun, gone = EARLIER_FILE, "checkpoint", "the checkpoint is gone"
    passing = 405  # from a process of the version before, during an upgrade

    def __init__(self, client: BridgeClient, held: Held, directory: Path, **limits: int) -> None:
        super().__init__(client, held, directory, **limits)
        self._came, self._furthest = time.monotonic(), 0
        self._until = self._came + held.seconds_left() * CHECKPOINT_SHARE

    def _check_wanted(self, _pause: float = 0.0) -> None:
        """Raise Refused, too, where the time is over, or will be after a pause: the attempt needs the rest."""
        super()._check_wanted()
        now = time.monotonic()
        if self.received > self._furthest:
            self._came, self._furthest = now, self.received
        if now + _pause > min(self._until, self._came + CHECKPOINT_SILENCE_SECONDS):
            raise Refused(f"only {self._furthest} bytes of it came in time")

    def _place(self, claim: Claim) -> str:
        return f"{BASE}/{claim.job_id}/checkpoint"

    def _declared(self, claim: Claim) -> str | None:
        return claim.checkpoint_sha256

    def _name(self) -> str:
        return self.noun


def _suffix(told: Mapping[str, str], content_type: str, name: str | None) -> str:
    """Return a suffix such as '.pdf' from the claim's name or the headers, or ''; handlers recognise files by it."""
    header = email.message.Message()
    header["Content-Disposition"] = told.get("content-disposition", "")
    suffix = Path(name or "").suffix.lower() or Path(header.get_filename() or "").suffix.lower()
    if not suffix:
        media_type = content_type.split(";")[0].strip()
        if media_type != "application/octet-stream":
            suffix = mimetypes.guess_extension(media_type) or ""
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else ""
