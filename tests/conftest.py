"""What the tests run against.

`servers`: PostgreSQL and Valkey of this session. `runtime`: the core on a database of its own, empty for each test.
`bridge`: a whole bridge (two API processes, Celery worker, beat) for all tests of the session; each test sees only
the tenant that was made for it (`client`). `own_bridge`: one for a test alone, to kill and to set as it likes;
`own_servers`: PostgreSQL or Valkey for a test alone.
"""

import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis as redis_py
from celery import Celery
from sqlalchemy import URL, Engine, create_engine, text

from bridge import embedded
from bridge.admission import keys
from bridge.cli.local.stack import Stack
from bridge.cli.local.supervisor import ending_signals
from bridge.db import make_engine
from bridge.embedded.ports import free_port
from bridge.mirror.lists import Mirror
from bridge.runtime import Runtime
from bridge.settings import Settings, load_settings
from models import migrations
from models.job import metadata
from tests.support.big_table import big_table  # noqa: F401  (a fixture)
from tests.support.client import Client
from tests.support.core import Core
from tests.support.rights import give_rights

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker of pytest-xdist is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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
    """Makes a migrated database and returns its URL; each is a copy of one that was migrated once."""
    server = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
    mine = f"t{uuid.uuid4().hex[:8]}"
    template = servers.database_url.rpartition("/")[0] + f"/{mine}"
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {mine}"))
    engine = create_engine(template)
    migrations.upgrade(engine)
    engine.dispose()

    def make() -> str:
        name = f"{mine}_{next(_numbers)}"
        with server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {mine} STRATEGY FILE_COPY"))
        return servers.database_url.rpartition("/")[0] + f"/{name}"

    return make


@pytest.fixture
def redis(servers: embedded.Servers) -> Iterator["redis_py.Redis"]:
    """A client of the session's Redis."""
    with redis_py.Redis.from_url(servers.redis_url, decode_responses=True) as client:
        yield client


# The core, called directly.


