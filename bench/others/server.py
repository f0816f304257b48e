"""What the baselines share: their servers and processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import redis
import requests

from bench.others import celery_noops
from bridge.embedded.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-bench/bin/python"  # with packages that the bridge does not need


def plain(url: str) -> str:
    """Return the URL in the form that libpq and asyncpg take."""
    return url.replace("postgresql+psycopg2://", "postgresql://")


@contextmanager
def process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[int]:
    """Run a process, ended with its children when the block ends; yield its ID."""
    with log.open("ab") as out:
        started = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=out, stderr=out)
    try:
        yield started.pid
    finally:
        children = psutil.Process(started.pid).children(recursive=True) if started.poll() is None else []
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait(20)
        for child in psutil.wait_procs(children, timeout=5)[1]:
            child.kill()


@contextmanager
def first_design(url: str, place: Path) -> Iterator[tuple[int, int]]:
    """Run the first design under uvicorn; yield its port and process ID. Raises SystemExit if it does not start."""
    port, log = free_port(), place / "first-design.log"
    command = [str(PYTHON), "-m", "uvicorn", "bench.others.first_design:app", "--port", str(port), "--no-access-log"]
    with process(command, {"FIRST_DESIGN_URL": url}, log) as pid:
        end = time.monotonic() + 60
        while not _answers(f"http://127.0.0.1:{port}/openapi.json"):
            if time.monotonic() > end or not psutil.pid_exists(pid):
                raise SystemExit(f"the first design did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield port, pid


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


def celery_drain(url: str, place: Path, jobs: int) -> float:
    """Return the jobs per second of one prefork process, from first to last. Raises SystemExit after 120 s."""
    celery_noops.app.conf.update(broker_url=url)
    with redis.Redis.from_url(url) as noted:
        noted.delete(celery_noops.FIRST, celery_noops.LAST)
        for one in range(jobs):
            celery_noops.noop.delay(one, jobs)
        command = [sys.executable, "-m", "celery", "-A", "bench.others.celery_noops", "worker", "--pool=prefork"]
        command += ["--concurrency=1", "--loglevel=warning", "--without-gossip", "--without-mingle"]
        with process(command, {"NOOPS_URL": url}, place / "celery.log"):
            end = time.monotonic() + 120
            while not (last := noted.get(celery_noops.LAST)):
                if time.monotonic() > end:
                    raise SystemExit("Celery did not drain its queue within 120 s")
                time.sleep(0.1)
        first = noted.get(celery_noops.FIRST)
    assert first is not None
    return (jobs - 1) / (float(last) - float(first))


def drain_of(script: str, url: str, jobs: int) -> float:
    """Return the jobs per second that a script of this folder prints. Raises SystemExit if it fails."""
    command = [str(PYTHON), str(ROOT / "bench/others" / script), plain(url), str(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise SystemExit(f"{script}: status {done.returncode}\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])
