"""A process that has imported what a bridge's processes import, and forks each of them: a second less for each start.

`python -m tests.support.preloaded api 3` serves requests on the socket with this descriptor, until it is closed
(tests/support/forking.py). A fork goes on as `python -m MODULE …` does, in the environment that it was given: it
reads its settings itself, since nothing that is imported here does. Tests of `jobbridge up`, and those which start
`bridge.cli.local.command_lines` themselves, show how the processes start without this.
"""

import ast
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CELERY = ("celery.bin.celery", "celery.apps.worker", "celery.apps.beat",
          "celery.concurrency.prefork", "kombu.transport.redis", "celery.backends.redis", "tasks.intake",
          "tasks.upkeep", "tasks.continuation", "tasks.webhooks", "tasks.consumer", "tasks.steady_beat")  # fmt: skip
MOST_BYTES = 200_000  # of a request: a command line and an environment


def _imports(file: str) -> None:
    """Import what this file imports at its top, and run nothing else of it."""
    tree = ast.parse((ROOT / file).read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(tree, file, "exec"), {"__name__": file})


def _api() -> None:
    """As gunicorn's master and its workers do it: what the workers alone need, after the standard library is patched.

    The master works with an unpatched one, so it is restored then; a worker patches it again.
    """
    importlib.import_module("gunicorn.app.wsgiapp")
    _imports("api/gunicorn_conf.py")
    importlib.import_module("api.gunicorn_worker")
    monkey: Any = importlib.import_module("gevent.monkey")
    monkey.patch_all()
    with tempfile.TemporaryDirectory() as metrics:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics  # an import looks at it; a fork opens files of its own
        _imports("api/wsgi.py")
        for name in ("api.http.counted", "kombu.transport.redis"):
            importlib.import_module(name)
    missing = object()
    # Not the threads, which have other names since: a process of one thread works with either.
    original = {name: items for name, items in monkey.saved.items() if name in sys.modules and "thread" not in name}
    patched = {module: {name: getattr(sys.modules[module], name, missing) for name in names}
               for module, names in original.items()}  # fmt: skip

    def put(values: dict[str, dict[str, Any]]) -> None:
        for module, names in values.items():
            for name, value in names.items():
                if value is missing:
                    vars(sys.modules[module]).pop(name, None)
                else:
                    setattr(sys.modules[module], name, value)

    put(original)
    monkey.patch_all = partial(put, patched)


def _serve(requests: socket.socket) -> list[str]:
    """Fork for each request. Returns in the fork alone, with its command line."""
    from bridge.embedded.process import dies_with_parent  # later than what `_api` imports first
    from bridge.private_files import UMASK

    while True:
        message, given, *_ = socket.recv_fds(requests, MOST_BYTES, 1)
        if not message:
            os._exit(0)
        request = json.loads(message)
        if "ended" in request:
            pid, status = os.waitpid(request["ended"], os.WNOHANG)
            requests.send(json.dumps(os.waitstatus_to_exitcode(status) if pid else None).encode())
            continue
        dying = dies_with_parent(signal.SIGTERM)
        if child := os.fork():
            os.close(given[0])
            requests.send(json.dumps(child).encode())
            continue
        dying()
        requests.close()
        os.setsid()
        os.umask(UMASK)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environment"])
        tempfile.tempdir = None
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number in (1, 2):
            os.dup2(given[0], number)
        os.close(given[0])
        return list(request["arguments"])


if __name__ == "__main__":
    if sys.argv[1] == "api":
        _api()
    else:
        for one in CELERY:
            importlib.import_module(one)
    gc.collect()
    gc.freeze()
    [_, dash_m, module, *rest] = _serve(socket.socket(fileno=int(sys.argv[2])))
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
