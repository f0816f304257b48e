"""The composition root of the Celery worker and of beat (`celery -A tasks.app`)."""

import os
import secrets
import socket
from functools import cache
from typing import Any

import structlog
from celery import Celery, Task
from celery.signals import setup_logging, task_prerun, worker_init, worker_process_shutdown
from celery.worker.control import Panel

from bridge import crash_points
from bridge.db import make_engine
from bridge.file_pool import FilePool
from bridge.insight.counting import Counting
from bridge.insight.totals import Totals
from bridge.job_events import REQUEST_ID
from bridge.logs import configure_logging
from bridge.mirror.lists import Mirror
from bridge.outbox.nudge import Nudger
from bridge.runtime import Runtime
from bridge.settings import load_settings, read_environment, unknown_names
from bridge.traces import TRACEPARENT, traces_of, valid

log = structlog.get_logger("tasks.app")
MOST_HANGING = 4  # system calls on files that hang; beyond these, further creates are postponed at once
COSTLY = {"memdump", "memsample", "objgraph"}  # commands whose answer costs the worker much time or memory

# Not the current app: an installed celeryconfig must not become other programs' default.
app = Celery(
    "bridge",
    set_as_current=False,
    include=["tasks.intake", "tasks.upkeep", "tasks.continuation", "tasks.webhooks"],
    loader="tasks.result_backend:Loader",
)
app.config_from_object("celeryconfig")


@setup_logging.connect
def _logs(**_: Any) -> None:
    configure_logging(load_settings())
    for line in unknown_names(read_environment()):
        log.warning("setting_unknown", why=line)


@task_prerun.connect
def _begin(task_id: str, task: Task[Any, Any], **_: Any) -> None:
    """Log what a task does under the task's ID, within the trace that its message names."""
    REQUEST_ID.set(task_id)
    TRACEPARENT.set(valid(task.request.get("traceparent")))


@worker_process_shutdown.connect
def _end(**_: Any) -> None:
    """Send the spans recorded so far: a pool's process exits without running exit handlers."""
    if runtime.cache_info().currsize:
        runtime().traces.close()


@worker_init.connect
def _only_questions(**_: Any) -> None:
    """Keep only remote-control commands that ask: whoever can write to the broker must not stop or change a worker."""
    for name, command in Panel.meta.items():
        if command.type != "inspect" or name in COSTLY:
            Panel.data.pop(name, None)
            Panel.data.pop(command.alias or name, None)


@cache
def runtime() -> Runtime:
    """Return this process's runtime, made at its first task: connections must not be shared across a fork."""
    settings = load_settings()
    crash_points.arm(settings.crash_points)
    process = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    engine = make_engine(settings, pool_size=2, name="bridge-celery")
    totals = Totals(engine)
    totals.keep()
    nudger = Nudger(app)
    return Runtime(
        settings,
        engine,
        Mirror(settings.require("redis_url"), settings.redis_prefix, process),
        nudger,
        FilePool(threads=MOST_HANGING, queue=False),
        call_back=nudger.call_back,
        observer=Counting(totals),
        traces=traces_of("jobbridge-celery"),
    )
