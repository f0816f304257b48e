"""What is done when something else changed a job between the look at it and the guarded UPDATE."""

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Row

from bridge.errors import Conflict
from bridge.jobs.read import find
from bridge.runtime import Runtime

T = TypeVar("T")
MOST_LOOKS = 5


def again_if_lost(runtime: Runtime, tenant: str, job_id: str, once: Callable[[Row[Any]], T | None]) -> T:
    """Return what `once` makes of the job as it is now; where it returns None, its UPDATE lost a race: look again.

    Raises NotFound, what `once` raises, and Conflict where the job changed at each of MOST_LOOKS looks.
    """
    for _ in range(MOST_LOOKS):
        job = find(runtime, tenant, job_id)
        if (done := once(job)) is not None:
            return done
    raise Conflict("The job changed too often while the request was checked; send it again.", job_status=job.status)
