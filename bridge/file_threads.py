"""Work on files in threads of its own, for a process that gevent runs: source files usually lie on NFS.

A system call on a file cannot be waited for as a socket can: one on a mount that is slow or hangs would hold up the
whole process, with all its parked polls. The pool is not gevent's own, which looks up host names: when a mount hangs,
it is only work on files that finds no thread.
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


class FileThreads:
    """One per API process; a bridge.runtime.OnFiles. Made in the thread whose greenlets call it."""

    def __init__(self, threads: int = MOST_THREADS, seconds: float = SECONDS) -> None:
        self._pool = ThreadPool(threads)
        self._seconds = seconds

    def __call__(self, work: Callable[..., T], *args: Any) -> T:
        """What the work returns or raises. Raises Unavailable when it takes too long; it may still be done."""
        with gevent.Timeout(self._seconds, Unavailable("The file system does not answer; send the request again.")):
            # Raised in the thread, a refusal would be written to the log as a crash.
            done = self._pool.spawn(wrap_errors(Exception, work), *args).get()
        if isinstance(done, Exception):
            raise done
        return done
