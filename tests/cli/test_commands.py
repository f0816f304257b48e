"""The commands for production: db, keys, and one process each for api, celery, beat and flower."""

import re
import signal
from pathlib import Path

import pytest
import requests
from sqlalchemy import create_engine, text

from bridge import names
from bridge.embedded.ports import free_port
from tests.support.client import Client
from tests.support.command import Started, jobbridge, refusal
from tests.support.waiting import wait_until


@pytest.fixture
def empty_database(servers):
    """The URL of a database without any schema."""
    server = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
    name = f"empty_{free_port()}"
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield servers.database_url.rpartition("/")[0] + f"/{name}"
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture
def run(tmp_path):
    """Runs a command with these settings in a directory that holds nothing."""

    def begin(*arguments, **settings):
        return jobbridge(*arguments, cwd=tmp_path, **settings)

    return begin


def said(done) -> str:
    """What a command that went well printed."""
    assert done.returncode == 0, done.stderr
    return done.stdout


# db


def test_the_schema_goes_up_and_down_and_says_where_it_is(run, empty_database):
    url = {"BRIDGE_DATABASE_URL": empty_database}
    assert said(run("db", "current", **url)) == "empty\n"
    newest = said(run("db", "upgrade", **url))
    assert re.fullmatch(r"\d{4}\n", newest)
    assert said(run("db", "current", **url)) == newest
    assert said(run("db", "upgrade", **url)) == newest  # again is well
    assert said(run("db", "downgrade", "base", **url)) == "empty\n"
    assert said(run("db", "current", **url)) == "empty\n"
    with create_engine(empty_database).connect() as connection:
        left = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars().all()
    assert left == ["alembic_version"]


@pytest.mark.parametrize("which", ["upgrade", "downgrade"])
def test_a_revision_that_does_not_exist_is_one_line(run, empty_database, which):
    line = refusal(run("db", which, "nosuch", BRIDGE_DATABASE_URL=empty_database))
    assert "revision nosuch: " in line


def test_downgrade_wants_to_be_told_how_far(run, empty_database):
    done = run("db", "downgrade", BRIDGE_DATABASE_URL=empty_database)
    assert done.returncode == 2
    assert "REVISION" in done.stderr


@pytest.mark.parametrize(
    "command", [("db", "current"), ("db", "upgrade"), ("keys", "list"), ("keys", "revoke", "jb_1")]
)
def test_a_database_that_does_not_answer_is_one_line_without_the_password(run, command):
    line = refusal(run(*command, BRIDGE_DATABASE_URL="postgresql://user:a-password@127.0.0.1:1/x"))
    assert line.startswith("jobbridge: PostgreSQL cannot be used: ")
    assert "a-password" not in line


def test_a_database_without_a_schema_says_what_to_do(run, empty_database):
    line = refusal(run("keys", "list", BRIDGE_DATABASE_URL=empty_database))
    assert line == "jobbridge: the database's schema is missing or old: run `jobbridge db upgrade`"


def test_without_any_database_the_two_ways_are_named(run, tmp_path):
    line = refusal(run("keys", "list"))
    assert line == (
        f"jobbridge: BRIDGE_DATABASE_URL is not set, and {tmp_path / '.bridge'} holds no database: set it, or start"
        " `jobbridge up` in this directory first"
    )


# keys


@pytest.fixture
def keys(run, bridge):
    """Runs `jobbridge keys …` on the shared bridge's database."""

    def begin(*arguments):
        return run("keys", *arguments, BRIDGE_DATABASE_URL=bridge.settings.require("database_url"))

    return begin


def test_a_key_is_printed_alone_and_works_at_once_and_not_after_its_revocation(keys, bridge, tmp_path):
    key = said(keys("create", "pipeline", "--scopes", "submit,read", "--tenant", "press")).strip()
    assert re.fullmatch(r"jb_[0-9a-f]{8}_[\w-]{43}", key)
    client = Client(bridge.url, key, bridge.files, "press")
    assert client.create()
    assert client.poll().status_code == 403

    prefix = key.rpartition("_")[0] if key.count("_") == 2 else "_".join(key.split("_")[:2])
    listed = next(line for line in said(keys("list")).splitlines() if prefix in line)
    assert listed.split() == [prefix, "pipeline", "press", "read,submit", "all", "–", *listed.split()[6:-1], "valid"]
    assert key not in said(keys("list"))

    assert said(keys("revoke", prefix)) == "1 key revoked\n"
    wait_until(lambda: client.get("").status_code == 401, "the revocation to be felt", 10)
    assert f"{prefix} pipeline" in said(keys("list"))
    assert next(line for line in said(keys("list")).splitlines() if prefix in line).endswith("revoked by command")
    assert refusal(keys("revoke", prefix), 1) == f"jobbridge: no valid key has the prefix {prefix}"


