"""The steps of calls, so that each call is written once for the sync and the async client.

A call is a generator: it yields a Request, a Pause or a Work, is sent the outcome, and returns its result. The two
clients run it, each in its own way, and so does bridge-worker, over a connection of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol, TypeVar

from jobbridge_client.errors import BadFile, BridgeError

T = TypeVar("T")
PIECE = 256 * 1024  # bytes that are read and written at once
ANSWER_LIMIT = 2**20  # bytes of an answer without a document
DOCUMENT_LIMIT = 64 * 2**20  # bytes of one with a document


class Taker(Protocol):
    """Takes the bytes of a successful answer as they come."""

    def begin(self, reply: Reply) -> None:
        """Look at the head before any byte. Raises BadAnswer."""

    def take(self, piece: bytes) -> None:
        """Take the next bytes. Raises OSError, BadAnswer."""


@dataclass
class FilePart:
    """The rest of an open file as the body of a request; `sent` is called with the bytes sent so far."""

    file: BinaryIO
    begin: int
    length: int
    sent: Callable[[int], object] = lambda _: None

    def pieces(self) -> Iterator[bytes]:
        """Yield `length` bytes from `begin` on. Raises BadFile where the file ends sooner."""
        self.file.seek(self.begin)
        left = self.length
        while left:
            if not (piece := self.file.read(min(PIECE, left))):
                raise BadFile("the file became shorter while it was sent")
            yield piece
            left -= len(piece)
            self.sent(self.begin + self.length - left)


@dataclass
class Request:
    """One request. `seconds` is how long the answer may take; `limit` how many bytes of it are read.

    `away`: `path` is an address of another server, which is not given the key.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    body: FilePart | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 60.0
    limit: int = ANSWER_LIMIT
    taker: Taker | None = None
    away: bool = False


@dataclass(frozen=True)
class Reply:
    """An answer. `repeated`: an earlier try of the same request got no answer, and may have been carried out."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes = b""
    repeated: bool = False


@dataclass(frozen=True)
class Pause:
    """A wait, in seconds; before a further try, `why` is what went wrong."""

    seconds: float
    why: BridgeError | None = None


@dataclass(frozen=True)
class Work:
    """A function that reads or writes files, so not for an event loop. Its result is sent back."""

    do: Callable[[], Any]


Step = Request | Pause | Work
Steps = Generator[Step, Any, T]


def send(request: Request) -> Steps[Reply]:
    """Make one request, once. Raises Unreachable, BadAnswer."""
    reply: Reply = yield request
    return reply


def work(do: Callable[[], T]) -> Steps[T]:
    """Run a function that works on files. Raises what it raises."""
    done: T = yield Work(do)
    return done


def run(steps: Steps[T], do: Callable[[Step], Any]) -> T:
    """Run the steps of a call until it returns; the exceptions of `do` are raised where the step was yielded."""
    with closing(steps):
        came: Any = None
        while True:
            try:
                step = steps.throw(came) if isinstance(came, Exception) else steps.send(came)
            except StopIteration as end:
                result: T = end.value
                return result
            try:
                came = do(step)
            except Exception as error:
                came = error


def sha256_of(file: BinaryIO) -> str:
    """Return the SHA-256 of an open file in hex. Raises OSError."""
    file.seek(0)
    whole = hashlib.sha256()
    while piece := file.read(PIECE):
        whole.update(piece)
    return whole.hexdigest()
