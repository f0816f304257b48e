"""Wheels and sdists of server, worker and client, built, and installed into an empty environment (`make wheels`)."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import zipfile

import pytest
import requests

from bridge.cli.local.checkout import ROOT
from bridge.embedded.ports import free_port
from tests.support.client import status_of
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.wheels, pytest.mark.timeout(600)]


def run(*command, cwd, **options):
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=500, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment_with(place, *requirements):
    """Make an environment with these requirements in this directory; return its `bin`."""
    run(sys.executable, "-m", "venv", place, cwd=place.parent)
    run(place / "bin" / "python", "-m", "pip", "install", "-q", *requirements, cwd=place)
    return place / "bin"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the directory with the wheels and sdists."""
    place = tmp_path_factory.mktemp("dist")
    for project in (ROOT, ROOT / "worker", ROOT / "client"):
        run(sys.executable, "-m", "build", "-q", "--no-isolation", "-o", place, project, cwd=place)
    return place


@pytest.fixture(scope="module")
def environment(built, tmp_path_factory):
    """Return the `bin` directory of an environment with the server and its embedded servers, as pipx would make it."""
    (wheel,) = built.glob("jobbridge-[0-9]*.whl")
    place = tmp_path_factory.mktemp("environment")
    return environment_with(place, "--find-links", built, f"jobbridge[up] @ {wheel.as_uri()}")


def test_a_wheel_has_the_licence_and_nothing_but_the_packages(built):
    for wheel in built.glob("*.whl"):
        names = zipfile.ZipFile(wheel).namelist()
        tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
        ours = {"api", "bridge", "models", "tasks", "celeryconfig.py"}
        assert tops == (ours if wheel.name.startswith("jobbridge-") else {wheel.name.partition("-")[0]}), wheel
    (sdist,) = built.glob("jobbridge-[0-9]*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("/LICENSE") for name in archive.getnames())


def test_the_server_runs_from_its_wheel_alone(environment, tmp_path):
    port = free_port()
    command = [environment / "jobbridge", "up", "--port", port, "--data-dir", tmp_path / "data"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "PYTHON"))}
    with (tmp_path / "out").open("w") as out:
        running = subprocess.Popen([str(word) for word in command], cwd=tmp_path, env=clean, stdout=out, stderr=out)
    try:
        url = f"http://127.0.0.1:{port}"

        def healthy():
            assert running.poll() is None, (tmp_path / "out").read_text()
            return status_of(f"{url}/readyz") == 200

        wait_until(healthy, "the bridge to be ready")
        assert requests.get(f"{url}/openapi.json", timeout=30).json()["info"]["version"]
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0, (tmp_path / "out").read_text()


@pytest.mark.parametrize("command", ["api", "celery"])
def test_a_start_says_which_module_another_package_has_overwritten(environment, tmp_path, command):
    (theirs,) = environment.parent.glob("lib/python*/site-packages/models/job.py")
    ours = theirs.read_bytes()
    theirs.write_text("class Job: ...")
    settings = {"BRIDGE_DATABASE_URL": "postgresql://127.0.0.1:1/x", "BRIDGE_REDIS_URL": "redis://127.0.0.1:1"}
    try:
        done = subprocess.run(
            [str(environment / "jobbridge"), command],
            cwd=tmp_path, env={**os.environ, **settings}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    finally:
        theirs.write_bytes(ours)
    assert done.returncode == 2
    assert done.stderr.startswith(f"jobbridge: {theirs} is not what jobbridge has installed")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("wheel", "command"),
    [
        ("bridge_worker", "import bridge_worker.cli; bridge_worker.cli.main(['--help'])"),
        ("jobbridge_client", "import jobbridge_client as c; c.Client('http://127.0.0.1:1', 'key').close(); print(c)"),
    ],
)
def test_worker_and_client_are_installed_from_their_wheels_alone(built, tmp_path, wheel, command):
    (file,) = built.glob(f"{wheel}-*.whl")
    python = environment_with(tmp_path / "venv", "--find-links", built, file) / "python"
    installed = json.loads(run(python, "-m", "pip", "list", "--format", "json", cwd=tmp_path))
    names = {one["name"].lower() for one in installed}
    assert names & {"flask", "celery", "sqlalchemy", "psycopg2-binary", "jobbridge"} == set()
    assert len(names) < 20, names
    told = run(python, "-c", command, cwd=tmp_path)
    assert {"bridge_worker": "--handler", "jobbridge_client": str(tmp_path)}[wheel] in told
    (typed,) = (tmp_path / "venv").glob(f"lib/python*/site-packages/{wheel}/py.typed")
    assert typed.exists()
