"""A Redis that is there and refuses is as good as none: jobs go on from PostgreSQL, and health says what that means."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from kombu.exceptions import OperationalError

from bridge import embedded, names
from tests.support.client import ok
from tests.support.parking import parked
from tests.support.running import Running
from tests.support.waiting import wait_until

LATE = 2.0  # seconds to a claim that a parked poll waits for
PATIENCE = 20.0


class Refusing(redis_py.Redis):
    """A client of the Redis that is told to refuse, which knows where its data lie and how others reach it."""

    place: Path
    url: str


@contextmanager
def told(redis: redis_py.Redis, refuse: str, end: str) -> Iterator[None]:
    """Tell it with one command to refuse, and with another that this is over."""
    redis.execute_command(refuse)
    try:
        yield
    finally:
        redis.execute_command(end)


@contextmanager
def no_saving(redis: "Refusing") -> Iterator[None]:
    """MISCONF: its last save to disk failed."""
    (redis.place / "dump.rdb").mkdir()
    redis.config_set("save", "3600 1")
    with suppress(redis_py.RedisError):
        redis.bgsave()
    wait_until(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err", "the save to fail")
    try:
        yield
    finally:
        redis.config_set("save", "")
        (redis.place / "dump.rdb").rmdir()


@contextmanager
def loading(redis: "Refusing") -> Iterator[None]:
    """Make Redis answer LOADING: it reads its data, a tenth of a second for each key."""
    other = redis_py.Redis.from_url(redis.url)
    with other.pipeline() as pipe:
        for number in range(200):
            pipe.set(f"slow:{number}", os.urandom(2000), ex=60)
        pipe.execute()
    redis.config_set("key-load-delay", "100000")

    def reload() -> None:
        with suppress(redis_py.RedisError):  # it answers when all is loaded, later than a client waits
            other.execute_command("DEBUG", "RELOAD")

    reloading = threading.Thread(target=reload, daemon=True)
    reloading.start()

    def refused() -> bool:
        try:
            redis.get("x")
        except redis_py.exceptions.BusyLoadingError:
            return True
        return False

    wait_until(refused, "Redis to be loading")
    yield
    reloading.join(PATIENCE + 20)
    redis.config_set("key-load-delay", "0")
    other.close()


@contextmanager
def another_password(redis: "Refusing") -> Iterator[None]:
    """WRONGPASS to every new connection, and there are no others any more."""
    redis.ping()  # the one connection of this client, which stays
    before = (redis.acl_getuser("default") or {})["passwords"]
    assert isinstance(before, list)
    redis.execute_command("ACL", "SETUSER", "default", "resetpass", ">another")
    try:
        redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        yield
    finally:
        redis.execute_command("ACL", "SETUSER", "default", "resetpass", *(f"#{one}" for one in before))


REFUSALS: dict[str, Callable[[Any], AbstractContextManager[None]]] = {
    "READONLY": lambda redis: told(redis, "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "OOM": lambda redis: told(redis, "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    "NOREPLICAS": lambda redis: told(redis, "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    "MISCONF": no_saving,
    "WRONGPASS": another_password,
    "NOPERM": lambda redis: told(redis, "ACL SETUSER default -@write", "ACL SETUSER default +@write"),
    "NOPERM scripts": lambda redis: told(redis, "ACL SETUSER default -eval", "ACL SETUSER default +eval"),
    "before 6.2": lambda redis: told(redis, "ACL SETUSER default -lmove", "ACL SETUSER default +lmove"),
    "LOADING": loading,
}


def a_bad_queue(redis: redis_py.Redis, name: str) -> AbstractContextManager[None]:
    return told(redis, f"SET {name} x", f"DEL {name}")


@pytest.fixture(scope="module")
def refusing(tmp_path_factory, start_bridge):
    """Yield a bridge whose Redis can be told to refuse, and that Redis."""
    options = {"enable-debug-command": "local", "loading-process-events-interval-bytes": "1024"}
    place = tmp_path_factory.mktemp("refusing")
    servers = embedded.start(place, postgres=False, durable=False, redis_options=options)
    with servers, Refusing.from_url(servers.redis_url) as redis:
        redis.place, redis.url = place / "valkey", servers.redis_url
        bridge = start_bridge(redis_url=servers.redis_url, beat=False, api_processes="1")
        redis.set(f"{bridge.settings.redis_prefix}:epoch", "1")
        yield bridge, redis
        bridge.stop()


def is_away(client) -> bool:
    lines = client.get("/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith("bridge_redis_away ")]
    return float(line.split()[1]) == 1


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.slow
def test_a_redis_that_refuses_is_as_good_as_none_and_health_says_so(refusing, refusal):
    bridge, redis = refusing
    client = bridge.client()
    wait_until(lambda: ok(client.get("/readyz")) == {"status": "ok", "redis": "ok"}, "the bridge to be whole")
    with REFUSALS[refusal](redis):
        assert ok(client.get("/readyz")) == {"status": "degraded", "redis": "away"}
        took = []
        with ThreadPoolExecutor(1) as pool:
            for _ in range(3):
                poll = pool.submit(lambda: (client.claim(wait=30)["job_id"], time.monotonic()))
                wait_until(lambda: parked(client) == 1, "the poll to wait")
                began = time.monotonic()
                job_id = client.create()
                taken, at = poll.result(PATIENCE)
                assert taken == job_id
                took.append(at - began)
        assert max(took) < LATE, took
        at_once = client.create()
        assert client.claim()["job_id"] == at_once
        assert is_away(client), "as long as it refuses"
        assert client.get("/api/v1/workers").status_code == 200
    wait_until(lambda: not is_away(client), "the return to be noticed", PATIENCE)
    assert ok(client.get("/readyz"))["redis"] == "ok"


def test_it_is_told_once_and_by_name(refusing):
    bridge, redis = refusing
    client = bridge.client()
    log = bridge.settings.data_dir / "logs" / "api.log"
    wait_until(lambda: ok(client.get("/readyz"))["redis"] == "ok", "the bridge to be whole")
    before = log.read_text().count("redis_unavailable")
    with REFUSALS["NOREPLICAS"](redis):
        wait_until(lambda: log.read_text().count("redis_unavailable") > before, "the log")
        for _ in range(20):
            client.create()
        assert '"error":"NOREPLICAS"' in log.read_text()
        assert log.read_text().count("redis_unavailable") == before + 1
    wait_until(lambda: not is_away(client), "the return to be noticed", PATIENCE)


@pytest.mark.parametrize("refusal", ["READONLY", "OOM", "WRONGPASS", "a bad queue"])
@pytest.mark.slow
def test_celery_outlives_a_broker_that_refuses(refusing, refusal):
    bridge, redis = refusing
    celery = next(child for child in bridge.stack.family.children if child.name == "celery")
    began = bridge.sql("SELECT clock_timestamp() AS now")[0].now
    wait_until(lambda: works(bridge, began), "Celery to work")
    lost = "Connection to broker lost"
    before = celery.log.read_text().count(lost)
    os.kill(celery.process.pid, signal.SIGSTOP)  # out of memory, Redis refuses Celery only what it has taken
    try:
        bridge.celery.send_task(names.FOLD, queue=names.QUEUE, ignore_result=True)
        refused = ExitStack()
        refused.enter_context(REFUSALS[refusal](redis) if refusal in REFUSALS else a_bad_queue(redis, names.QUEUE))
    finally:
        os.kill(celery.process.pid, signal.SIGCONT)
    with refused:
        wait_until(lambda: celery.log.read_text().count(lost) > before, "Celery to be refused")
        if refusal == "READONLY":  # several tries a second, of which each leaves nothing behind
            tried = redis.info("stats")["total_connections_received"]
            wait_until(lambda: redis.info("stats")["total_connections_received"] > tried + 100, "many tries")
            assert len([*Path(f"/proc/{celery.process.pid}/fd").iterdir()]) < 60
        assert celery.ended() is None
        began = bridge.sql("SELECT clock_timestamp() AS now")[0].now
    wait_until(lambda: works(bridge, began), "Celery to work again")
    assert celery.ended() is None


def works(bridge: Running, since: datetime) -> bool:
    """Whether Celery has run a sweep that was sent to it since then; asks for one."""
    with suppress(OperationalError):  # the pipeline's own connection may have been cut
        bridge.celery.send_task(names.FOLD, queue=names.QUEUE, ignore_result=True)
    return bool(bridge.sql("SELECT FROM sweeps WHERE name = 'fold_counts' AND ran_at > :since", since=since))
