"""gunicorn's master, which ends no process before its replacement serves."""

import signal
from typing import Any

from gunicorn.arbiter import Arbiter

STOPS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)


class Master(Arbiter):
    """Stops the old processes of a reload only once the new ones serve.

    gunicorn itself stops them, at SIGHUP, as soon as it has forked new ones: nobody would accept a connection while
    those load the application.
    """

    def spawn_worker(self) -> Any:
        """Fork a process with stop signals blocked until it can handle them.

        Until then it has the master's handlers, which only note a signal: it would never stop, and would be killed
        with all its connections when its grace period is over.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            return super().spawn_worker()
        finally:  # also in the new process, when it ends
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def manage_workers(self) -> None:
        if len(self.WORKERS) <= self.num_workers or self._all_serve():
            super().manage_workers()

    def reap_workers(self) -> None:
        """Reap ended processes; while a reload is under way, also stop the old processes once the new ones serve."""
        super().reap_workers()
        if len(self.WORKERS) > self.num_workers:
            self.manage_workers()

    def kill_worker(self, pid: int, sig: int) -> None:
        """Send SIGTERM only once: a second one would hit a process that has already removed its handlers."""
        worker: Any = self.WORKERS.get(pid)
        if sig == signal.SIGTERM and worker is not None:
            if worker.told:
                return
            worker.told = True
        super().kill_worker(pid, sig)

    def _all_serve(self) -> bool:
        workers: list[Any] = list(self.WORKERS.values())
        return all(worker.serves for worker in workers)
