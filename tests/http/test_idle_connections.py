"""Connections that something cut while they lay idle: nobody who asks next may notice."""

from concurrent.futures import ThreadPoolExecutor
from select import select
from threading import Barrier

import pytest
from redis import Redis
from sqlalchemy import event, text

from bridge import names
from bridge.db import make_engine
from bridge.settings import load_settings
from tests.support.client import ok
from tests.support.cut_off import terminate_backends
from tests.support.waiting import LATEST, wait_until


@pytest.fixture
def pool(new_database):
    """Yield an engine with eight connections at rest, and its URL; `made` are the connections that it made."""
    url = new_database()
    engine = make_engine(load_settings({"BRIDGE_DATABASE_URL": url}))
    made: list[object] = []
    event.listen(engine, "connect", lambda connection, _: made.append(connection))
    all_at_once(engine)
    assert len(made) == 8
    yield engine, url, made
    engine.dispose()


def ask(engine, barrier=None):
    with engine.connect() as connection:
        if barrier:
            barrier.wait(20)
        return connection.execute(text("SELECT 1")).scalar_one()


def all_at_once(engine):
    """Use eight connections at the same time."""
    barrier = Barrier(8)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: ask(engine, barrier), range(8))) == [1] * 8


MINE = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'bridge'")


@pytest.fixture
def all_are_gone(pool):
    """Yield a function that waits until the server has none of the engine's connections left."""
    watch = make_engine(load_settings({"BRIDGE_DATABASE_URL": pool[1]}), pool_size=1, name="watch")

    def gone() -> bool:
        with watch.connect() as connection:
            return connection.execute(MINE).scalar_one() == 0

    yield lambda: wait_until(gone, "the server to have cut what lies idle")
    watch.dispose()


def test_a_cut_connection_is_replaced_before_it_is_used_and_all_of_its_age_with_it(pool, all_are_gone):
    engine, url, made = pool
    terminate_backends(url)
    all_are_gone()
    all_at_once(engine)
    assert len(made) == 16
    assert len({connection.info.backend_pid for connection in made[8:]}) == 8


def test_connections_that_the_server_cuts_by_idle_session_timeout_are_replaced(pool, all_are_gone):
    engine, url, made = pool
    with engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {engine.url.database} SET idle_session_timeout = '1s'"))
    terminate_backends(url)
    all_are_gone()
    for _ in range(2):
        all_at_once(engine)
        all_are_gone()
    assert ask(engine) == 1
    assert len(made) > 8 + 2 * 8


def test_what_is_busy_pays_no_ping(pool):
    engine, _, made = pool
    seen = text("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")

    def commits() -> int:
        """Return the number of commits: a ping is a transaction that commits; what `ask` does is rolled back."""
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_stat_force_next_flush()"))
        with engine.connect() as connection:
            return connection.execute(seen).scalar_one()

    before = commits()
    for _ in range(300):
        ask(engine)
    assert commits() - before < 100
    assert len(made) == 8


def test_what_the_server_says_unasked_is_no_goodbye(pool):
    """The connection is asked, lives, and is kept."""
    engine, _, made = pool
    with engine.begin() as connection:
        connection.execute(text("LISTEN something"))
    with engine.begin() as one, engine.begin() as connection:  # the first is the one that listens
        assert one.connection.driver_connection is not connection.connection.driver_connection
        connection.execute(text("NOTIFY something"))
    assert wait_until(lambda: select([one.fileno() for one in made], [], [], 0)[0], "it to be told")
    all_at_once(engine)
    assert len(made) == 8


@pytest.fixture
def quiet_bridge(own_servers, own_bridge):
    """Yield a bridge on its own Redis, whose outcomes go to a queue that nobody reads, and a client of that Redis."""
    redis_url = own_servers(postgres=False).redis_url
    given = {"continuation_task": "pipeline.receive", "continuation_queue": "outcomes"}
    bridge = own_bridge(redis_url=redis_url, api_processes="1", beat=False, **given)
    with Redis.from_url(redis_url, decode_responses=True) as redis:
        yield bridge, redis


def cut_all(bridge, redis) -> None:
    """Cut the connections to PostgreSQL and Redis on which nobody waits for an answer.

    Celery's have rested for a moment: between two statements of a sweep that commit themselves one is idle as well.
    """
    ours = "FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ 'bridge-(api|celery)'"
    rests = "state = 'idle' AND (application_name ~ 'api' OR state_change < clock_timestamp() - interval '0.2 s')"
    pids = [row.pid for row in bridge.sql(f"SELECT pid, pg_terminate_backend(pid) {ours} AND {rests}")]
    wait_until(lambda: not bridge.sql(f"SELECT pid {ours} AND pid = ANY(:pids)", pids=pids), "their end")
    for one in redis.client_list():
        if "b" not in one["flags"] and one["id"] != str(redis.client_id()):
            redis.client_kill_filter(_id=one["id"])


def test_nobody_notices_that_idle_connections_were_cut(quiet_bridge):
    """Neither requests (both pools of the API) nor Celery; nor is a nudge lost or Redis taken for gone."""
    bridge, redis = quiet_bridge
    client = bridge.client()
    celery = next(child for child in bridge.stack.family.children if child.name == "celery")
    for turn in range(1, 6):
        job = client.fields()
        sent = bridge.celery.send_task(names.ENQUEUE, kwargs={**job, "tenant": client.tenant}, queue=names.QUEUE)
        assert sent.get(timeout=LATEST)["job_id"] == client.claim()["job_id"]
        assert ok(client.result(client.held("document")))["status"] == "completed"
        wait_until(lambda turn=turn: redis.llen("outcomes") == turn, "the outcome, by its nudge alone")
        cut_all(bridge, redis)
    assert "OperationalError" not in celery.log.read_text()