def test_a_key_may_be_limited_to_types_and_to_a_time(keys, bridge):
    arguments = ["--scopes", "work", "--content-types", "audio, video", "--expires", "2999-12-31"]
    key = said(keys("create", "gpu 1", *arguments)).strip()
    prefix = "_".join(key.split("_")[:2])
    listed = next(line for line in said(keys("list")).splitlines() if prefix in line)
    assert "audio,video" in listed
    assert "2999-12-31 00:00" in listed
    client = Client(bridge.url, key, bridge.files)
    assert client.poll("document").status_code == 403
    assert client.poll("audio,document").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--scopes", "submit,write"], "scopes must be some of submit, work, read, admin"),
        (["--scopes", ""], "scopes must be some of submit, work, read, admin"),
        (["--scopes", "read", "--tenant", "A B"], "the tenant must be 1 to 50 characters of a-z 0-9 . _ -"),
        (["--scopes", "read", "--content-types", ""], "the list of content types is empty; leave it out to allow all"),
        (["--scopes", "read", "--content-types", "Audio"], "content type 'Audio' must be 1 to 50 characters"),
        (["--scopes", "read", "--expires", "soon"], "--expires soon: write 2027-01-31 or"),
        (["--scopes", "read", "--expires", "2001-01-01"], "--expires is in the past"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused_in_one_line(keys, arguments, line):
    assert line in refusal(keys("create", "x", *arguments))


def test_a_forgotten_option_is_named(keys):
    done = keys("create", "x")
    assert done.returncode == 2
    assert "--scopes" in done.stderr
    assert "Traceback" not in done.stderr


# One process each.


@pytest.fixture
def begin(tmp_path):
    """Starts a command of these servers; killed with the test."""
    started = []

    def start(*arguments, **settings):
        started.append(Started(*arguments, cwd=tmp_path, **settings))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def production(servers, new_database, tmp_path):
    """The settings of an installation with servers of its own, in a `.env` file, as one would write it."""
    settings = {
        "BRIDGE_DATABASE_URL": new_database().replace("+psycopg2", ""),
        "BRIDGE_REDIS_URL": servers.redis_url.rpartition("/")[0] + "/901",
        "BRIDGE_PORT": str(free_port()),
        "BRIDGE_API_PROCESSES": "1",
        "BRIDGE_BOOTSTRAP_KEY": "a-key-for-containers-of-32-characters",
        "BRIDGE_DATA_DIR": "data",
    }
    lines = [f"{name}={value}\n" for name, value in settings.items()]
    (tmp_path / ".env").write_text("".join(lines) + "SOMEBODY_ELSES=line\n")
    return settings


def api_client(settings, tmp_path) -> Client:
    (tmp_path / "data" / "files").mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{settings['BRIDGE_PORT']}"
    return Client(url, settings["BRIDGE_BOOTSTRAP_KEY"], tmp_path / "data" / "files")


def answers(client) -> bool:
    try:
        return client.get("/readyz", timeout=5).status_code == 200
    except (requests.ConnectionError, requests.Timeout):
        return False


@pytest.mark.slow
def test_api_celery_and_beat_are_a_bridge_and_stop_at_sigterm(begin, production, tmp_path):
    client = api_client(production, tmp_path)
    processes = [begin(name) for name in ("api", "celery", "beat")]
    api = processes[0]
    wait_until(lambda: answers(client), "the API")
    job_id = client.create(available_at="2999-01-01T00:00:00+00:00")
    engine = create_engine(production["BRIDGE_DATABASE_URL"].replace("postgresql:", "postgresql+psycopg2:"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE remote_jobs SET available_at = now(), timeout_at = now() + interval '1 h'"))
    engine.dispose()
    assert client.claim()["job_id"] == job_id  # released by Celery, sent by beat
    for process in processes:
        process.family()
    assert [process.ends(signal.SIGTERM) for process in reversed(processes)] == [0, 0, 0]
    assert [process.left() for process in processes] == [[], [], []]
    assert "Traceback" not in api.text


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("api", "BRIDGE_DATABASE_URL is not set"),
        ("celery", "BRIDGE_DATABASE_URL is not set"),
        ("beat", "BRIDGE_BROKER_URL is not set"),
        ("flower", "BRIDGE_BROKER_URL is not set"),
    ],
)
def test_a_process_that_lacks_a_setting_names_it_and_does_not_start(run, command, line):
    assert line in refusal(run(command))


def test_a_modules_name_that_is_taken_in_the_current_directory_does_no_harm(begin, production, tmp_path):
    for name in ("tasks.py", "models.py", "api.py", "celeryconfig.py"):
        (tmp_path / name).write_text("raise SystemExit('somebody else')\n")
    client = api_client(production, tmp_path)
    begin("api")
    worker = begin("celery")
    wait_until(lambda: answers(client), "the API")
    worker.says("ready", 60)


def test_without_keys_the_api_does_not_listen_beyond_loopback(run, production):
    done = run("api", BRIDGE_AUTH="off", BRIDGE_HOST="0.0.0.0", BRIDGE_BOOTSTRAP_KEY="")
    assert done.returncode != 0
    assert "BRIDGE_AUTH=off lets anybody in, so BRIDGE_HOST must be a loopback address" in done.stderr
    assert "Traceback" not in done.stderr


# Flower.


@pytest.fixture
def flower(begin, production):
    """Flower on a free port beside a Celery worker: its process, its address, what it logs in with."""
    port = free_port()
    begin("celery", BRIDGE_REMOTE_CONTROL="on").says("ready", 60)
    process = begin("flower", "--port", str(port))
    text = process.says("log in as ")
    told = re.search(r"log in as (\S+)", text)
    assert told, text
    login = re.fullmatch(r"(\S+):(\S+)\n", Path(told.group(1)).read_text())  # no terminal: it is told where it is
    assert login
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: _status(url) == 401, "Flower")
    return process, url, (login.group(1), login.group(2))


