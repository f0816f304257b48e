"""A TCP proxy on loopback that does to connections what networks do to them: delay, cut, swallow, reset.

It stands between a client and a server of any protocol. Every control method has taken effect when it returns.
"""

import asyncio
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from tests.support.network_faults import Direction, Fault, Pattern, Progress

T = TypeVar("T")
CHUNK = 65536
MOST_CHUNKS = 32  # in flight in one direction of a connection, which is what a delayed network holds
MOST_RECORDED = 10_000
End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Stats(NamedTuple):
    """What went through so far, and the faults that happened."""

    connections: int
    open: int
    bytes_up: int
    bytes_down: int
    faults: int


class FaultProxy:
    """A proxy before one server, which listens at `address`; a context manager.

    `upstream` is (host, port). Chunks from a client that begin with what `record` matches are kept, the latest of
    them, in `recorded`.
    """

    def __init__(self, upstream: tuple[str, int], record: re.Pattern[bytes] | None = None) -> None:
        self._upstream = upstream
        self._record = record
        self._latency = 0.0
        self._faults: list[Fault] = []
        self._open: set[_Connection] = set()
        self._count = {"connections": 0, "up": 0, "down": 0, "faults": 0}
        self._passing = asyncio.Event()
        self._passing.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512))
        self.recorded: deque[bytes] = deque(maxlen=MOST_RECORDED)
        self.address: tuple[str, int] = self._server.sockets[0].getsockname()[:2]

    @classmethod
    def before(cls, url: str, record: re.Pattern[bytes] | None = None) -> "FaultProxy":
        """Return a proxy before the server of a URL, whose port has to be named."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None, f"{parts.scheme}://… names no port"
        return cls((parts.hostname, parts.port), record)

    def url(self, of: str) -> str:
        """Return the same URL, with this proxy as its host."""
        parts = urlsplit(of)
        user, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}{at}{self.address[0]}:{self.address[1]}").geturl()

    def latency(self, seconds: float) -> None:
        """Delay each byte from now on, in each direction, without holding up those that come after it."""

        def delay() -> None:
            self._latency = seconds

        self._do(delay)

    def cut_after(self, count: int, direction: Direction, times: int = 1) -> Fault:
        """Cut the next connection over which more than so many bytes go from now on; so many still go through."""
        return self._add(Fault(direction, through=count, times=times))

    def cut_on(
        self,
        pattern: Pattern,
        direction: Direction = "up",
        before: bool = True,
        times: int = 1,
        *,
        following: bytes = b"",
        answer: bytes = b"",
        through: int = 0,
        silently: bool = False,
    ) -> Fault:
        """Cut the connection over which this passes, so many times.

        `up` and `before`: the server does not see it. `up` and not `before`: the server has seen and answered it, and
        the client gets no answer; only an answer that holds `answer` counts, and `through` bytes of it go through.
        `down`: the client does not see it, or is cut behind it. `following`: only on a connection over which the
        client has sent this since, after each of which it counts once. `silently`: the connection stays open, and
        nothing more comes.
        """
        return self._add(Fault(direction, before, times, pattern, through, following, answer, silently))

    def black_hole(self) -> None:
        """Let nothing through: no byte, no end of a connection, no new one. Heal delivers what was held back."""
        self._do(self._passing.clear)

    def reset(self) -> None:
        """End all connections with RST, in both directions; new ones go through."""

        def reset() -> None:
            for connection in self._open:
                for end in connection.writers:
                    _reset(end)

        self._do(reset)

    def heal(self) -> None:
        """Forget every fault that has not happened, and let everything through."""

        def heal() -> None:
            self._faults.clear()
            self._latency = 0.0
            self._passing.set()

        self._do(heal)

    @property
    def stats(self) -> Stats:
        count = self._count
        return Stats(count["connections"], len(self._open), count["up"], count["down"], count["faults"])

    def close(self) -> None:
        """End all connections and listen no more. Repeatable."""
        if self._thread.is_alive():
            self._run(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    def __enter__(self) -> "FaultProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # In the loop's thread, where all state is changed.

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def _do(self, change: Callable[[], object]) -> None:
        async def do() -> None:
            change()

        self._run(do())

    def _add(self, fault: Fault) -> Fault:
        self._do(lambda: self._faults.append(fault))
        return fault

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count["connections"] += 1
        with suppress(asyncio.CancelledError, OSError):  # cancelled by `close`
            await self._passing.wait()
            try:
                server = await asyncio.open_connection(*self._upstream)
            except OSError:
                _reset(writer)
                return
            connection = _Connection((reader, writer), server)
            self._open.add(connection)
            pumps = [asyncio.create_task(self._pump(connection, direction)) for direction in ("up", "down")]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._open.discard(connection)
                for end in connection.writers:
                    end.close()
                for pump in pumps:
                    pump.cancel()
        writer.close()

    async def _pump(self, connection: "_Connection", direction: Direction) -> None:
        reader, writer = connection.ends(direction)
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MOST_CHUNKS)
        reading = asyncio.create_task(self._read(reader, queue))
        try:
            while True:
                due, chunk = await queue.get()
                if (wait := due - self._loop.time()) > 0:
                    await asyncio.sleep(wait)
                await self._passing.wait()
                if not chunk:
                    return
                passed, cut = self._judged(connection, direction, chunk)
                self._count[direction] += len(passed)
                writer.write(passed)
                await writer.drain()
                if cut:
                    return
        except OSError:
            return
        finally:
            reading.cancel()

    async def _read(self, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        chunk = b"?"
        while chunk:
            try:
                chunk = await reader.read(CHUNK)
            except OSError:
                chunk = b""
            await queue.put((self._loop.time() + self._latency, chunk))

    def _judged(self, connection: "_Connection", direction: Direction, chunk: bytes) -> tuple[bytes, bool]:
        """Return what of a chunk goes through, and whether the connection ends then."""
        if direction in connection.mute:
            return b"", False
        if direction == "up" and self._record is not None and self._record.match(chunk):
            self.recorded.append(chunk)
        met = connection.progress.met(self._faults, direction, chunk)
        if met is None:
            return chunk, False
        fault, passed = met
        fault.count += 1
        self._count["faults"] += 1
        if fault.count == fault.times:
            self._faults.remove(fault)
        if fault.silently:
            connection.mute.add(direction)
        fault.happened.set()
        return passed, not fault.silently


class _Connection:
    """The two ends of a connection, and how far the faults have come on it."""

    def __init__(self, client: End, server: End) -> None:
        self._client, self._server = client, server
        self.mute: set[Direction] = set()
        self.progress = Progress()

    def ends(self, direction: Direction) -> End:
        """Where that direction comes from and where it goes."""
        source, target = (self._client, self._server) if direction == "up" else (self._server, self._client)
        return source[0], target[1]

    @property
    def writers(self) -> tuple[asyncio.StreamWriter, asyncio.StreamWriter]:
        return self._client[1], self._server[1]


def _reset(writer: asyncio.StreamWriter) -> None:
    if (end := writer.get_extra_info("socket")) is not None:
        with suppress(OSError):  # closed already
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