@pytest.fixture(scope="session")
def core_engine(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The engine of the core tests' database, made as the processes make theirs."""
    engine = make_engine(load_settings({"BRIDGE_DATABASE_URL": new_database()}), pool_size=40)
    yield engine
    engine.dispose()


@pytest.fixture
def make_runtime(
    core_engine: Engine, servers: embedded.Servers, redis: "redis_py.Redis", tmp_path: Path
) -> Callable[..., Runtime]:
    """Makes a runtime on the emptied database and mirror: `make_runtime(process="p2", ack_seconds="5")`."""
    _empty(core_engine)
    for key in redis.scan_iter("core:*"):
        redis.delete(key)
    redis.set("core:epoch", "1")
    files = tmp_path / "files"
    files.mkdir()
    nudged: list[str] = []

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
        return Runtime(settings, core_engine, Mirror(servers.redis_url, "core", process), nudged.extend)

    return make


@pytest.fixture
def runtime(make_runtime: Callable[..., Runtime]) -> Runtime:
    """A runtime with the default settings, on an empty database and an empty mirror whose epoch is set."""
    return make_runtime()


def _empty(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE " + ", ".join(table.name for table in metadata.sorted_tables)))


# A whole bridge, asked over HTTP and Celery.


class Running:
    """A running bridge: its address, its settings, its database, and keys for it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.url = stack.url
        self.settings = stack.settings
        self.files = stack.settings.source_roots[0]
        self.engine = make_engine(stack.settings)

    def key(self, tenant: str = "default", scopes: tuple[str, ...] = ("admin",), **options: Any) -> str:
        with self.engine.begin() as connection:
            return keys.create_key(connection, "test", scopes, tenant, **options)

    def client(self, tenant: str | None = None, scopes: tuple[str, ...] = ("admin",), **options: Any) -> Client:
        """A client with a key of its own; of a new tenant unless one is named."""
        tenant = tenant or f"t-{uuid.uuid4().hex[:12]}"
        return Client(self.url, self.key(tenant, scopes, **options), self.files, tenant)

    @cached_property
    def celery(self) -> Celery:
        """A pipeline's Celery application on the bridge's broker; it knows nothing of the bridge but task names."""
        broker = self.settings.require("broker_url")
        app = Celery("a pipeline", broker=broker, backend=broker, set_as_current=False)
        app.conf.update(task_ignore_result=False, task_create_missing_queues=True)
        return app

    def sql(self, statement: str, **parameters: Any) -> list[Any]:
        """Runs SQL beside the service, as time and accidents would: `sql("UPDATE …", id=…)`."""
        with self.engine.begin() as connection:
            done = connection.execute(text(statement), parameters)
            return list(done) if done.returns_rows else []


@pytest.fixture(scope="session")
def start_bridge(
    servers: embedded.Servers, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Running]]:
    """Starts a whole bridge on a new database: `start_bridge(ack_seconds="2")`; stopped after the session."""
    running: list[Running] = []

    def start(*, beat: bool = True, celery: bool = True, **changes: str) -> Running:
        number = next(_numbers)
        settings = {
            "BRIDGE_DATABASE_URL": new_database(),
            "BRIDGE_REDIS_URL": servers.redis_url.rpartition("/")[0] + f"/{number}",
            "BRIDGE_DATA_DIR": str(tmp_path_factory.mktemp(f"bridge-{number}")),
            "BRIDGE_PORT": str(free_port()),
            "BRIDGE_API_PROCESSES": "2",
            "BRIDGE_REDIS_PREFIX": f"bridge{number}",
            "BRIDGE_LOG_FORMAT": "json",
            "BRIDGE_FAST_ROUTES": os.environ.get("BRIDGE_FAST_ROUTES", "on"),  # `make flask`
            **{f"BRIDGE_{name.upper()}": value for name, value in changes.items()},
        }
        stack = Stack(settings, throw_away=True)
        bridge = Running(stack)
        running.append(bridge)
        stack.start_processes(celery=celery, beat=beat)
        with ending_signals() as signals:
            assert stack.await_api(signals), "interrupted"
        return bridge

    yield start
    for bridge in running:
        bridge.engine.dispose()
        bridge.stack.stop()


@pytest.fixture(scope="session")
def bridge(start_bridge: Callable[..., Running]) -> Running:
    """The bridge that the tests share; its continuation goes to a queue that nobody reads."""
    return start_bridge(continuation_task="pipeline.receive", continuation_queue="nobody")


@pytest.fixture
def client(bridge: Running) -> Client:
    """A client with an admin key of a tenant made for this test."""
    return bridge.client()


@pytest.fixture
def own_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., embedded.Servers]]:
    """Starts servers for this test alone, to stop, to kill and to empty: `own_servers(postgres=False)`."""
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
    """Starts a bridge for this test alone, stopped with it, and before servers of the test's own."""
    mine: list[Running] = []

    def start(**options: Any) -> Running:
        mine.append(start_bridge(**options))
        return mine[-1]

    yield start
    for bridge in mine:
        bridge.stack.stop()


def terminate_backends(url: str) -> None:
    """Cuts every connection to a database, as a restart of PostgreSQL would."""
    with psycopg2.connect(url.replace("+psycopg2", "")) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@contextmanager
def no_connections(url: URL) -> Iterator[None]:
    """The database takes no connections and has none: to its clients PostgreSQL is away."""
    admin = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:

        def allow(word: str) -> None:
            connection.exec_driver_sql(f'ALTER DATABASE "{url.database}" WITH ALLOW_CONNECTIONS {word}')

        allow("false")
        try:
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %(name)s"
            connection.exec_driver_sql(query, {"name": url.database})
            yield
        finally:
            allow("true")
    admin.dispose()


@pytest.fixture
def core(runtime: Runtime) -> Core:
    """The core's verbs on the empty database."""
    return Core(runtime)
