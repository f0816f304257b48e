"""The command lines and environments of the processes that make up the bridge."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping

from bridge import names
from bridge.cli.local.checkout import ROOT
from bridge.settings import Settings, SettingsError

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}

#: Celery warns that a worker that runs as root executes whatever a pickled message says. Ours accepts JSON alone
#: (celeryconfig.py), and `up` and `demo` are for trials as root too: the warning would only hide real ones.
_NO_ROOT_WARNING = "ignore:You're running the worker with superuser privileges"

#: What Flower keeps is bounded below its own 100 000 tasks, about 100 MB; workers that are gone leave its page.
_FLOWER = {"FLOWER_MAX_TASKS": "20000", "FLOWER_PURGE_OFFLINE_WORKERS": "3600"}


def api() -> list[str]:
    return [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "api" / "gunicorn_conf.py"), "api.wsgi:app"]


def celery_worker(extra: list[str]) -> list[str]:
    """Return the command line of a worker for all queues of the bridge, or those that `extra` names (`-Q`, `--queues`).

    Without gossip and mingle: they synchronise workers, which nothing here needs, and cost 11 s at a reconnect.
    """
    given = _queues(extra)
    queues = [] if given else ["-Q", ",".join(names.QUEUES)]
    # Workers of different queues on one machine need different names.
    own = given.replace(",", "+") if given else "bridge"
    name = [] if any(part.partition("=")[0] in ("-n", "--hostname") for part in extra) else ["-n", f"{own}@%h"]
    return [*_celery("worker"), *queues, *name, "--without-gossip", "--without-mingle", *extra]


def _queues(extra: list[str]) -> str | None:
    for place, part in enumerate(extra):
        option, _, value = part.partition("=")
        if option in ("-Q", "--queues"):
            return value or "".join(extra[place + 1 : place + 2])
        if part.startswith("-Q"):
            return part[2:]
    return None


def beat(settings: Settings, extra: list[str]) -> list[str]:
    return [*_celery("beat"), "--pidfile=", *extra]


def flower(address: str, port: int, extra: list[str]) -> list[str]:
    return [*_celery("flower", "tasks.flower"), f"--address={address}", f"--port={port}", *extra]


def remote_worker(url: str, worker_id: str, handlers: Mapping[str, str]) -> list[str]:
    """Return the command line of a worker for `handlers` (type → module:function); its key comes by BRIDGE_KEY."""
    chosen = [part for name, function in handlers.items() for part in ("--handler", f"{name}={function}")]
    return [
        sys.executable, "-m", "bridge_worker", "--url", url, "--worker-id", worker_id,
        "--content-types", ",".join(handlers), "--concurrency", "1", *chosen,
    ]  # fmt: skip


def celery_environment(environment: Mapping[str, str]) -> dict[str, str]:
    filters = [environment.get("PYTHONWARNINGS", ""), _NO_ROOT_WARNING]
    return {**environment, "PYTHONWARNINGS": ",".join(part for part in filters if part)}


def flower_environment(environment: Mapping[str, str], address: str) -> tuple[dict[str, str], str | None]:
    """Return Flower's environment and the credentials that were made up, if any (`user:password`).

    Flower shows every task, so it always asks for a password and never lets a visitor change anything. On loopback
    a password is made up; beyond it, somebody must have chosen one. It is passed by the environment: argv is public.
    """
    made = None
    given = dict(environment)
    if not given.get("FLOWER_BASIC_AUTH") and not given.get("FLOWER_AUTH"):
        if address not in _LOOPBACK:
            raise SettingsError(
                f"FLOWER_BASIC_AUTH is not set: Flower does not listen on {address} without user:password"
            )
        made = given["FLOWER_BASIC_AUTH"] = f"bridge:{secrets.token_urlsafe(12)}"
    given["FLOWER_READ_ONLY"] = "true"
    for name, value in _FLOWER.items():
        given.setdefault(name, value)
    return celery_environment(given), made


def _celery(command: str, app: str = "tasks.app") -> list[str]:
    """Return Celery's command line, without its banner, which would mix with the lines of JSON."""
    return [sys.executable, "-m", "celery", "--quiet", "-A", app, command]
