"""How gunicorn serves the API: gevent workers, so that a parked poll costs a greenlet."""

import logging
import os
import resource
import shutil
import sys
from ipaddress import ip_address
from typing import Any

import gunicorn.app.base

from api import memory_allocator
from api.gunicorn_master import Master
from bridge.logs import configure_logging
from bridge.settings import SettingsError, load_settings, read_environment, unknown_names

try:
    settings = load_settings()
    settings.require("database_url")
    settings.require("redis_url")
    if not settings.auth and not settings.auth_off_anywhere:
        loopback = settings.host == "localhost" or ip_address(settings.host).is_loopback
        if not loopback:
            raise SettingsError(
                "BRIDGE_AUTH=off lets anybody in, so BRIDGE_HOST must be a loopback address (or set"
                " BRIDGE_AUTH_OFF_ANYWHERE=1)"
            )
except ValueError:
    sys.exit(f"BRIDGE_HOST: {settings.host!r} is not an IP address")
except SettingsError as error:
    sys.exit(str(error))
for line in unknown_names(read_environment()):
    sys.stderr.write(f"{line}\n")

bind = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
workers = settings.api_processes
worker_class = "api.gunicorn_worker.Worker"
logger_class = "api.gunicorn_worker.ErrorLogger"
gunicorn.app.base.Arbiter = Master  # type: ignore[misc]  # there is no setting for the master's class
# gunicorn's pool of greenlets, one per connection: the default of 1000 would leave no room for a create while 1000
# polls are parked. An eighth is kept from polls (bridge/admission/limits.py). Each connection is a descriptor: the
# usual soft limit of 1024 is for programs that use select(); the hard limit is the one that counts.
OTHER_FILES = 300  # what a process opens besides its connections
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
wanted = settings.api_connections + OTHER_FILES
files = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
if soft != resource.RLIM_INFINITY and soft < files:
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
worker_connections = max(files - OTHER_FILES, 64)
os.environ["BRIDGE_API_CONNECTIONS"] = str(worker_connections)  # bridge/admission/limits.py takes shares of it
backlog = 4096
SWITCH_SECONDS = 0.0005  # for which a thread goes on computing while another one wants its turn
# Longer than the longest poll, so that a worker's connection survives between its polls (the default of 2 s does not).
keepalive = 75
# How long running requests may take after SIGTERM; parked polls are answered at once.
graceful_timeout = 20
sendfile = False  # it would bypass api/http/gunicorn_response.py
timeout = 60
# The default is a socket in the home directory, which a second instance would share.
control_socket_disable = True
forwarded_allow_ips = ",".join(settings.trusted_proxies)
forwarder_headers = ""  # the default trusts SCRIPT_NAME, which changes the path
loglevel = settings.log_level
# Everything goes to the root logger, whose one handler bridge.logs sets up.
logconfig_dict = {
    "root": {"level": settings.log_level.upper(), "handlers": []},
    "loggers": {"gunicorn.error": {"level": settings.log_level.upper(), "handlers": [], "propagate": True}},
    "handlers": {},
}
proc_name = "jobbridge-api"
limit_request_line = 8190

counters = settings.data_dir / "metrics"
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(counters)


def on_starting(server: Any) -> None:
    """Set the master up: logs and memory as in its workers, counters at zero."""
    configure_logging(settings)
    memory_allocator.give_back()
    shutil.rmtree(counters, ignore_errors=True)
    counters.mkdir(parents=True, exist_ok=True)
    if worker_connections < settings.api_connections:
        logging.getLogger("api").warning(
            "the hard limit of open files is %d: a process takes at most %d connections, and each parked poll is one;"
            " set LimitNOFILE=65536 in the unit, or ulimit -Hn",
            files,
            worker_connections,
        )


def when_ready(server: Any) -> None:
    """Refuse to serve other machines without keys, also on systemd's socket, which BRIDGE_HOST does not describe."""
    addresses = [listener.getsockname() for listener in server.LISTENERS]
    beyond = [one[0] for one in addresses if isinstance(one, tuple) and not ip_address(one[0]).is_loopback]
    if beyond and not settings.auth and not settings.auth_off_anywhere:
        sys.exit(
            f"BRIDGE_AUTH=off lets anybody in, and the inherited socket listens on {beyond[0]}: it must be a"
            " loopback address (or set BRIDGE_AUTH_OFF_ANYWHERE=1)"
        )


def on_reload(server: Any) -> None:
    """Restore our logging, which gunicorn has replaced."""
    configure_logging(settings)


def post_worker_init(worker: Any) -> None:
    """Maintain this process's gauges and heap, and answer parked polls as soon as it is told to stop."""
    import gevent

    from api.garbage_collection import LOOK_SECONDS, FullCollections
    from api.http.counted import PARKED, Gauges, Summed
    from api.wsgi import reserved
    from bridge.background import every

    parts = worker.wsgi.extensions["bridge"]
    dispatcher = parts.polls.dispatcher
    gauges = Gauges(dispatcher, {"requests": parts.runtime, "reserved": reserved})

    def watch() -> None:
        while worker.alive:
            gauges.set()
            Summed.tell()
            gevent.sleep(0.1)
        dispatcher.close()
        PARKED.set(0)

    gevent.spawn(watch)
    # The event loop yields the GIL at each read and write, several times per answer. Python's 5 ms each, while a large
    # body is parsed in its thread, would add up to a fifth of a second.
    sys.setswitchinterval(SWITCH_SECONDS)
    collections = FullCollections()
    if collections.begin():
        every(LOOK_SECONDS, "collect garbage", collections.look)


def worker_exit(server: Any, worker: Any) -> None:
    """Share what the process has counted since the last time."""
    if worker.booted:
        from api.http.counted import Summed

        Summed.tell()


def child_exit(server: Any, worker: Any) -> None:
    """Remove the gauges of a process that has ended."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)
