"""What runs a worker on many machines: the systemd unit, and the steps of the Dockerfiles as a script."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bridge_worker.options import parser

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy/systemd/jobbridge-worker.service"
DOCKERFILES = sorted((ROOT / "deploy/docker").glob("*.Dockerfile"))
pytestmark = pytest.mark.skipif(not UNIT.exists(), reason="needs a checkout")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_unit(tmp_path):
    unit = UNIT.read_text().replace("/opt/worker/bin/bridge-worker", sys.executable)
    (tmp_path / UNIT.name).write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / UNIT.name)], capture_output=True, text=True, timeout=60
    )
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


def test_the_unit_starts_the_command_and_waits_for_its_end():
    unit = UNIT.read_text()
    command = re.search(r"^ExecStart=\S+ (.*)$", unit, re.M)[1]
    options = parser().parse_args(command.replace("$WORKER_OPTIONS", "--handler audio=m:f").split())
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)[1])
    assert stop > options.drain_seconds + options.cancel_seconds + 30 + 10
    assert "RestartPreventExitStatus=2" in unit
    assert "KillMode=mixed" in unit


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_a_dockerfile_copies_what_is_there_and_starts_the_command(file):
    text = file.read_text()
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M):
        for source in sources.split():
            assert (ROOT / source).exists()
    command = re.search(r'^ENTRYPOINT \["bridge-worker", (.*)\]$', text, re.M)[1]
    parser().parse_args([*re.findall(r'"([^"]*)"', command), "--handler", "audio=m:f"])
    assert re.search(r"^RUN \./install_worker\.sh /opt/worker (handlers|whisper)", text, re.M)
    assert re.search(r"^USER worker$", text, re.M)


def test_a_wrong_extra_is_refused(tmp_path):
    script = ROOT / "deploy/docker/install_worker.sh"
    done = subprocess.run(
        [str(script), str(tmp_path / "x"), "handles"], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode == 2
    assert "expected handlers, whisper or nothing" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.wheels
def test_the_steps_of_the_dockerfile_make_a_worker(tmp_path):
    """With the package index, as an image's build has it; the engine that runs the steps is not to be had here."""
    subprocess.run(
        [str(ROOT / "deploy/docker/install_worker.sh"), str(tmp_path / "worker"), "handlers"],
        cwd=ROOT, check=True, timeout=600, env=os.environ | {"PYTHON": sys.executable},
    )  # fmt: skip
    done = subprocess.run(
        [str(tmp_path / "worker/bin/bridge-worker"), "try", str(ROOT / "examples/samples/minutes.docx"),
         "--handler", "document=bridge_worker.handlers.documents:handle"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| audio | 1 |" in done.stdout
