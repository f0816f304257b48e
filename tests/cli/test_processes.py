"""The commands for production, one process each: api, celery, beat and flower."""

import re
import signal
import uuid
from pathlib import Path

import pytest
import requests
from sqlalchemy import create_engine, text

from bridge import names
from bridge.embedded.ports import free_port
from tests.support.client import Client, status_of
from tests.support.command import refusal
from tests.support.waiting import wait_until


@pytest.fixture
def settings():
    return {}


@pytest.fixture
def production(servers, new_database, tmp_path):
    """Return the settings of an installation with servers of its own, in a `.env` file, as one would write it."""
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


@pytest.mark.slow
def test_api_celery_and_beat_are_a_bridge_and_stop_at_sigterm(begin, production, tmp_path):
    """Modules of the same names in the current directory do no harm."""
    for name in ("tasks.py", "models.py", "api.py", "celeryconfig.py"):
        (tmp_path / name).write_text("raise SystemExit('somebody else')\n")
    (tmp_path / "data" / "files").mkdir(parents=True)
    url = f"http://127.0.0.1:{production['BRIDGE_PORT']}"
    client = Client(url, production["BRIDGE_BOOTSTRAP_KEY"], tmp_path / "data" / "files")
    processes = [begin(name) for name in ("api", "celery", "beat")]
    api = processes[0]
    wait_until(lambda: status_of(f"{url}/readyz") == 200, "the API")
    job_id = client.create(available_at="2999-01-01T00:00:00+00:00")
    engine = create_engine(production["BRIDGE_DATABASE_URL"].replace("postgresql:", "postgresql+psycopg2:"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE remote_jobs SET available_at = now(), timeout_at = now() + interval '1 h'"))
    engine.dispose()
    assert client.claim()["job_id"] == job_id  # released by Celery, sent by beat
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


def test_without_keys_the_api_does_not_listen_beyond_loopback(run, production):
    done = run("api", BRIDGE_AUTH="off", BRIDGE_HOST="0.0.0.0", BRIDGE_BOOTSTRAP_KEY="")
    assert done.returncode != 0
    assert "BRIDGE_AUTH=off lets anybody in, so BRIDGE_HOST must be a loopback address" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def flower(begin, production):
    """Flower on a free port beside a Celery worker: its process, its address, what it logs in with."""
    port = free_port()
    begin("celery", BRIDGE_REMOTE_CONTROL="on").says("ready")
    pipeline = {"BRIDGE_CONTINUATION_TASK": "pipeline.receive", "BRIDGE_CONTINUATION_QUEUE": "ingestion"}
    process = begin("flower", "--port", str(port), **pipeline)
    text = process.says("log in as ")
    told = re.search(r"log in as (\S+)", text)
    assert told, text
    login = re.fullmatch(r"(\S+):(\S+)\n", Path(told.group(1)).read_text())  # no terminal: it is told where it is
    assert login
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: status_of(url) == 401, "Flower")
    return process, url, (login.group(1), login.group(2))


@pytest.mark.slow
def test_flower_shows_worker_and_tasks_by_name_to_those_who_log_in_and_changes_nothing(
    flower, servers, production, tmp_path
):
    from celery import Celery

    _, url, login = flower
    for page in ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks"):
        assert status_of(url + page) == 401
        assert status_of(url + page, auth=("bridge", "wrong")) == 401
    app = Celery("test", broker=production["BRIDGE_REDIS_URL"], set_as_current=False)
    confirmed = {"job_id": str(uuid.uuid4()), "n": 1}
    for task, kwargs in ((names.EXPIRE, {}), (names.REPEAT, {}), *[(names.CONFIRM, confirmed)] * 2):
        app.send_task(task, kwargs=kwargs, queue=names.QUEUE, ignore_result=True)

    def seen():
        tasks = requests.get(f"{url}/api/tasks", auth=login, timeout=10).json()
        return {task["name"] for task in tasks.values() if task["state"] == "SUCCESS"}

    wait_until(lambda: names.CONFIRM in seen(), "Flower to hear of the task")
    assert seen() == {names.CONFIRM}, "sweeps, which came before it, would hide everything else"
    broker = requests.get(f"{url}/broker", auth=login, timeout=10).text
    assert [queue for queue in (*names.QUEUES, "ingestion") if f">{queue}<" not in re.sub(r"\s", "", broker)] == []
    page = requests.get(f"{url}/workers", auth=login, timeout=10).text
    worker = re.search(r"bridge@[\w.-]+", page)
    assert worker, page
    page = f"{url}/worker/{worker.group()}"
    wait_until(lambda: names.CONFIRM in requests.get(page, auth=login, timeout=10).text, "it")

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
    app.send_task(names.CONTINUE, queue=names.QUEUE, ignore_result=True)
    wait_until(lambda: names.CONTINUE in seen(), "the worker, which still consumes")
    assert names.PURGE not in seen()


def test_flower_does_not_listen_beyond_loopback_without_chosen_credentials(run, production):
    line = refusal(run("flower", "--address", "0.0.0.0"))
    assert "FLOWER_BASIC_AUTH" in line


@pytest.mark.slow
def test_flower_takes_chosen_credentials(begin, production):
    port = free_port()
    process = begin("flower", "--port", str(port), FLOWER_BASIC_AUTH="me:and-mine")
    url = f"http://127.0.0.1:{port}/workers"
    wait_until(lambda: status_of(url) == 401, "Flower")
    assert status_of(url, auth=("me", "and-mine")) == 200
    assert "log in as" not in process.text
    assert "and-mine" not in process.text
    assert process.ends(signal.SIGTERM) == 0
    assert process.left() == []
