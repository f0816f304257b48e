"""Look-ups of the hosts' names in sources' addresses, in threads that nothing else needs.

Whoever names a host chooses its name servers too, and they may never answer: a thread that asks them comes back when
the system's resolver gives up. So a tenant has a share of the threads, until they come back, and others the rest.
"""

from collections.abc import Sequence
from functools import cache

import gevent
from gevent.monkey import get_original
from gevent.threadpool import ThreadPool
from gevent.util import wrap_errors

from bridge.admission.byte_budget import Budget
from bridge.outgoing.connect import Resolve, addresses_in

THREADS = 8
OF_TENANT = 3
SECONDS = 15.0  # that a look-up is waited for, the wait for a thread included


class LookUps:
    """The look-ups of one process. To be made in the thread whose greenlets call it."""

    def __init__(self, seconds: float = SECONDS, ask: Resolve | None = None) -> None:
        self._pool = ThreadPool(THREADS)
        self._turns = Budget(THREADS, of_tenant=OF_TENANT, of_key=OF_TENANT)
        self._seconds = seconds
        self._resolve = ask or _addresses

    def __call__(self, tenant: str, host: str, port: int) -> Sequence[str]:
        """Return the IP addresses of a name. Calls that wait for a thread are served in turn, tenant after tenant.

        Raises OSError, UnicodeError.
        """
        begun: list[str] = []
        asking = gevent.spawn(self._ask, tenant, host, port, begun)
        try:
            with gevent.Timeout(self._seconds, OSError("the resolver does not answer")):
                found: Sequence[str] | Exception = asking.get()
        finally:
            if not begun:
                asking.kill(block=False)
        if isinstance(found, Exception):
            raise found
        return found

    def _ask(self, tenant: str, host: str, port: int, begun: list[str]) -> Sequence[str] | Exception:
        """Ask in a thread; go on even if nobody waits any more, because the thread stays busy."""
        with self._turns.taken((tenant, None), 1):
            begun.append(host)
            found: Sequence[str] | Exception = self._pool.spawn(wrap_errors(Exception, self._resolve), host, port).get()
            return found


def _addresses(host: str, port: int) -> Sequence[str]:
    return addresses_in(get_original("socket", "getaddrinfo")(host, port, type=1))  # SOCK_STREAM


@cache
def look_ups() -> LookUps:
    """Return the look-ups of this process."""
    return LookUps()
