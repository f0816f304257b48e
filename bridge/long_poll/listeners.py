"""The listeners of the dispatcher: one blocking BLMOVE connection for each list that a parked poll waits for."""

from collections.abc import Callable

import gevent
import redis
from gevent.event import Event

from bridge.crash_points import reach
from bridge.mirror.lists import Mirror
from bridge.queues import Entry, Queue
from models.job_state import Priority

BLOCK_SECONDS = 1.0  # also how long a listener may outlast the last poll that wanted it
MOST_LISTENERS = 256  # connections to Redis; jobs of further queues are found in PostgreSQL, once a second


class Listeners:
    """Listens for the queues that somebody waits for, and hands each ID caught to `catch`."""

    def __init__(self, mirror: Mirror, catch: Callable[[Entry], None]) -> None:
        self._mirror = mirror
        self._catch = catch
        self._wanted: dict[Queue, Event] = {}
        self._greenlets: dict[Queue, list[gevent.Greenlet]] = {}

    def want(self, queue: Queue) -> None:
        """Listen for this queue: somebody waits for it."""
        if queue in self._wanted:
            self._wanted[queue].set()
        elif (len(self._wanted) + 1) * len(Priority) <= MOST_LISTENERS:
            wanted = self._wanted[queue] = Event()
            wanted.set()
            self._greenlets[queue] = [gevent.spawn(self._listen, queue, p, wanted) for p in Priority]

    def rest(self, queue: Queue) -> None:
        """Stop listening for this queue: nobody waits for it at the moment."""
        if queue in self._wanted:
            self._wanted[queue].clear()

    def prune(self) -> None:
        """Close the listeners of queues that nobody waits for."""
        for queue in [queue for queue, wanted in self._wanted.items() if not wanted.is_set()]:
            del self._wanted[queue]
            gevent.killall(self._greenlets.pop(queue), block=False)

    def close(self) -> None:
        for wanted in self._wanted.values():
            wanted.clear()
        self.prune()

    def _listen(self, queue: Queue, priority: Priority, wanted: Event) -> None:
        listener = self._mirror.listener(queue, priority, BLOCK_SECONDS)
        try:
            while True:
                wanted.wait()
                try:
                    job_id = listener.wait()
                except (redis.RedisError, OSError) as error:
                    # A refusal may be about this list; if it is about all, each second's look is refused too.
                    if not isinstance(error, redis.ResponseError):
                        self._mirror.breaker.failed("listen", error)
                    listener.close()
                    gevent.sleep(BLOCK_SECONDS)
                    continue
                self._mirror.breaker.try_again()
                if job_id is not None:
                    reach("claim.after_catch")
                    self._catch(Entry(queue, priority, job_id))
                    gevent.sleep(0)  # the claim is sent before the listener asks for the next one
        finally:
            # An ID that is on its way to this connection stays in the claimed list; repair returns it.
            listener.close()
