"""What the tests run against.

`servers`: PostgreSQL and Valkey of this session. `runtime`: the core on a database of its own, empty for each test.
`bridge`: a whole bridge (two API processes, Celery worker, beat) for all tests of the session; each test sees only
the tenant that was made for it (`client`). `own_bridge`: one for a test alone, to kill and to set as it likes;
`own_servers`: PostgreSQL or Valkey for a test alone.
"""

import os
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
import redis as redis_py
from sqlalchemy import Engine, create_engine, text

from bridge import embedded
from bridge.db import make_engine
from bridge.mirror.lists import Mirror
from bridge.runtime import Runtime
from bridge.settings import Settings, load_settings
from models import migrations
from models.job import metadata
from tests.support.big_table import big_table  # noqa: F401  (a fixture)
from tests.support.client import Client, ok
from tests.support.core import Core
from tests.support.rights import give_rights
from tests.support.running import Running, bridges, numbers


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that no worker of pytest-xdist is left alone with one at the end.

    For these workers the files of all folders are mixed: the tests of one folder compute, those of another wait, and
    both cores are busy only where some of each run at a time.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    mixed = hasattr(config, "workerinput")
    items.sort(key=lambda item: (item.path not in slow, zlib.crc32(item.path.name.encode()) if mixed else 0))


SHARED: list[embedded.Servers] = []  # servers that somebody started before the session (tests/system/drop_guards.py)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Servers]:
    """PostgreSQL and Valkey, whose data nobody will miss."""
    os.environ.pop("BRIDGE_DATABASE_URL", None)
    os.environ.pop("BRIDGE_REDIS_URL", None)
    if SHARED:
        yield SHARED[0]
        return
    many = {"databases": "1000"}  # one for each bridge of the session
    with embedded.start(tmp_path_factory.mktemp("servers"), durable=False, redis_options=many) as running:
        give_rights(running)
        yield running


@pytest.fixture(scope="session")
def new_database(servers: embedded.Servers) -> Callable[[], str]:
    """Return a function that makes a migrated database and gives its URL; each is a copy of one migrated once."""
    server = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
    mine = f"t{uuid.uuid4().hex[:8]}"
    template = servers.database_url.rpartition("/")[0] + f"/{mine}"
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {mine}"))
    engine = create_engine(template)
    migrations.upgrade(engine)
    engine.dispose()

    def make() -> str:
        name = f"{mine}_{next(numbers)}"
        with server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {mine} STRATEGY FILE_COPY"))
        return servers.database_url.rpartition("/")[0] + f"/{name}"

    return make


