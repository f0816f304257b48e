"""`jobbridge up` and `jobbridge demo`: the whole bridge in one terminal."""

import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis
import requests

from bridge.cli.local.supervisor import ChildEnded, Family
from bridge.embedded.ports import free_port
from tests.support.client import Client, ok
from tests.support.client_commands import said
from tests.support.command import Started, jobbridge, refusal, starting
from tests.support.quick_command import quick_jobbridge
from tests.support.waiting import wait_until

UP = "The bridge is up."


class Up(Started):
    """A running `up` in a directory of its own."""

    def __init__(self, *arguments, cwd, **settings) -> None:
        self.place = cwd
        port = str(free_port())
        self.url = f"http://127.0.0.1:{port}"
        super().__init__("up", "--port", port, *arguments, cwd=cwd, **{"BRIDGE_API_PROCESSES": "1", **settings})

    def close(self) -> None:
        super().close()
        cluster = self.place / ".bridge" / "postgres"
        if cluster.is_symlink():  # as root it lies elsewhere
            shutil.rmtree(cluster.resolve(), ignore_errors=True)

    def admin_key(self) -> str:
        found = re.search(r"Admin key (.+?)   \(", self.says(UP))
        assert found, self.text
        place = Path(found.group(1))  # no terminal: it is told where the key is
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        return place.read_text().strip()

    def client(self, key: str) -> Client:
        return Client(self.url, key, self.place / ".bridge" / "files")


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """Yield an `up` that these tests share, with a local worker and Flower."""
    more = ("--worker", "--flower", f"--flower-port={free_port()}")
    with starting(tmp_path_factory.mktemp("a place"), Up, BRIDGE_PROT="8000") as start:
        running = start(*more)
        running.says(UP)
        yield running
        assert (running.ends(signal.SIGTERM), running.left()) == (0, [])


@pytest.fixture
def begin(tmp_path):
    with starting(tmp_path, Up) as start:
        yield start


def test_it_says_where_everything_is(up):
    text = up.says(UP)
    for words in (f"{up.url}/docs", f"{up.place}/.bridge/files", f"{up.place}/.bridge/logs", "Ctrl-C stops it."):
        assert words in text
    assert re.search(r"Flower   http://127\.0\.0\.1:\d+   log in as .+/secrets/flower-login\n", text)
    assert requests.get(f"{up.url}/readyz", timeout=10).status_code == 200


def test_a_process_that_ends_is_started_again_and_said_so(up):
    parent = psutil.Process(up.process.pid)
    worker = next(child for child in parent.children() if "celery" in child.cmdline() and "worker" in child.cmdline())
    worker.kill()
    assert up.says("celery ended by signal 9 and was started again")


def test_a_process_that_ends_as_soon_as_it_begins_ends_all(tmp_path):
    family = Family(tmp_path)
    family.start("hopeless", [sys.executable, "-c", "raise SystemExit(3)"], {})

    with pytest.raises(ChildEnded, match="hopeless ended with status 3, 3 times"):
        wait_until(lambda: family.revive() and False, "the family to give up", 20)


def test_a_process_that_ends_at_its_start_while_its_servers_are_ill_is_tried_on_with_growing_pauses(tmp_path):
    family = Family(tmp_path)
    child = family.start("patient", [sys.executable, "-c", "raise SystemExit(3)"], {})
    said: list[str] = []

    def tried(times: int) -> bool:
        said.extend(family.revive(lambda: True))
        return child.lives.short >= times

    wait_until(lambda: tried(4), "four short lives", 40)
    assert [line.split(":")[0].removeprefix("patient ended with status 3 and ") for line in said[:4]] == [
        "was started again",
        *(f"is started again in {pause} s" for pause in (1, 2, 4)),
    ]


def test_a_misspelt_setting_is_warned_of_with_the_right_name(up):
    text = up.says(UP)
    assert text.count("BRIDGE_PROT is not a known setting; did you mean BRIDGE_PORT?") == 1
    assert "BRIDGE_PROT" not in "".join(log.read_text() for log in (up.place / ".bridge" / "logs").iterdir())


def test_flower_beside_up_finds_its_broker(up):
    running = Started("flower", "--port", str(free_port()), cwd=up.place)
    running.says("log in as")
    running.close()


def test_doctor_finds_a_running_up_by_its_data_and_nothing_wrong(up):
    assert "Nothing is wrong." in wait_until(lambda: healthy(up), "the first sweeps").stdout


def test_the_local_worker_converts_a_file(up):
    client = up.client(up.admin_key())
    place = client.files / "page.html"
    place.write_text("<h1>Heard of it</h1>")
    body = {"source_file_path": str(place), "content_type": "web", "ingestion_task_id": "first"}
    job_id = ok(client.post("", body))["job_id"]
    wait_until(lambda: client.status(job_id) == "completed", "the local worker")
    assert "Heard of it" in ok(client.get(f"{job_id}/result"))["content"]


def test_a_second_up_on_the_same_data_is_refused(up):
    second = quick_jobbridge("up", "--port", str(free_port()), cwd=up.place)
    assert second.returncode == 2
    assert second.stderr == (
        f"jobbridge: {up.place / '.bridge'} is in use by process {up.process.pid}: stop that one first\n"
    )
    assert requests.get(f"{up.url}/readyz", timeout=10).status_code == 200


