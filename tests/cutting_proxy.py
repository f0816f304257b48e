"""A TCP proxy on loopback that loses answers as a network does: after so many bytes, or when a certain one comes."""

import re
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

CHUNK = 65536
REQUEST = re.compile(rb"(GET|POST|PUT) (\S+) HTTP/1\.1\r\n")


@dataclass
class Loss:
    """What happens to the answer of the next request that matches; `happened` is set when it did."""

    method: str
    path: re.Pattern[str]
    telling: bytes  # only an answer that holds this is lost; what came before it in a chunk of its own goes through
    after: int  # bytes of it that go through
    silently: bool  # the connection stays open, and nothing more comes
    happened: threading.Event = field(default_factory=threading.Event)


class CuttingProxy:
    """Stands between a worker and the bridge. A context manager; `requests` are (method, path, head) as they came."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._losses: list[Loss] = []
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.requests: list[tuple[str, str, bytes]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def lose(
        self, method: str, path: str, *, telling: bytes = b"", after: int = 0, silently: bool = False
    ) -> threading.Event:
        """Lose the answer of the next request whose path matches; set when it is lost."""
        loss = Loss(method, re.compile(path), telling, after, silently)
        with self._lock:
            self._losses.append(loss)
        return loss.happened

    def sent(self, method: str, path: str) -> list[bytes]:
        """The heads of the requests whose path matches."""
        with self._lock:
            return [head for m, p, head in self.requests if m == method and re.search(path, p)]

    def __enter__(self) -> "CuttingProxy":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        with self._lock:
            for end in self._open:
                _shut(end)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open += [client, server]
            passage = _Passage()
            threading.Thread(target=self._upwards, args=(client, server, passage), daemon=True).start()
            threading.Thread(target=self._downwards, args=(server, client, passage), daemon=True).start()

    def _upwards(self, client: socket.socket, server: socket.socket, passage: "_Passage") -> None:
        while chunk := _received(client):
            if match := REQUEST.match(chunk):
                method, path = match[1].decode(), match[2].decode()
                with self._lock:
                    self.requests.append((method, path, chunk.partition(b"\r\n\r\n")[0]))
                    passage.losses = [one for one in self._losses if one.method == method and one.path.search(path)]
                passage.answered = 0
            if not _passed_on(server, chunk):
                break
        _shut(server)

    def _downwards(self, server: socket.socket, client: socket.socket, passage: "_Passage") -> None:
        while chunk := _received(server):
            if loss := self._due(passage, chunk):
                _passed_on(client, chunk[: loss.after - passage.answered])
                loss.happened.set()
                while loss.silently and _received(server):
                    pass
                _shut(server)
                break
            passage.answered += len(chunk)
            if not _passed_on(client, chunk):
                break
        _shut(client)

    def _due(self, passage: "_Passage", chunk: bytes) -> Loss | None:
        """The loss that this part of an answer meets; each happens once."""
        with self._lock:
            for loss in passage.losses:
                late = passage.answered + len(chunk) > loss.after
                if loss in self._losses and late and loss.telling in chunk:
                    self._losses.remove(loss)
                    return loss
        return None


class _Passage:
    """What both directions of a connection know: the losses that await the current request, and its answer's bytes."""

    def __init__(self) -> None:
        self.losses: list[Loss] = []
        self.answered = 0


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(CHUNK)
    except OSError:
        return b""


def _passed_on(end: socket.socket, chunk: bytes) -> bool:
    try:
        end.sendall(chunk)
    except OSError:
        return False
    return True


def _shut(end: socket.socket) -> None:
    # Not close(): the other thread reads from it, and close() would not wake that one.
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