@pytest.fixture
def redis(servers: embedded.Servers) -> Iterator["redis_py.Redis"]:
    """Yield a client of the session's Redis."""
    with redis_py.Redis.from_url(servers.redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture(autouse=True)
def background_ends_with_its_test() -> Iterator[None]:
    """Stop the greenlets of an application that a test makes in this process: they would run on in later tests."""
    mine: list[gevent.Greenlet] = []
    gevent.Greenlet.add_spawn_callback(mine.append)
    yield
    gevent.Greenlet.remove_spawn_callback(mine.append)
    here = gevent.get_hub()
    gevent.killall([one for one in mine if one.parent is here], timeout=30)


# The core, called directly.


@pytest.fixture(scope="session")
def core_engine(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Yield the engine of the core tests' database, made as the processes make theirs."""
    engine = make_engine(load_settings({"BRIDGE_DATABASE_URL": new_database()}), pool_size=40)
    yield engine
    engine.dispose()


class Nudged(list[str]):
    """The jobs for which a nudge was asked."""

    def __call__(self, job_ids: list[str]) -> None:
        self.extend(job_ids)


@pytest.fixture
def make_runtime(
    core_engine: Engine, servers: embedded.Servers, redis: "redis_py.Redis", tmp_path: Path
) -> Callable[..., Runtime]:
    """Return a function that makes a runtime on emptied servers: `make_runtime(process="p2", ack_seconds="5")`."""
    _empty(core_engine)
    for key in redis.scan_iter("core:*"):
        redis.delete(key)
    redis.set("core:epoch", "1")
    files = tmp_path / "files"
    files.mkdir()

    def make(process: str = "p1", **changes: str) -> Runtime:
        given = {f"BRIDGE_{name.upper()}": value for name, value in changes.items()}
        settings: Settings = load_settings(
            {
                "BRIDGE_DATABASE_URL": "postgresql://unused",
                "BRIDGE_REDIS_URL": servers.redis_url,
                "BRIDGE_SOURCE_ROOTS": str(files),
                "BRIDGE_CONTINUATION_TASK": "pipeline.receive",
                **given,
            }
        )
        return Runtime(settings, core_engine, Mirror(servers.redis_url, "core", process), Nudged())

    return make


@pytest.fixture
def runtime(make_runtime: Callable[..., Runtime]) -> Runtime:
    """Return a runtime with the default settings, on an empty database and an empty mirror whose epoch is set."""
    return make_runtime()


def _empty(engine: Engine) -> None:
    """TRUNCATE makes files anew, those of each index too: of all tables together that takes longer than most tests."""
    looks = " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT FROM {name})" for name in metadata.tables)
    with engine.begin() as connection:
        if filled := connection.scalars(text(looks)).all():
            connection.execute(text("TRUNCATE " + ", ".join(filled) + " CASCADE"))


# A whole bridge, asked over HTTP and Celery.


@pytest.fixture(scope="module")
def start_bridge(
    servers: embedded.Servers, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Running]]:
    """Yield a function that starts a whole bridge on a new database; each is stopped after the tests of the file."""
    with bridges(servers, new_database, tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="session")
def bridge(
    servers: embedded.Servers, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """Yield the bridge that the tests share; its continuation goes to a queue that nobody reads."""
    with bridges(servers, new_database, tmp_path_factory) as start:
        yield start(api_processes="2", continuation_task="pipeline.receive", continuation_queue="nobody")


@pytest.fixture
def client(bridge: Running) -> Client:
    """Return a client with an admin key of a tenant made for this test."""
    return bridge.client()


@pytest.fixture(scope="session")
def document(bridge: Running) -> dict[str, Any]:
    """Return the OpenAPI document."""
    return ok(bridge.client().get("/openapi.json"))


@pytest.fixture(scope="session")
def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return each operation of the OpenAPI document by its method and path."""
    from api.http.openapi import operations

    return {(method.upper(), path): operation for path, method, operation in operations(document)}


@pytest.fixture
def worker(bridge: Running, client: Client) -> Client:
    """Return a client with another key of that tenant, which may only work."""
    return bridge.client(client.tenant, ("work",))


@pytest.fixture
def job(client: Client) -> dict[str, Any]:
    """Return a job in the hands of a worker of the client's key."""
    return client.held()


@pytest.fixture
def own_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., embedded.Servers]]:
    """Yield a function that starts servers for this test alone, to stop, kill and empty."""
    mine: list[embedded.Servers] = []

    def start(**options: Any) -> embedded.Servers:
        mine.append(embedded.start(tmp_path_factory.mktemp("own-servers"), durable=False, **options))
        return mine[-1]

    yield start
    for running in mine:
        running.stop()


@pytest.fixture
def own_bridge(
    start_bridge: Callable[..., Running], own_servers: Callable[..., embedded.Servers]
) -> Iterator[Callable[..., Running]]:
    """Yield a function that starts a bridge for this test alone; it is stopped before the test's own servers."""
    mine: list[Running] = []

    def start(**options: Any) -> Running:
        mine.append(start_bridge(**options))
        return mine[-1]

    yield start
    for bridge in mine:
        bridge.stop()


@pytest.fixture
def core(runtime: Runtime) -> Core:
    """Return the core's verbs on the empty database."""
    return Core(runtime)
