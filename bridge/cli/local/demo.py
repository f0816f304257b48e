"""`jobbridge demo`: real files through the whole bridge, and a report of what was seen."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests
from rich.console import Console

from bridge import names
from bridge.cli.local.checkout import ROOT, CheckoutError
from bridge.cli.local.demo_report import Receipts, Sent, faults, read_receipts, show, verdict
from bridge.cli.local.stack import Stack
from bridge.cli.local.supervisor import ChildEnded, Signals, ending_signals
from bridge.cli.local.up import HANDLERS
from bridge.embedded.ports import free_port

SAMPLES = ROOT / "examples" / "samples"
PIPELINE = ROOT / "examples" / "pipeline"
SUFFIXES = (".pdf", ".docx", ".html", ".wav", ".mp4")
PATIENCE = 240.0  # seconds until the demo gives up
SETTLING = 2.0  # seconds in which a second delivery of a continuation would show
WORKERS = {"worker-text": ("document", "web"), "worker-media": ("audio", "video")}


def run(keep: Path | None) -> int:
    """Run the demo; return 0 only if every job was completed and continued exactly once."""
    files = sorted(path for path in SAMPLES.glob("*") if path.suffix in SUFFIXES)
    if not files:
        raise CheckoutError(f"no sample files in {SAMPLES}")
    console = Console(highlight=False)
    console.soft_wrap = not console.is_terminal  # a pipe has no width; a terminal's lines end between words
    place = (keep or Path(tempfile.mkdtemp(prefix="jobbridge-demo-"))).absolute()
    status = 1
    with ending_signals() as signals:
        began = time.monotonic()
        console.rule("[bold]The bridge, end to end", style="dim")
        console.print("Starting PostgreSQL, Redis, API, Celery worker, beat and a sample pipeline …", style="dim")
        stack = Stack(_settings(place), throw_away=True, fsync=False)
        try:
            problems, receipts = _run(stack, files, console, signals)
            console.print(verdict(problems, receipts, len(WORKERS), time.monotonic() - began))
            status = 1 if problems else 0
        except (ChildEnded, DemoFailed) as problem:
            console.print(f"\n[bold red]Failed:[/] {problem}")
        finally:
            stack.stop()
    if status == 0 and keep is None:
        shutil.rmtree(place, ignore_errors=True)
    else:
        console.print(f"Logs are in {place / 'logs'}", style="dim")
    return status


class DemoFailed(Exception):
    """The demo cannot go on; the text says why, for a person."""


def _settings(place: Path) -> dict[str, str]:
    return {
        "BRIDGE_DATA_DIR": str(place),
        "BRIDGE_PORT": str(free_port()),
        "BRIDGE_API_PROCESSES": "2",
        "BRIDGE_CONTINUATION_TASK": "sample_pipeline.receive",
        "BRIDGE_CONTINUATION_QUEUE": "pipeline",
        "BRIDGE_CONTINUATION_CONFIRM_SECONDS": "30",
        "BRIDGE_LOG_FORMAT": "console",
    }


def _run(stack: Stack, files: list[Path], console: Console, signals: Signals) -> tuple[list[str], Receipts]:
    """Start everything, send the files and watch them; return what was wrong, as sentences, and what was received."""
    copies = [Path(shutil.copy(path, stack.settings.source_roots[0])) for path in files]
    stack.migrate()
    reader = stack.make_key("demo reader", ["read"])
    stack.start_processes()
    _start_pipeline(stack)
    if not stack.await_api(signals):
        raise DemoFailed("stopped by a signal")
    for name, types in WORKERS.items():
        key = stack.make_key(name, ["work"], content_types=list(types))
        stack.start_remote_worker(name, {kind: HANDLERS[kind] for kind in types}, key)
    workers = ", ".join(f"{name} ({', '.join(types)})" for name, types in WORKERS.items())
    console.print(f"All are up; the API answers on {stack.url}.")
    console.print(f"{len(WORKERS)} remote workers know that address and a key, and nothing else: {workers}.")
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {reader}"
    sent = _enqueue(stack, copies)
    console.print(f"{len(sent)} jobs enqueued through the Celery task {names.ENQUEUE}. Their progress:\n")
    _watch(stack, session, sent, console, signals)
    receipts = read_receipts(_receipts(stack))
    console.print("Each job's way, with the time since the step before, and the text that the pipeline received.")
    console.print("(Speech is recognised by a model of a few megabytes: a demonstration, not the best quality.)\n")
    jobs = {job.job_id: _job(stack, session, job.job_id) for job in sent}
    for job in sent:
        show(console, job, jobs[job.job_id], receipts.get(job.job_id, []))
    return faults(sent, jobs, receipts), receipts


def _receipts(stack: Stack) -> Path:
    return stack.settings.data_dir / "pipeline.sqlite3"


def _pipeline_environment(stack: Stack) -> dict[str, str]:
    """Return what a pipeline knows of the bridge: the broker. None of our settings."""
    outside = {name: value for name, value in stack.environment.items() if not name.startswith("BRIDGE_")}
    broker = stack.settings.require("broker_url")
    return {**outside, "PIPELINE_BROKER_URL": broker, "PIPELINE_STATE": str(_receipts(stack))}


def _start_pipeline(stack: Stack) -> None:
    arguments = [
        sys.executable, "-m", "celery", "-A", "pipeline_app", "worker", "-Q", "pipeline", "-n", "pipeline@%h",
        "--concurrency=1", "--without-gossip", "--without-mingle", "--loglevel=info",
    ]  # fmt: skip
    stack.family.start("pipeline", arguments, _pipeline_environment(stack), cwd=PIPELINE)


def _enqueue(stack: Stack, files: list[Path]) -> list[Sent]:
    """Send a Celery message for each file, as a pipeline would, and wait for the job IDs."""
    done = subprocess.run(
        [sys.executable, str(PIPELINE / "enqueue.py"), *map(str, files)],
        cwd=PIPELINE, env=_pipeline_environment(stack), capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    if done.returncode or len(lines) != len(files):
        log = stack.settings.data_dir / "logs" / "celery.log"
        raise DemoFailed(f"enqueueing: {done.stderr.strip() or 'no reason was given'} (read {log})")
    return [Sent(job_id=line[0], content_type=line[1], file=Path(line[3]).name) for line in lines]


def _job(stack: Stack, session: requests.Session, job_id: str) -> dict[str, object]:
    answer = session.get(f"{stack.url}{names.API_BASE}/{job_id}", timeout=30)
    if answer.status_code != 200:
        raise DemoFailed(f"GET {names.API_BASE}/{job_id} answered {answer.status_code}: {answer.text[:200]}")
    return dict(answer.json())


def _watch(stack: Stack, session: requests.Session, sent: list[Sent], console: Console, signals: Signals) -> None:
    """Print every change of a job's state until all were received, then wait for what should not come."""
    began = time.monotonic()
    shown: dict[str, str] = {}
    settled: float | None = None
    while settled is None or time.monotonic() < settled:
        stack.check()
        if signals.wait(0.1):
            raise DemoFailed("stopped by a signal")
        receipts = read_receipts(_receipts(stack))
        for job in sent:
            received = job.job_id in receipts
            state = "received by the pipeline" if received else str(_job(stack, session, job.job_id)["status"])
            if shown.get(job.job_id) != state:
                shown[job.job_id] = state
                console.print(f"  {time.monotonic() - began:6.1f} s  {job.file:<14} {state}", style="dim")
        if settled is None and all(job.job_id in receipts for job in sent):
            settled = time.monotonic() + SETTLING
        if time.monotonic() - began > PATIENCE:
            return  # the report says which are missing
    console.print()
