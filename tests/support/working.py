"""A worker of either kind as a process, which converts as tests/support/conversion.py says."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.cli.local.checkout import ROOT
from tests.support.client import Client
from tests.support.running import Running


def command(kind: str, content_type: str, *more: str) -> list[str]:
    """Return what starts a worker (`bridge_worker`, with these further arguments, or `bash`)."""
    if kind == "bash":
        return [str(ROOT / "examples/bash_worker/worker.sh"), content_type, sys.executable,
                str(ROOT / "tests/support/conversion.py")]  # fmt: skip
    return [sys.executable, "-m", "bridge_worker", "--content-types", content_type, "--handler",
            "tests.support.conversion:handle", *more]  # fmt: skip


@contextmanager
def working(
    bridge: Running, client: Client, kind: str, content_type: str, log: Path, *more: str, **environment: str
) -> Iterator[None]:
    """Run a worker for the client's tenant until the end."""
    common = {name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "AWS_", "WORKER_"))}
    key = bridge.key(client.tenant, ("work",))
    common |= {"BRIDGE_URL": bridge.url, "BRIDGE_KEY": key, "PYTHONPATH": str(ROOT), **environment}
    with log.open("wb") as out:
        started = command(kind, content_type, *more)
        worker = subprocess.Popen(started, env=common, cwd=ROOT, stdout=out, stderr=out)
        try:
            yield
        finally:
            worker.terminate()
            worker.wait(60)
