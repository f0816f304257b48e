"""The connections of an API process: which of them wait for a request, and which have shown a key that counts.

Whoever has no key may make the bridge wait for a request on some connections, not on all that it can have: of one
address no more than MOST_STRANGERS, and none at all where no room is left. A connection on which a key counted once,
and one from a trusted proxy, is closed by nobody but time and its client, unless no room is left and its client sends
no more of a body, or reads no more of an answer: the one that did neither for the longest time goes then.
"""

import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from itertools import islice

from gunicorn.http.errors import LimitRequestHeaders

from api.http.client_address import real_address, trusts

MOST_STRANGERS = 256  # connections of one address that wait for a request while no key has counted on them
FRESH_SECONDS = 2.0  # none of these is closed before: many clients may come back at one moment from one address
# A process that stops lets a connection go on which nothing came for so long: sooner, its next answer says that it is
# the last one. Who has just connected is about to ask.
QUIET_SECONDS = 3.0
NEW_SECONDS = 5.0
TICK_SECONDS = 0.1  # between two ticks of the clock by which these are counted
LATE_SECONDS = 0.5  # between two looks for those that wait too long
# gunicorn would take a hundred fields of 8 KiB, and looks through all that came at each piece that comes.
MOST_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 20.0  # within so long the first request of a connection begins, and any that began has its whole head


class HungUp(BaseException):
    """The client has gone, and nobody hears an answer: the connection ends without one."""


class Connection:
    """A client's connection; gunicorn's parser reads from it."""

    __slots__ = (
        "_client", "_head", "_stalled", "_until", "address", "begun", "proven", "quiet_since", "served", "waiting",
        "waits_since",
    )  # fmt: skip

    def __init__(self, client: socket.socket, address: str | None, stalled: dict["Connection", None]) -> None:
        self._client = client
        self._stalled = stalled  # it stands there while its client is waited for
        self.address = address  # None: a trusted proxy's
        self.proven = False
        self.served = False  # a request has come on it
        self.waiting = False  # for a request's head
        self.begun = False  # something of it came
        self.waits_since = self.quiet_since = self._until = 0.0
        self._head = 0  # bytes of a head that came

    def wait(self, seconds: float) -> None:
        """The next request begins within so long, or the client has gone."""
        self.waiting, self.begun, self._head = True, False, 0
        self.waits_since = time.monotonic()
        self._until = self.waits_since + seconds

    def recv(self, size: int) -> bytes:
        """What comes next; nothing when it is the end, or too late. Raises LimitRequestHeaders for too large a head."""
        if not self.waiting:
            with self.stalled():
                return self._client.recv(size)
        came = self._client.recv(size)  # without a time limit, which costs as much as the rest: `late` ends the wait
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
        """Its client is waited for, in the middle of a request or an answer."""
        self._stalled[self] = None
        try:
            yield
        finally:
            self._stalled.pop(self, None)

    def late(self, now: float) -> bool:
        """Whether it waits longer for a request than it may."""
        return self.waiting and now > self._until

    @property
    def unread(self) -> bool:
        """Whether something has come that nobody has read: a part of a request, or that the client has gone."""
        try:
            self._client._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)  # type: ignore[attr-defined]
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def let_go(self) -> None:
        """End the wait for a request of which nothing has come: what comes at this moment is served all the same."""
        # The reading end alone: the kernel still hands out what was there before, then says that this is the end.
        self._shut(socket.SHUT_RD)

    def cut(self) -> None:
        """End it, whatever it waits for."""
        self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        """Through the kernel, which the reading greenlet hears in its turn; gevent's own throws an error into it."""
        with suppress(OSError):
            self._client._sock.shutdown(how)  # type: ignore[attr-defined]


CURRENT: ContextVar[Connection | None] = ContextVar("connection", default=None)


def prove() -> None:
    """A key counts on the connection of this request."""
    if (connection := CURRENT.get()) is not None:
        connection.proven = True


def stalled() -> AbstractContextManager[None]:
    """The client of this request does not read: its connection may go for a newcomer."""
    connection = CURRENT.get()
    return connection.stalled() if connection is not None else nullcontext()


class Connections:
    """Those of this process, of which it takes `most`."""

    def __init__(self, most: int, keep_seconds: float, trusted: Iterable[str]) -> None:
        self._most = most
        self._keep_seconds = keep_seconds
        self._trusted = tuple(trusted)
        self._open: set[Connection] = set()
        # Those that wait while no key has counted on them, by the time since when they wait.
        self._strangers: dict[Connection, None] = {}
        self._of_address: dict[str, dict[Connection, None]] = {}
        self._stalled: dict[Connection, None] = {}  # by the time since when their clients are waited for
        self._ticked = self._looked = time.monotonic()
        self._awake = 0.0

    def tick(self) -> None:
        """Called every TICK_SECONDS. What is counted is time in which this process ran.

        Where the machine is overloaded or was frozen, clients were too: their requests come as late.
        Those that wait longer than they may end here: to look at all costs less than a timer for each request.
        """
        now = time.monotonic()
        self._awake += min(now - self._ticked, 2 * TICK_SECONDS)
        self._ticked = now
        if now - self._looked > LATE_SECONDS:
            self._looked = now
            for connection in self._open:
                if connection.late(now):
                    connection.let_go()
        for _ in range(len(self._open) - self._most):  # when those came nobody was stalled yet
            self._make_room()

    def open(self, client: socket.socket, peer: object) -> Connection:
        """A new one. Where there are too many, an older one goes for it: one that nobody has shown a key on, else the
        one whose client has been waited for longest."""
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
        """Whether so few are left that none is kept whose client asks for nothing more at the moment."""
        return len(self._open) > self._most * 15 // 16

    def wait(self, connection: Connection) -> None:
        """It waits for its next request."""
        connection.quiet_since = self._awake
        connection.wait(self._keep_seconds if connection.served else HEAD_SECONDS)
        if connection.proven or connection.address is None:
            return
        self._strangers[connection] = None
        self._of_address.setdefault(connection.address, {})[connection] = None

    def serve(self, connection: Connection) -> None:
        """A whole request has come on it."""
        connection.waiting, connection.served = False, True
        if not connection.proven:
            self._known(connection)

    def close(self, connection: Connection) -> None:
        """It has ended."""
        self._open.discard(connection)
        self._known(connection)

    def let_go(self) -> None:
        """This process stops: let go those on which nothing comes, and strangers whose request does not go on."""
        for connection in self._open:
            quiet = self._awake - connection.quiet_since if connection.waiting else 0.0
            if quiet < (QUIET_SECONDS if connection.served else NEW_SECONDS) or connection.unread:
                continue
            if not connection.begun:
                connection.let_go()
            elif connection in self._strangers and quiet >= NEW_SECONDS:
                connection.cut()

    def _make_room(self) -> None:
        for one in islice(self._strangers or self._stalled, 1):
            self._cut(one)

    def _cut(self, connection: Connection) -> None:
        self._known(connection)
        self._stalled.pop(connection, None)
        connection.cut()

    def _known(self, connection: Connection) -> None:
        """It is none of the strangers that wait."""
        if self._strangers.pop(connection, self) is self or connection.address is None:
            return
        mine = self._of_address[connection.address]
        del mine[connection]
        if not mine:
            del self._of_address[connection.address]
