"""The most memory that processes of a bridge have."""

import threading
from contextlib import suppress

import psutil

from tests.support.running import Running


def processes(bridge: Running) -> list[psutil.Process]:
    """Return the API's processes that serve: the children of gunicorn's master."""
    found = psutil.Process(bridge.stack.family.children[0].process.pid).children()
    assert found
    return found


class Peak:
    """The most memory of processes while the block lasts, looked at in a thread."""

    def __init__(self, processes: list[psutil.Process]) -> None:
        self._processes = processes
        self.of = {process.pid: process.memory_info().rss for process in processes}

    def __enter__(self) -> "Peak":
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.05):
            for process in self._processes:
                with suppress(psutil.NoSuchProcess):
                    self.of[process.pid] = max(self.of[process.pid], process.memory_info().rss)