def test_keys_and_db_reach_the_database_of_a_running_up(up):
    key = said(quick_jobbridge("keys", "create", "pipeline", "--scopes", "read", cwd=up.place)).strip()
    assert up.client(key).get("").status_code == 200
    assert "pipeline" in quick_jobbridge("keys", "list", cwd=up.place).stdout
    assert re.fullmatch(r"\d{4}\n", quick_jobbridge("db", "current", cwd=up.place).stdout)


def test_no_secret_stands_in_an_argument_or_in_a_file_that_others_may_read(up):
    directory = up.place / ".bridge" / "secrets"
    kept = {place.name: place.read_text().strip() for place in directory.iterdir()}
    secrets = [*kept.values(), up.admin_key()]
    with redis.Redis.from_url(kept["broker-url"]) as client:
        assert client.ping()
    named = {"admin-key", "broker-url", "local-worker-key", "postgres", "postgres-superuser", "valkey"}
    assert kept.keys() - {"flower-login"} == named  # that one where another test has started it on these data
    for process in up.family():
        line = " ".join(process.cmdline())
        assert not any(secret in line for secret in secrets), line
    for place in directory.iterdir():
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    logs = "".join(log.read_text() for log in (up.place / ".bridge" / "logs").iterdir())
    assert not any(secret in logs for secret in secrets)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_neither_ctrl_c_nor_a_kill_leaves_a_process_and_the_next_up_finds_the_same_data(begin):
    first = begin()
    key = first.admin_key()
    job_id = first.client(key).create("image")
    assert {"postgres", "valkey-server"} <= {process.name() for process in first.family()}
    assert first.ends(signal.SIGINT) == 0
    assert "Stopped. The data are kept." in first.text
    assert first.left() == []
    assert jobbridge("keys", "list", cwd=first.place).returncode == 0  # starts PostgreSQL for itself, and stops it

    killed = begin("--worker")
    assert "Admin key" not in killed.says(UP)
    assert killed.client(key).status(job_id) == "pending"
    assert len(killed.family()) > 5
    killed.ends(signal.SIGKILL)

    third = begin("--worker")  # starts at once
    third.says(UP)
    assert third.client(key).claim("image")["job_id"] == job_id
    wait_until(lambda: not killed.left(), "the killed one's processes to be gone")
    assert third.ends(signal.SIGTERM) == 0
    assert third.left() == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_an_embedded_server_that_dies_is_started_again_on_its_data_and_the_api_goes_on(up):
    client = up.client(up.admin_key())
    job_id = client.create("image")
    api = {process.pid for process in up.family() if "gunicorn" in " ".join(process.cmdline())}
    for name, server in (("valkey", "valkey-server"), ("postgres", "postgres")):
        servers = [child for child in up.family() if child.name() == server]
        min(servers, key=lambda process: process.create_time()).kill()  # PostgreSQL's first one, the postmaster
        up.says(f"{name} ended and was started again on its data")
        wait_until(lambda: ready(up) == "ok", f"the bridge to be whole after {name}")
        assert api <= {process.pid for process in up.family()}, "the API went on"
    assert client.claim("image")["job_id"] == job_id


def healthy(running) -> subprocess.CompletedProcess[str] | None:
    done = quick_jobbridge("doctor", cwd=running.place)
    return done if done.returncode == 0 else None


def ready(running) -> str | None:
    try:
        return requests.get(f"{running.url}/readyz", timeout=10).json().get("status")
    except requests.RequestException:
        return None


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"BRIDGE_AUTH": "perhaps"}, "BRIDGE_AUTH: must be on or off"),
        ({"BRIDGE_DATABASE_URL": "mysql://x"}, "BRIDGE_DATABASE_URL: must start with postgresql://"),
        ({"BRIDGE_DATA_DIR": "/proc/nowhere"}, "/proc/nowhere cannot be used as data directory"),
    ],
)
def test_a_bad_setting_is_one_line(tmp_path, settings, line):
    assert line in refusal(quick_jobbridge("up", "--port", str(free_port()), cwd=tmp_path, **settings))


@pytest.mark.slow
def test_servers_of_ones_own_are_used_where_they_are_named(servers, new_database, begin):
    redis_url = servers.redis_url.rpartition("/")[0] + "/900"
    running = begin(BRIDGE_DATABASE_URL=new_database(), BRIDGE_REDIS_URL=redis_url)
    assert "Postgres BRIDGE_DATABASE_URL" in running.says(UP)
    names = {process.name() for process in running.family()}
    assert not names & {"postgres", "valkey-server"}
    assert running.client(running.admin_key()).create()
    assert running.ends(signal.SIGTERM) == 0
    assert running.left() == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_demo_proves_the_whole_way_and_leaves_nothing(tmp_path):
    done = jobbridge("demo", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Proven in" in done.stdout
    assert "5 receipts" in done.stdout
    for sample in ("report.pdf", "minutes.docx", "notes.html", "speech.wav", "clip.mp4"):
        assert sample in done.stdout
    assert list(tmp_path.iterdir()) == []  # onnxruntime's telemetry, were it on, would leave a .ses
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]  # None: it has just ended
    assert [line for line in lines if str(tmp_path) in " ".join(line)] == []


@pytest.mark.slow
def test_a_demo_that_is_interrupted_proves_nothing_and_says_where_its_logs_are(tmp_path):
    running = Started("demo", "--keep", "kept", cwd=tmp_path)
    running.says("jobs enqueued")
    assert running.ends(signal.SIGINT) == 1
    assert "stopped by a signal" in running.text
    assert str(tmp_path / "kept" / "logs") in running.text
    assert (tmp_path / "kept" / "logs" / "api.log").exists()
    assert running.left() == []
