"""Fetches texts and artifacts into files, resuming after broken connections."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from jobbridge_client import calls
from jobbridge_client.address import host, is_address
from jobbridge_client.answers import Pauses, document, passes, patient, refusal, retry_after
from jobbridge_client.errors import BadAnswer, BadFile, BridgeError, Unreachable
from jobbridge_client.records import Artifact, Job, member, optional
from jobbridge_client.steps import Pause, Reply, Request, Steps, send, work

MOST_ARTIFACTS = 1000  # that the bridge keeps of a job
PathLike = str | os.PathLike[str]


def save_result(job: Job | str, path: PathLike, patience: float) -> Steps[Path]:
    """Fetch a result's text into a file, however long it is."""
    return (yield from _save(calls.path_of(job, "/result"), "text/plain", path, None, patience))


def artifacts(job: Job | str, patience: float) -> Steps[list[Artifact]]:
    """List the files that a job's result has besides its text."""
    found: list[Artifact] = []
    query: dict[str, str] = {"limit": "500"}
    while len(found) <= MOST_ARTIFACTS:
        data = document((yield from patient(Request("GET", calls.path_of(job, "/artifacts"), query), patience)))
        items = member(data, "items", list)
        if not all(isinstance(item, dict) for item in items):
            raise BadAnswer("the answer was not understood: items has something else in it")
        found += [Artifact.read(item) for item in items]
        cursor = optional(data, "next_cursor", str)
        if cursor is None:
            return found
        query["cursor"] = cursor
    raise BadAnswer(f"the bridge tells of more than {MOST_ARTIFACTS} artifacts")


def save_artifact(job: Job | str, artifact: Artifact | str, path: PathLike, patience: float) -> Steps[Path]:
    """Fetch an artifact into a file."""
    name, sha256 = (artifact.name, artifact.sha256) if isinstance(artifact, Artifact) else (artifact, None)
    place = calls.path_of(job, f"/artifacts/{calls.part(name)}")
    return (yield from _save(place, "application/octet-stream", path, sha256, patience))


def save_artifacts(job: Job | str, directory: PathLike, patience: float) -> Steps[list[Path]]:
    """Fetch all artifacts of a job into a directory, under their names."""
    yield from work(lambda: os.makedirs(directory, exist_ok=True))
    saved = []
    for artifact in (yield from artifacts(job, patience)):
        if Path(artifact.name).name != artifact.name or "\0" in artifact.name:
            raise BadAnswer(f"the artifact {artifact.name!r} would not lie in {directory}")
        saved.append((yield from save_artifact(job, artifact, Path(directory, artifact.name), patience)))
    return saved


