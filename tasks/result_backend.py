"""Celery's result backend for bridge.enqueue_remote_job: a success is stored without reading the stored one first."""

from typing import Any

from celery.backends.redis import RedisBackend, SentinelBackend
from celery.loaders.app import AppLoader
from celery.states import SUCCESS


class Redis(RedisBackend):
    """Stores a success at once. Celery reads first whether one is stored, which a failure must not replace.

    A success may replace another: it answers the same idempotency key, and names the same job.
    """

    _get_result_meta: Any
    _set_with_state: Any

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        if state != SUCCESS:
            return super()._store_result(task_id, result, state, traceback, request, **kwargs)  # type: ignore[misc]
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        stored = self.encode({**meta, "task_id": task_id})
        self._set_with_state(self.get_key_for_task(task_id), stored, state)
        return result


class Sentinel(Redis, SentinelBackend):
    """The same for a Redis that Sentinel watches."""


class Loader(AppLoader):
    """Selects these backends by the scheme of the broker's address."""

    override_backends = {
        "redis": "tasks.result_backend:Redis",
        "rediss": "tasks.result_backend:Redis",
        "sentinel": "tasks.result_backend:Sentinel",
    }
