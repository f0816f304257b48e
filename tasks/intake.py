"""Creates the pipeline's jobs. A message is acknowledged once it is decided, by a job or a refusal, and not before."""

import re
import time
from typing import Any

from celery import Task
from celery.exceptions import Reject, SoftTimeLimitExceeded
from marshmallow import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from bridge import names
from bridge.admission import json_guard
from bridge.admission.keys import signing_key, tenant_has_key
from bridge.caller import Caller
from bridge.crash_points import reach
from bridge.db import is_unavailable, sqlstate
from bridge.errors import BridgeError, Invalid, Unavailable
from bridge.jobs.enqueue import enqueue
from bridge.jobs.fields import CreateFields
from tasks.app import app, runtime

FIELDS = CreateFields()
MOST_TENANTS = 10_000  # that a process remembers
LONGEST_DELAY_SECONDS = 30  # before a retry; celeryconfig's visibility_timeout is longer

_tenants = {names.DEFAULT_TENANT}  # for which a key was ever created: this does not change


class Refused(Exception):
    """The fields cannot be accepted; the text names each one. Sending the task again will not help."""


@app.task(
    name=names.ENQUEUE,
    bind=True,
    ignore_result=False,
    max_retries=None,
    throws=(Refused,),
    acks_on_timeout=False,  # at the hard time limit nothing is decided yet: the message goes back
)
def enqueue_remote_job(
    self: Task[Any, Any],
    /,
    idempotency_key: str | None = None,
    tenant: str = names.DEFAULT_TENANT,
    callback_key: str | None = None,
    **fields: Any,
) -> dict[str, str]:
    """Create a job. A redelivered task creates no second one: its own ID is the idempotency key where none is given.

    `callback_key`: the prefix of the tenant's key in whose name receivers are called.
    """
    try:
        reach("intake.before_create")
        json_guard.check({"tenant": tenant, "idempotency_key": idempotency_key, **fields})
        created = enqueue(
            runtime(),
            _tenant(tenant),
            FIELDS.load(fields),
            idempotency_key=_key(self.request.id if idempotency_key is None else idempotency_key),
            waited=True,
            admit=lambda: _refuse_unknown(tenant),
            asks=_asks(tenant, callback_key),
        )
        reach("intake.after_create")
    except ValidationError as error:
        raise Refused(Invalid(dict(error.messages_dict)).detail) from None
    except json_guard.Refused as refusal:
        raise Refused(Invalid(refusal.errors).detail) from None
    except (Unavailable, SoftTimeLimitExceeded) as error:
        raise _later(self, error) from error
    except BridgeError as error:
        raise Refused(error.detail) from None
    except SQLAlchemyError as error:
        if (sqlstate(error) or "")[:2] in ("22", "54"):  # a value that the guard let through, as over HTTP
            raise Refused("The request was refused. PostgreSQL cannot store a value of it.") from None
        if not is_unavailable(error):
            raise
        raise _later(self, error) from error
    return {
        "job_id": str(created.job_id),
        "status": str(created.status),
        "created_at": created.created_at.isoformat(),
    }


def _later(task: Task[Any, Any], error: Exception) -> Exception:
    """Postpone the task and return what to raise. It is retried for ever, with growing delays."""
    try:
        countdown = min(2**task.request.retries, LONGEST_DELAY_SECONDS)
        return task.retry(exc=error, countdown=countdown, throw=False)
    except Reject:  # The broker takes no delayed message, and Celery would drop the current one as well.
        time.sleep(1)
        return Reject(error, requeue=True)


def _refuse_unknown(tenant: str) -> None:
    """Raise Invalid for an unknown tenant: nobody could see or process a job of a misspelt one."""
    if tenant in _tenants:
        return
    with runtime().single.connect() as connection:
        if not tenant_has_key(connection, tenant):
            raise Invalid({"tenant": ["It has never had a key: correct it, or create one (jobbridge keys create)."]})
    if len(_tenants) < MOST_TENANTS:
        _tenants.add(tenant)


def _asks(tenant: str, callback_key: object) -> Caller:
    """Return the caller whose key signs webhooks. Raises Invalid."""
    if callback_key is None:
        return Caller(tenant=tenant)
    with runtime().single.connect() as connection:
        found = signing_key(connection, str(callback_key), tenant)
    if found is None:
        raise Invalid({"callback_key": ["No valid key of the tenant with a webhook secret has this prefix."]})
    return Caller(found.id, tenant, callback_url=found.callback_url, signs=True)


def _tenant(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(names.TENANT_PATTERN, value):
        raise Invalid({"tenant": ["Must be 1 to 50 characters of a-z 0-9 . _ and -."]})
    return value


def _key(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 255:
        raise Invalid({"idempotency_key": ["Must be text of 1 to 255 characters."]})
    return value
