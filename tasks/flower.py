"""The Celery application for Flower (`celery -A tasks.flower`): Flower's broker page shows every queue.

Flower lists the queues of the workers that answer, else those of the settings. The pipeline's queue is neither, and it
is the one that fills while nobody consumes it.
"""

from typing import Any

from flower.views import BaseHandler

from bridge import names
from bridge.settings import load_settings
from tasks.app import app

_answered = BaseHandler.get_active_queue_names


def _all_queues(page: Any) -> list[str]:
    """Return the queues that workers answer for, the bridge's own, and the one that outcomes are sent to."""
    settings = load_settings()
    outcomes = {settings.continuation_queue} if settings.continuation_task else set()
    return sorted({*_answered(page), *names.QUEUES, *outcomes})


BaseHandler.get_active_queue_names = _all_queues  # type: ignore[method-assign]

__all__ = ["app"]
