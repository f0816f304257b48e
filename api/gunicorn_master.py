"""gunicorn's master, which ends no process before the one in its place serves."""

import signal
from typing import Any

from gunicorn.arbiter import Arbiter

STOPS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)


class Master(Arbiter):
    """At SIGHUP gunicorn itself stops the old processes as soon as it has forked new ones.

    For as long as those take to load the application nobody would take a connection.
    """

    def spawn_worker(self) -> Any:
        """Hold back from the new process what tells it to stop until it can hear it.

        Until then it has the master's handlers, which only note a signal: it would never stop, and be killed when its
        grace is over, with all its connections.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            return super().spawn_worker()
        finally:  # here too when the new process ends
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def manage_workers(self) -> None:
        if len(self.WORKERS) <= self.num_workers or self._all_serve():
            super().manage_workers()

    def reap_workers(self) -> None:
        """Also asked again and again while a reload waits for the old processes to end, which somebody must tell."""
        super().reap_workers()
        if len(self.WORKERS) > self.num_workers:
            self.manage_workers()

    def kill_worker(self, pid: int, sig: int) -> None:
        """Tell it once: a second SIGTERM would strike a process that has already taken its handlers down."""
        worker: Any = self.WORKERS.get(pid)
        if sig == signal.SIGTERM and worker is not None:
            if worker.told:
                return
            worker.told = True
        super().kill_worker(pid, sig)

    def _all_serve(self) -> bool:
        workers: list[Any] = list(self.WORKERS.values())
        return all(worker.serves for worker in workers)
