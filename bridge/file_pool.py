"""Work on files in separate threads: source files are usually on NFS.

A system call on a file cannot be waited for as a socket can: one on a mount that is slow or hangs would hold up the
whole process: an API's with all its parked polls, a Celery worker's with the outcomes and sweeps that it shares. The
pool is not gevent's own, which looks up host names: when a mount hangs, it is only work on files that finds no thread.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import gevent
from gevent.threadpool import ThreadPool
from gevent.util import wrap_errors

from bridge.errors import Unavailable

T = TypeVar("T")

MOST_THREADS = 32  # system calls on files at a time
SECONDS = 15.0  # that one is waited for, the wait for a thread included; its thread is lost until it comes back


class FilePool:
    """One per process; a bridge.runtime.OnFiles. To be made in the thread whose greenlets call it.

    `queue` off: nobody waits for a thread when all are busy. That is for a process which does one thing at a time: its
    busy threads are those that hang.
    """

    def __init__(self, threads: int = MOST_THREADS, seconds: float = SECONDS, *, queue: bool = True) -> None:
        self._pool = ThreadPool(threads)
        self._seconds = seconds
        self._queue = queue

    def __call__(self, work: Callable[..., T], *args: Any) -> T:
        """Do the work; return or raise what it does. Raises Unavailable if it takes too long; it may still be done."""
        silent = Unavailable("The file system does not answer; send the request again.")
        if not self._queue and len(self._pool) >= self._pool.maxsize:
            raise silent
        with gevent.Timeout(self._seconds, silent):
            # Raised in the thread, a refusal would be written to the log as a crash.
            done: T | Exception = self._pool.spawn(wrap_errors(Exception, work), *args).get()
        if isinstance(done, Exception):
            raise done
        return done