def _status(url, **options) -> int:
    try:
        return requests.get(url, timeout=5, **options).status_code
    except requests.ConnectionError:
        return 0


@pytest.mark.slow
def test_flower_shows_worker_and_tasks_by_name_to_those_who_log_in_and_changes_nothing(
    flower, servers, production, tmp_path
):
    from celery import Celery

    _, url, login = flower
    for page in ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks"):
        assert _status(url + page) == 401
        assert _status(url + page, auth=("bridge", "wrong")) == 401
    app = Celery("test", broker=production["BRIDGE_REDIS_URL"], set_as_current=False)
    for _ in range(2):
        app.send_task(names.EXPIRE, queue=names.QUEUE, ignore_result=True)

    def seen():
        tasks = requests.get(f"{url}/api/tasks", auth=login, timeout=10).json()
        return {task["name"] for task in tasks.values() if task["state"] == "SUCCESS"}

    wait_until(lambda: names.EXPIRE in seen(), "Flower to hear of the task")
    page = requests.get(f"{url}/workers", auth=login, timeout=10).text
    worker = re.search(r"bridge@[\w.-]+", page)
    assert worker, page
    wait_until(
        lambda: names.EXPIRE in requests.get(f"{url}/worker/{worker.group()}", auth=login, timeout=10).text, "it"
    )

    changes = [
        f"/api/worker/shutdown/{worker.group()}",
        f"/api/worker/pool/restart/{worker.group()}",
        f"/api/worker/queue/cancel-consumer/{worker.group()}?queue=bridge",
        f"/api/task/async-apply/{names.PURGE}",
        f"/api/task/send-task/{names.PURGE}",
        "/api/task/revoke/some-id",
    ]
    for change in changes:
        answer = requests.post(url + change, auth=login, json={}, timeout=10)
        assert (answer.status_code, answer.text) == (403, "Read only mode is enabled"), change
    app.send_task(names.RELEASE_DUE, queue=names.QUEUE, ignore_result=True)
    wait_until(lambda: names.RELEASE_DUE in seen(), "the worker, which still consumes")
    assert names.PURGE not in seen()


def test_flower_does_not_listen_beyond_loopback_without_chosen_credentials(run, production):
    line = refusal(run("flower", "--address", "0.0.0.0"))
    assert "FLOWER_BASIC_AUTH" in line


@pytest.mark.slow
def test_flower_takes_chosen_credentials(begin, production):
    port = free_port()
    process = begin("flower", "--port", str(port), FLOWER_BASIC_AUTH="me:and-mine")
    url = f"http://127.0.0.1:{port}/workers"
    wait_until(lambda: _status(url) == 401, "Flower")
    assert _status(url, auth=("me", "and-mine")) == 200
    assert "log in as" not in process.text
    assert "and-mine" not in process.text
    process.family()
    assert process.ends(signal.SIGTERM) == 0
    assert process.left() == []
