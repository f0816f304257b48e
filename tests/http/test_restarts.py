"""Restarts that no client notices: SIGHUP, and a stop and a start on a listening socket that outlives both.

`RESTARTS=20 pytest -n 0 -o timeout=3600 …` for more of them than `make test` has time for.
"""

import asyncio
import json
import os
import random
import signal
import socket
import threading
import uuid
from collections import Counter

import psutil
import pytest
from redis import Redis
from sqlalchemy import text

from bridge.admission import keys
from bridge.db import make_engine
from bridge.names import API_BASE
from bridge.settings import load_settings
from tests.support.activation import Activated
from tests.support.client import Client, ok
from tests.support.parking import park
from tests.support.waiting import wait_until

RESTARTS = int(os.environ.get("RESTARTS", "2"))
POLLS, PRODUCERS = 200, 20


class Kept:
    """A client with one connection that it keeps for as long as the bridge lets it."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    def drop(self) -> None:
        """Give the connection up."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the answer. Raises OSError, EOFError, TimeoutError: what a client would call an error."""
        async with asyncio.timeout(90):
            if self._reader is None or self._writer is None or self._reader.at_eof():
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._writer.write(
                f"{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {self._key}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].partition("\r")[0])
            answer = await self._reader.readexactly(length)
        if "\r\nconnection: close" in head:
            self.drop()
        return int(head.split()[1]), answer


class Clients:
    """Polls that wait and producers that create, until told to stop; `seen` counts answers and errors."""

    def __init__(self, service: Activated, key: str) -> None:
        self._service = service
        self._key = key
        self._stop = threading.Event()
        self.seen: Counter[str] = Counter()
        self.made: set[str] = set()

    def __enter__(self) -> "Clients":
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        polls = [asyncio.create_task(self._poll(n)) for n in range(POLLS)]
        producers = [asyncio.create_task(self._produce()) for _ in range(PRODUCERS)]
        await asyncio.gather(*producers)
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)

    async def _poll(self, number: int) -> None:
        client = Kept(self._service.port, self._key)
        while True:
            await self._ask("poll", client, "GET", f"/poll?worker_id=w{number}&content_types=idle&wait=60")

    async def _produce(self) -> None:
        client = Kept(self._service.port, self._key)
        source = self._service.files / f"{uuid.uuid4()}.bin"
        source.write_bytes(b"x")
        fields = {"source_file_path": str(source), "content_type": "audio", "ingestion_task_id": "t"}
        while not self._stop.is_set():
            answer = await self._ask("create", client, "POST", "", json.dumps(fields).encode())
            if answer is not None:
                self.made.add(json.loads(answer)["job_id"])
            await asyncio.sleep(random.uniform(0, 0.5))

    async def _ask(self, what: str, client: Kept, method: str, path: str, body: bytes = b"") -> bytes | None:
        try:
            status, answer = await client.ask(method, API_BASE + path, body)
        except (OSError, EOFError, TimeoutError) as error:
            self.seen[f"{what}: {error!r:.100}"] += 1
            client.drop()
            await asyncio.sleep(0.2)
            return None
        self.seen[f"{what}: {status}"] += 1
        return answer if status == 200 else None


@pytest.fixture
def service(servers, new_database, tmp_path):
    """Yield the API on a socket of the test's own, a key for it, and its database."""
    database = new_database()
    given = {"BRIDGE_DATABASE_URL": database, "BRIDGE_REDIS_URL": redis_url(servers), "BRIDGE_API_PROCESSES": "2"}
    activated = Activated(tmp_path, **given, BRIDGE_REDIS_PREFIX="restarts")
    engine = make_engine(load_settings({"BRIDGE_DATABASE_URL": database}))
    with engine.begin() as connection:
        key = keys.create_key(connection, "test", ["admin"])
    yield activated, key, engine
    activated.close()
    engine.dispose()


@pytest.fixture
def redis_of_service(servers):
    with Redis.from_url(redis_url(servers), decode_responses=True) as client:
        yield client


def redis_url(servers) -> str:
    return servers.redis_url.rpartition("/")[0] + "/902"


def by_sigterm(service: Activated) -> None:
    assert service.stop() == 0
    service.start()


