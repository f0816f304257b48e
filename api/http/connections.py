"""The connections of an API process: which of them wait for a request, and which have shown a valid key.

Clients without a key may keep the bridge waiting for a request on some connections, not on all that it can have: at
most MOST_STRANGERS from one address, and none at all where no room is left. A connection that has shown a valid key, or
comes from a trusted proxy, is closed only by a time limit or its client, unless no room is left and its client has
stopped sending its body or reading its answer: the one that has been stalled for the longest time is closed then.
"""

import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from itertools import islice

from gunicorn.http.errors import LimitRequestHeaders

from api.http.client_address import real_address, trusts

MOST_STRANGERS = 256  # connections of one address that wait for a request and have shown no valid key
FRESH_SECONDS = 2.0  # none of these is closed sooner: many clients may come back at the same moment from one address
# A process that stops ends a connection on which nothing came for this long: sooner, its next answer says that it is
# the last one. A client that has just connected is about to send a request.
QUIET_SECONDS = 3.0
NEW_SECONDS = 5.0
TICK_SECONDS = 0.1  # between two ticks of the clock by which these are counted
LATE_SECONDS = 0.5  # between two looks for those that wait too long
# gunicorn would take a hundred fields of 8 KiB, and scans all that came whenever a piece comes.
MOST_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 20.0  # for the first request of a connection to begin, and for the head of any request to be complete


class HungUp(BaseException):
    """The client has gone and nobody would read an answer: the connection ends without one."""


class Connection:
    """A client's connection; gunicorn's parser reads from it."""

    __slots__ = (
        "_client", "_head", "_stalled", "_until", "address", "begun", "ending", "proven", "quiet_since", "resumable",
        "served", "waiting", "waits_since",
    )  # fmt: skip

    def __init__(self, client: socket.socket, address: str | None, stalled: dict["Connection", None]) -> None:
        self._client = client
        self._stalled = stalled  # the connection is in it while its client is waited for
        self.address = address  # None: a trusted proxy's
        self.proven = False
        self.served = False  # a request has come on it
        self.waiting = False  # for a request's head
        self.resumable = False  # its request's body may end at any byte
        self.ending = False  # it should end now: the process stops
        self.begun = False  # something of it came
        self.waits_since = self.quiet_since = self._until = 0.0
        self._head = 0  # bytes of a head that came

    def wait(self, seconds: float) -> None:
        """Wait for the next request to begin within `seconds`; otherwise the client counts as gone."""
        self.waiting, self.begun, self._head = True, False, 0
        self.waits_since = time.monotonic()
        self._until = self.waits_since + seconds

    def recv(self, size: int) -> bytes:
        """Return what comes next; nothing at the end or when too late. Raises LimitRequestHeaders (head too large)."""
        if not self.waiting:
            with self.stalled():
                return self._client.recv(size)
        came = self._client.recv(size)  # without a time limit, which would double the cost: `late` ends the wait
        if self.begun and self.late(time.monotonic()):
            return b""
        if not self.begun:
            self.begun = True
            self._until = time.monotonic() + HEAD_SECONDS
        self._head += len(came)
        if self._head > MOST_HEAD_BYTES:
            raise LimitRequestHeaders("the head is too large")
        return came

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Mark the connection as stalled inside: its client is waited for in the middle of a request or an answer."""
        self._stalled[self] = None
        try:
            yield
        finally:
            self._stalled.pop(self, None)

    def late(self, now: float) -> bool:
        """Return whether it has waited longer for a request than it may."""
        return self.waiting and now > self._until

    @property
    def unread(self) -> bool:
        """Whether something unread has come: a part of a request, or the end of the connection."""
        try:
            self._client._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)  # type: ignore[attr-defined]
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def let_go(self) -> None:
        """End the wait for a request that has not begun; one that arrives at this moment is still served."""
        # Only the reading end: the kernel still hands out what had arrived, then reports the end.
        self._shut(socket.SHUT_RD)

    def cut(self) -> None:
        """End the connection, whatever it waits for."""
        self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        """Shut it in the kernel: the reading greenlet sees the end in its turn; gevent's own would throw into it."""
        with suppress(OSError):
            self._client._sock.shutdown(how)  # type: ignore[attr-defined]

    @contextmanager
    def upload(self) -> Iterator[None]:
        """Mark the request's body inside as one that may end at any byte, since its client goes on from there."""
        self.resumable = True
        try:
            yield
        finally:
            self.resumable = False