class Saving:
    """Writes the bytes of answers to one file, with their SHA-256; a 206 continues where the last one broke off."""

    def __init__(self, file: BinaryIO, media_type: str = "", sha256: str | None = None) -> None:
        """`media_type` is required of the answer, `sha256` of the file; without it, the digest in the answer counts."""
        self._file, self._media_type, self._sha256 = file, media_type, sha256
        self.received = 0
        self._etag = self._digest = self._wrong = ""
        self._away = False
        self._hash = hashlib.sha256()

    def asked(self) -> dict[str, str]:
        """Return the headers that request the missing bytes from the bridge."""
        self._away = False
        return {"Accept": self._media_type or "*/*", **self._going_on()}

    def _going_on(self) -> dict[str, str]:
        going_on = self.received and self._etag
        return {"Range": f"bytes={self.received}-", "If-Range": self._etag} if going_on else {}

    def away(self, redirect: Reply) -> Request:
        """Note what the bridge says about a file in a store; return the request to the store. Raises BadAnswer."""
        address = redirect.headers.get("location", "")
        if not is_address(address):
            raise BadAnswer("the bridge redirects the download to no address that can be fetched from")
        before = self._going_on()
        self.note(redirect)
        self._away = True
        same = before.get("If-Range") == self._etag and before
        headers = {"Accept": "*/*", **({"Range": before["Range"]} if same else {})}
        return Request("GET", address, headers=headers, taker=self, away=True)

    def note(self, reply: Reply) -> None:
        """Note what the bridge says about the file. Raises BadAnswer."""
        if not reply.headers.get("content-type", "").startswith(self._media_type):
            raise BadAnswer(f"{self._media_type} was asked for, and the bridge gives something else: it may be older")
        etag = reply.headers.get("etag", "")
        self._etag = "" if etag.startswith("W/") else etag  # a weak one proves nothing about bytes
        self._digest = reply.headers.get("repr-digest", "")

    def begin(self, reply: Reply) -> None:
        """Find where the bytes belong. Raises BadAnswer."""
        if not self._away:
            self.note(reply)
        if reply.status == 206:
            begins = re.match(r"bytes ([0-9]{1,18})-", reply.headers.get("content-range", ""))
            if begins is None or int(begins[1]) != self.received:
                self.forget()
                raise _Passing("another part of the file came than was asked for")
            return
        self._file.seek(0)
        self._file.truncate()
        self.received, self._hash = 0, hashlib.sha256()

    def take(self, piece: bytes) -> None:
        """Write the next bytes. Raises OSError."""
        self._file.write(piece)
        self._hash.update(piece)
        self.received += len(piece)

    def forget(self) -> None:
        """Begin anew with the next request."""
        self._etag = ""

    def check(self) -> None:
        """Compare the whole file with its digest. Raises BadAnswer, and once more where the same bytes come again."""
        wanted, came = self._sha256 or _digest(self._digest), self._hash.hexdigest()
        if wanted in (None, came):
            return
        self.forget()
        if came == self._wrong:  # the way here does not change the same bytes twice
            raise self._refused(came, wanted)
        self._wrong = came
        raise _Passing(f"the bytes that came are not those of their digest: their SHA-256 is {came}, not {wanted}")

    def _refused(self, came: str, wanted: str) -> Exception:
        """Return what to raise for a file that is not the one of its digest."""
        return BadAnswer(f"the bytes that came are not those of the digest that the bridge tells: {came}, not {wanted}")


class _Passing(BadAnswer):
    """An answer that another request may mend."""


def _save(place: str, media_type: str, path: PathLike, sha256: str | None, patience: float) -> Steps[Path]:
    target = Path(os.path.realpath(path))  # replace the target of a symbolic link, not the link
    if (yield from work(lambda: target.exists() and not target.is_file())):
        raise BadFile(f"{path} is not a regular file")
    part = target.with_name(f".part-{uuid.uuid4().hex[:12]}")
    file = yield from work(lambda: _opened(part, path))
    try:
        with file:
            yield from receive(place, Saving(file, media_type, sha256), patience)
        yield from work(lambda: os.replace(part, target))
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    return Path(path)


def _opened(part: Path, path: PathLike) -> BinaryIO:
    try:
        return part.open("w+b")
    except OSError as error:
        raise BadFile(f"{path} cannot be written: {error.strerror}") from None


def receive(place: str, saving: Saving, patience: float) -> Steps[None]:
    """Fetch a file whole, from the bridge or where that redirects to. Any progress restarts the `patience`."""
    pauses = Pauses(patience)
    while True:
        before, asked = saving.received, None
        failed: BridgeError
        try:
            reply = yield from send(Request("GET", place, headers=saving.asked(), taker=saving))
            if reply.status == 307:
                reply = yield from _receive_away(saving.away(reply))
            if reply.status in (200, 206):
                saving.check()
                return
        except (Unreachable, _Passing) as error:
            failed = error
        else:
            failed, asked = refusal(reply), retry_after(reply)
            if reply.status == 416:
                saving.forget()  # the file is shorter than what has come of it
            elif not passes(reply.status):
                raise failed
        if saving.received > before and not isinstance(failed, _Passing):
            pauses.again()
        pause = pauses.next(asked)
        if pause is None:
            raise failed
        yield Pause(pause, failed)


def _receive_away(request: Request) -> Steps[Reply]:
    """Fetch the rest from another address; a failure is retried with the bridge, which may name another."""
    try:
        reply = yield from send(request)
    except Unreachable:
        raise Unreachable(f"the bridge's store at {host(request.path)} cannot be reached") from None
    if reply.status not in (200, 206, 416):
        raise Unreachable(f"the bridge's store at {host(request.path)} answers {reply.status}")
    return reply


def _digest(header: str) -> str | None:
    """Return the SHA-256 of a Repr-Digest in hex."""
    found = re.search(r"(?:^|[ ,])sha-256=:([A-Za-z0-9+/]{43}=):", header)
    return None if found is None else base64.b64decode(found[1]).hex()