def by_sighup(service: Activated) -> None:
    assert service.process is not None
    master = psutil.Process(service.process.pid)
    before = set(master.children())
    master.send_signal(signal.SIGHUP)
    wait_until(lambda: not before & set(master.children()), "the old processes to end")
    assert service.process.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("restart", [by_sigterm, by_sighup])
def test_restarts_under_parked_polls_and_kept_connections_cost_no_client_anything(service, restart):
    activated, key, engine = service
    client = Client(activated.url, key, activated.files)

    def all_parked() -> bool:
        return ok(client.get("statistics"))["parked_polls"] >= POLLS

    activated.start()
    with Clients(activated, key) as clients:
        for _ in range(RESTARTS):
            wait_until(all_parked, "all polls to wait")
            restart(activated)
        wait_until(all_parked, "all polls to wait again")
    print(restart.__name__, RESTARTS, clients.seen)
    assert set(clients.seen) == {"poll: 200", "create: 200"}, clients.seen
    assert clients.seen["poll: 200"] >= RESTARTS * POLLS
    with engine.connect() as connection:
        there = {str(row[0]) for row in connection.exec_driver_sql("SELECT id FROM remote_jobs")}
    assert clients.made == there
    for failure in ("Traceback", "connection_failed", "greenlet_failed"):
        assert failure not in activated.log.read_text()


def test_a_stop_is_heard_by_processes_that_have_just_been_forked(service):
    """They are forked with the master's handlers, which would only note the signal."""
    activated, _, _ = service
    activated.start()
    wait_until(lambda: "Booting worker" in activated.log.read_text(), "a process to begin")
    assert activated.stop() == 0
    log = activated.log.read_text()
    assert log.count("Booting worker") == log.count("Worker exiting"), "one was killed"


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_process_that_still_loads_the_application_ends_as_soon_as_it_is_told(service, tmp_path, told):
    """Else a slow start ends as a kill, when the time for a stop is over."""
    (tmp_path / "flask.py").write_text("import signal\nprint('loading', flush=True)\nwhile True: signal.pause()\n")
    activated, _, _ = service
    activated.settings["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    activated.start()
    wait_until(lambda: activated.log.read_text().count("loading") == 2, "both processes to load")
    assert activated.stop(told) == 0
    log = activated.log.read_text()
    assert log.count("Booting worker") == log.count("Worker exiting") == 2, "one was killed"
    assert "Traceback" not in log


@pytest.mark.slow
def test_a_poll_whose_claim_fails_while_the_process_stops_is_answered(service, redis_of_service):
    activated, key, engine = service
    activated.start()
    client = Client(activated.url, key, activated.files)
    redis_of_service.set("restarts:epoch", "1")  # the mirror is whole; no sweep runs here
    job_id = client.create("video")
    with engine.begin() as blocker:
        blocker.exec_driver_sql("LOCK TABLE remote_jobs IN EXCLUSIVE MODE")  # reads go on, claims wait up to 2 s
        name = next(name for name in redis_of_service.scan_iter(_type="list") if redis_of_service.lrem(name, 0, job_id))
        with park(client, "video") as poll:
            wait_until(lambda: ok(client.get("statistics"))["parked_polls"], "the poll to wait")
            redis_of_service.rpush(name, job_id)
            wait_until(lambda: claiming(engine), "the claim to wait")
            activated.process.send_signal(signal.SIGTERM)
            poll.settimeout(40)
            answer = poll.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200"), answer
            assert b"\r\nConnection: close\r\n" in answer
    assert activated.process.wait(60) == 0
    assert "under way" not in activated.log.read_text()


def test_an_answer_that_ends_the_connection_is_seen_by_a_client_that_still_sends(bridge):
    """Here because the client asks for it; while a process stops, each answer is such a one."""
    size = 8 * 1024 * 1024
    head = f"PUT {API_BASE}/x/result HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", bridge.settings.port), timeout=60) as client:
            client.sendall(head.encode() + b"x" * size)
            assert client.recv(12) == b"HTTP/1.1 401"


def claiming(engine) -> bool:
    """Whether a claim waits for a lock: a poll has been offered a job."""
    waits = text("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%WITH offered%'")
    with engine.connect() as connection:
        return connection.execute(waits).first() is not None