CURRENT: ContextVar[Connection | None] = ContextVar("connection", default=None)


def prove() -> None:
    """Note that the connection of this request has shown a valid key."""
    if (connection := CURRENT.get()) is not None:
        connection.proven = True


def stalled() -> AbstractContextManager[None]:
    """Mark this request's connection as stalled inside: its client does not read, and a newcomer may take its place."""
    connection = CURRENT.get()
    return connection.stalled() if connection is not None else nullcontext()


class Connections:
    """The connections of this process, at most `most`."""

    def __init__(self, most: int, keep_seconds: float, trusted: Iterable[str]) -> None:
        self._most = most
        self._keep_seconds = keep_seconds
        self._trusted = tuple(trusted)
        self._open: set[Connection] = set()
        # Those that wait and have shown no valid key, in the order in which they began to wait.
        self._strangers: dict[Connection, None] = {}
        self._of_address: dict[str, dict[Connection, None]] = {}
        self._stalled: dict[Connection, None] = {}  # in the order in which they stalled
        self._ticked = self._looked = time.monotonic()
        self._awake = 0.0

    def tick(self) -> None:
        """Count the time in which this process ran, and end waits that are too long. Called every TICK_SECONDS.

        Where the machine was overloaded or frozen, its clients were too, and their requests come just as late.
        Looking at all connections costs less than a timer for each request.
        """
        now = time.monotonic()
        self._awake += min(now - self._ticked, 2 * TICK_SECONDS)
        self._ticked = now
        if now - self._looked > LATE_SECONDS:
            self._looked = now
            for connection in self._open:
                if connection.late(now):
                    connection.let_go()
        for _ in range(len(self._open) - self._most):  # nobody was stalled yet when they came
            self._make_room()

    def open(self, client: socket.socket, peer: object) -> Connection:
        """Add and return a new connection. Where there are too many, an older one is cut for it: one that has shown no
        valid key, else the one that has been stalled for longest."""
        host = str(peer[0]) if isinstance(peer, tuple) else ""
        ours = not host or trusts(host, self._trusted)  # without an address it came by a Unix socket
        connection = Connection(client, None if ours else real_address(host, "", ()), self._stalled)
        self._open.add(connection)
        if len(self._open) > self._most:
            self._make_room()
        elif len(mine := self._of_address.get(connection.address or "", {})) >= MOST_STRANGERS:
            oldest = next(iter(mine))
            if time.monotonic() - oldest.waits_since > FRESH_SECONDS:
                self._cut(oldest)
        return connection

    @property
    def scarce(self) -> bool:
        """Whether so few are left that connections are not kept open between requests."""
        return len(self._open) > self._most * 15 // 16

    def wait(self, connection: Connection) -> None:
        """Mark the connection as idle: its next request has not begun."""
        connection.quiet_since = self._awake
        connection.wait(self._keep_seconds if connection.served else HEAD_SECONDS)
        if connection.proven or connection.address is None:
            return
        self._strangers[connection] = None
        self._of_address.setdefault(connection.address, {})[connection] = None

    def serve(self, connection: Connection) -> None:
        """Mark the connection as serving a request, whose head has come."""
        connection.waiting, connection.served = False, True
        if not connection.proven:
            self._known(connection)

    def close(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._open.discard(connection)
        self._known(connection)

    def let_go(self) -> None:
        """End connections as the process stops: idle ones, and those without a key whose request has stopped coming."""
        for connection in self._open:
            quiet = self._awake - connection.quiet_since if connection.waiting else 0.0
            if quiet < (QUIET_SECONDS if connection.served else NEW_SECONDS) or connection.unread:
                continue
            if not connection.begun:
                connection.let_go()
            elif connection in self._strangers and quiet >= NEW_SECONDS:
                connection.cut()

    def end_uploads(self) -> None:
        """End uploads, so that what came of them is stored before the process ends."""
        for connection in self._open:
            if connection.resumable and not connection.ending:
                connection.ending = True
                connection.let_go()

    def _make_room(self) -> None:
        for one in islice(self._strangers or self._stalled, 1):
            self._cut(one)

    def _cut(self, connection: Connection) -> None:
        self._known(connection)
        self._stalled.pop(connection, None)
        connection.cut()

    def _known(self, connection: Connection) -> None:
        """Take the connection off the waiting strangers."""
        if self._strangers.pop(connection, self) is self or connection.address is None:
            return
        mine = self._of_address[connection.address]
        del mine[connection]
        if not mine:
            del self._of_address[connection.address]
