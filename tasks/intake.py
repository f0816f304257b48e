"""The pipeline's way in."""

import re
from typing import Any

from celery import Task
from marshmallow import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from bridge import json_guard, names
from bridge.crash_points import reach
from bridge.db import is_unavailable
from bridge.enqueue import enqueue
from bridge.errors import BridgeError, Invalid
from bridge.job_fields import CreateFields
from tasks.app import app, runtime


class Refused(Exception):
    """The fields cannot be accepted; the text names each one. Sending the task again will not help."""


@app.task(name=names.ENQUEUE, bind=True, ignore_result=False, max_retries=None, throws=(Refused,))
def enqueue_remote_job(
    self: Task,
    idempotency_key: str | None = None,
    tenant: str = names.DEFAULT_TENANT,
    **fields: Any,
) -> dict[str, str]:
    """Create a job. A redelivered task makes no second one: its own ID is the key where none is given."""
    try:
        reach("intake.before_create")
        json_guard.check({"tenant": tenant, "idempotency_key": idempotency_key, **fields})
        created = enqueue(
            runtime(),
            _tenant(tenant),
            CreateFields().load(fields),
            idempotency_key=_key(self.request.id if idempotency_key is None else idempotency_key),
            waited=True,
        )
        reach("intake.after_create")
    except ValidationError as error:
        raise Refused(Invalid(dict(error.messages_dict)).detail) from None
    except json_guard.Refused as refusal:
        raise Refused(Invalid(refusal.errors).detail) from None
    except BridgeError as error:
        raise Refused(error.detail) from None
    except SQLAlchemyError as error:
        if not is_unavailable(error):
            raise
        raise self.retry(exc=error, countdown=min(2**self.request.retries, 60)) from error
    return {
        "job_id": str(created.job_id),
        "status": str(created.status),
        "created_at": created.created_at.isoformat(),
    }


def _tenant(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(names.TENANT_PATTERN, value):
        raise Invalid({"tenant": ["Must be 1 to 50 characters of a-z 0-9 . _ and -."]})
    return value


def _key(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 255:
        raise Invalid({"idempotency_key": ["Must be text of 1 to 255 characters."]})
    return value
