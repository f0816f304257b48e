"""A Redis that is there and refuses is as good as none: jobs go on from PostgreSQL, and health says what that means."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import pytest
import redis as redis_py
from kombu.exceptions import OperationalError
from prometheus_client.parser import text_string_to_metric_families

from bridge import embedded, names
from tests.support.client import ok
from tests.support.running import Running
from tests.support.waiting import wait_until

LATE = 2.0  # seconds to a claim that a parked poll waits for
PATIENCE = 20.0


class Refusing(redis_py.Redis):
    """A client of the Redis that is told to refuse, which knows where its data lie and how others reach it."""

    place: Path
    url: str


@contextmanager
def configured(redis: "Refusing", name: str, value: str, usual: str) -> Iterator[None]:
    redis.config_set(name, value)
    try:
        yield
    finally:
        redis.config_set(name, usual)


@contextmanager
def a_replica(redis: "Refusing") -> Iterator[None]:
    redis.replicaof("127.0.0.1", "1")
    try:
        yield
    finally:
        redis.replicaof("NO", "ONE")


@contextmanager
def without(redis: "Refusing", command: str) -> Iterator[None]:
    redis.execute_command("ACL", "SETUSER", "default", f"-{command}")
    try:
        yield
    finally:
        redis.execute_command("ACL", "SETUSER", "default", f"+{command}")


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


REFUSALS: dict[str, Callable[["Refusing"], AbstractContextManager[None]]] = {
    "READONLY": a_replica,
    "OOM": lambda redis: configured(redis, "maxmemory", "1", "0"),
    "NOREPLICAS": lambda redis: configured(redis, "min-replicas-to-write", "1", "0"),
    "MISCONF": no_saving,
    "WRONGPASS": another_password,
    "NOPERM": lambda redis: without(redis, "@write"),
    "NOPERM scripts": lambda redis: without(redis, "eval"),
    "before 6.2": lambda redis: without(redis, "lmove"),
    "LOADING": loading,
}


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


def gauge(client, name: str) -> float:
    samples = (s for f in text_string_to_metric_families(client.get("/metrics").text) for s in f.samples)
    return next(sample.value for sample in samples if sample.name == name)


def is_away(client) -> bool:
    return gauge(client, "bridge_redis_away") == 1


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.slow
def test_a_redis_that_refuses_is_as_good_as_none_and_health_says_so(refusing, refusal):
    bridge, redis = refusing
    client = bridge.client()
    wait_until(lambda: ok(client.get("/readyz")) == {"status": "ok", "redis": "ok"}, "the bridge to be whole")
    with REFUSALS[refusal](redis):
        assert ok(client.get("/readyz")) == {"status": "degraded", "redis": "away"}
        took = []
        for _ in range(3):
            claimed: list[tuple[str, float]] = []
            poll = threading.Thread(
                target=lambda got=claimed: got.append((client.claim(wait=30)["job_id"], time.monotonic()))
            )
            poll.start()
            wait_until(lambda: gauge(client, "bridge_parked_polls") == 1, "the poll to wait")
            began = time.monotonic()
            job_id = client.create()
            poll.join(PATIENCE)
            assert [taken for taken, _ in claimed] == [job_id]
            took.append(claimed[0][1] - began)
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
    for _ in range(500 if refusal == "OOM" else 1):  # out of memory, Redis refuses Celery only what it has taken
        bridge.celery.send_task(names.FOLD, queue=names.QUEUE, ignore_result=True)
    with REFUSALS[refusal](redis) if refusal in REFUSALS else a_bad_queue(redis):
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


@contextmanager
def a_bad_queue(redis: "Refusing") -> Iterator[None]:
    redis.delete(names.QUEUE)
    redis.set(names.QUEUE, "x")
    yield
    redis.delete(names.QUEUE)
