"""Fetches texts and artifacts into files, resuming after broken connections."""

from __future__ import annotations

import base64
import os
import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from jobbridge_client import calls
from jobbridge_client.address import host, is_address
from jobbridge_client.answers import PASSING, Pauses, document, patient, refusal, retry_after
from jobbridge_client.errors import BadAnswer, BadFile, BridgeError, Unreachable
from jobbridge_client.records import Artifact, Job, member, optional
from jobbridge_client.steps import Pause, Reply, Request, Steps, send, sha256_of, work

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


class _Saving:
    """Writes the bytes of answers to one file; a 206 continues where the last one broke off."""

    def __init__(self, file: BinaryIO, media_type: str) -> None:
        self._file, self._media_type = file, media_type
        self.received, self.etag, self.digest, self._away = 0, "", "", False

    def asked(self) -> dict[str, str]:
        """Return the headers that request the missing bytes from the bridge."""
        self._away = False
        going_on = {"Range": f"bytes={self.received}-", "If-Range": self.etag} if self.received and self.etag else {}
        return {"Accept": self._media_type, **going_on}

    def sent_away(self, reply: Reply) -> dict[str, str]:
        """Note what the bridge says about a file in a store; return the headers for the store. Raises BadAnswer."""
        going_on = self.received and self.etag and self.etag == reply.headers.get("etag")
        self._look(reply)
        self._away = True
        return {"Accept": "*/*", **({"Range": f"bytes={self.received}-"} if going_on else {})}

    def _look(self, reply: Reply) -> None:
        if not reply.headers.get("content-type", "").startswith(self._media_type):
            raise BadAnswer(f"{self._media_type} was asked for, and the bridge gives something else: it may be older")
        self.etag, self.digest = reply.headers.get("etag", ""), reply.headers.get("repr-digest", "")

    def begin(self, reply: Reply) -> None:
        """Find where the bytes belong. Raises BadAnswer."""
        if not self._away:
            self._look(reply)
        begins = re.match(r"bytes (\d{1,18})-", reply.headers.get("content-range", ""))
        if reply.status == 206 and (begins is None or int(begins[1]) != self.received):
            raise BadAnswer(f"byte {self.received} was asked for, and the answer begins elsewhere")
        if reply.status == 200:
            self._file.seek(0)
            self._file.truncate()
            self.received = 0

    def take(self, piece: bytes) -> None:
        """Write the next bytes. Raises OSError."""
        self._file.write(piece)
        self.received += len(piece)


def _save(place: str, media_type: str, path: PathLike, sha256: str | None, patience: float) -> Steps[Path]:
    target = Path(os.path.realpath(path))  # replace the target of a symbolic link, not the link
    if (yield from work(lambda: target.exists() and not target.is_file())):
        raise BadFile(f"{path} is not a regular file")
    part = target.with_name(f".part-{uuid.uuid4().hex[:12]}")
    file = yield from work(lambda: _opened(part, path))
    try:
        with file:
            saving = _Saving(file, media_type)
            yield from _receive(place, saving, patience)
            promised = sha256 or _digest(saving.digest)
            if promised is not None and (yield from work(lambda: sha256_of(file))) != promised:
                raise BadAnswer("the bytes that came are not those of the digest that the bridge tells")
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


def _receive(place: str, saving: _Saving, patience: float) -> Steps[None]:
    pauses = Pauses(patience)
    while True:
        before, asked = saving.received, None
        failed: BridgeError
        try:
            reply = yield from send(Request("GET", place, headers=saving.asked(), taker=saving))
            if reply.status == 307:
                yield from _receive_away(reply, saving)
                return
        except Unreachable as error:
            failed = error
        else:
            if reply.status in (200, 206):
                return
            failed, asked = refusal(reply), retry_after(reply)
            if reply.status not in PASSING:
                raise failed
        if saving.received > before:
            pauses.again()
        pause = pauses.next(asked)
        if pause is None:
            raise failed
        yield Pause(pause)


def _receive_away(redirect: Reply, saving: _Saving) -> Steps[None]:
    """Fetch the rest from the address in a redirect; a failure is retried with the bridge, which may name another."""
    address = redirect.headers.get("location", "")
    if not is_address(address):
        raise refusal(redirect)
    try:
        reply = yield from send(Request("GET", address, headers=saving.sent_away(redirect), taker=saving, away=True))
    except Unreachable:
        raise Unreachable(f"the bridge's store at {host(address)} cannot be reached") from None
    if reply.status not in (200, 206):
        raise Unreachable(f"the bridge's store at {host(address)} answers {reply.status}")


def _digest(header: str) -> str | None:
    """Return the SHA-256 of a Repr-Digest in hex."""
    found = re.search(r"(?:^|[ ,])sha-256=:([A-Za-z0-9+/]{43}=):", header)
    return None if found is None else base64.b64decode(found[1]).hex()
