"""Work on files in separate threads: source files are usually on NFS.

A system call on a file cannot be waited for as a socket can: one on a mount that is slow or hangs would hold up the
whole process: an API's with all its parked polls, a Celery worker's with the outcomes and sweeps that it shares. The
pool is not gevent's own, which looks up host names: when a mount hangs, it is only work on files that finds no thread.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
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
    busy threads are those that hang. `nice`: by how much less urgent (setpriority) its threads are than the process.
    """

    def __init__(
        self, threads: int = MOST_THREADS, seconds: float = SECONDS, *, queue: bool = True, nice: int = 0
    ) -> None:
        self._pool = ThreadPool(threads)
        self._seconds = seconds
        self._queue = queue
        self._nice = nice

    def __call__(self, work: Callable[..., T], *args: Any) -> T:
        """Do the work; return or raise what it does. Raises Unavailable if it takes too long; it may still be done."""
        silent = Unavailable("The file system does not answer; send the request again.")
        if not self._queue and len(self._pool) >= self._pool.maxsize:
            raise silent
        with gevent.Timeout(self._seconds, silent):
            # Raised in the thread, a refusal would be written to the log as a crash.
            done: T | Exception = self._pool.spawn(wrap_errors(Exception, self._do), work, *args).get()
        if isinstance(done, Exception):
            raise done
        return done

    def _do(self, work: Callable[..., T], *args: Any) -> T:
        if self._nice:
            usual = os.getpriority(os.PRIO_PROCESS, os.getpid())
            with suppress(OSError):  # elsewhere than on Linux a thread has no priority of its own
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), usual + self._nice)
        return work(*args)
