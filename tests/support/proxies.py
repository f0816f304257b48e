"""nginx and haproxy as processes of a test."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager

from bridge.embedded.process import dies_with_parent
from tests.support.waiting import wait_until


@contextmanager
def listening(command: list[str], port: int) -> Iterator[None]:
    """Run a proxy for as long as the block takes, which begins when the proxy listens at that port of this machine."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=dies_with_parent(signal.SIGTERM)) as running:
        assert running.stderr is not None
        errors = running.stderr

        def listens() -> bool:
            with closing(socket.socket()) as probe:
                assert running.poll() is None, errors.read()
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            wait_until(listens, command[0])
            yield
        finally:
            running.terminate()
