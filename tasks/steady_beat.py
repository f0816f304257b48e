"""Beat's schedule by a monotonic clock: sweeps run on, whatever happens to the machine's time."""

import time
from collections.abc import Callable
from typing import Any

from celery import beat

from bridge import names
from bridge.background import Supervised
from bridge.broker import lying

# Queued sweeps that no Celery worker takes; each finds all that is due, so more of them are of no use.
MOST_LYING = 50
FIRST_SECONDS = 600.0  # after the start, at the latest: rare sweeps run even if beat is restarted often
PAUSE_SECONDS = 1.0  # while nothing can be sent, or needs to be


class Steady(beat.Scheduler):
    """Sends each sweep once in its period, counted from beat's start; keeps nothing on disk.

    Celery's own uses the machine's time: set back by two minutes, it sends nothing for two minutes.
    """

    def __init__(self, *args: Any, monotonic: Callable[[], float] = time.monotonic, **options: Any) -> None:
        self._monotonic = monotonic
        self._due: dict[str, float] = {}
        self._steadily = Supervised("look at the sweeps' queue")
        self._lying = 0
        super().__init__(*args, **options)

    def tick(self, *_: Any, **__: Any) -> float:
        """Send what is due and return the seconds until something is due again."""
        now = self._monotonic()
        if not self._due:
            self._due = {name: now + _first(_seconds(entry)) for name, entry in self.schedule.items()}
        due = [name for name, at in self._due.items() if at <= now]
        if due and self._unread():
            return PAUSE_SECONDS
        for name in due:
            # From now, not from when it was due: sweeps missed in a long pause are not caught up on.
            self._due[name] = now + _seconds(self.schedule[name])
            self.apply_entry(self.schedule[name], producer=self.producer)
        return max(0.01, min(self._due.values()) - self._monotonic())

    def _unread(self) -> bool:
        """Return whether too many sweeps lie unread; where the broker does not answer, nothing can be sent either."""
        return not self._steadily(self._look) or self._lying >= MOST_LYING

    def _look(self) -> None:
        self._lying = lying(self.app, names.SWEEPS)


def _seconds(entry: Any) -> float:
    return float(entry.schedule.run_every.total_seconds())


def _first(period: float) -> float:
    return 0.0 if period < 60 else min(period, FIRST_SECONDS)
