"""Where answers to bridge.enqueue_remote_job are kept: Celery's own backend, without a look before."""

from typing import Any

from celery.backends.redis import RedisBackend, SentinelBackend
from celery.loaders.app import AppLoader
from celery.states import SUCCESS


class _Straight:
    """Keeps a success at once. Celery asks first whether one is kept already, which a failure must not replace.

    A success may replace another one: it is the answer of the same key, and names the same job.
    """

    _get_result_meta: Any
    _set_with_state: Any
    encode: Any
    get_key_for_task: Any

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        if state != SUCCESS:
            return super()._store_result(task_id, result, state, traceback, request, **kwargs)  # type: ignore[misc]
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        kept = self.encode({**meta, "task_id": task_id})
        self._set_with_state(self.get_key_for_task(task_id), kept, state)
        return result


class Redis(_Straight, RedisBackend):
    """At one address."""


class Sentinel(_Straight, SentinelBackend):
    """Where sentinels say."""


class Loader(AppLoader):
    """Knows these by the schemes of the broker's address."""

    override_backends = {
        "redis": "tasks.answers:Redis",
        "rediss": "tasks.answers:Redis",
        "sentinel": "tasks.answers:Sentinel",
    }
