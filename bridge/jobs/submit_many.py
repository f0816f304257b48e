"""Accept many results of one key: each is judged alone, the successes are written by one statement.

Those that the statement passes over, and everything but a success, go the way of single results
(bridge.jobs.submit_result), in their order.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from bridge.caller import Caller
from bridge.db import is_of_a_row
from bridge.errors import BridgeError, NotFound
from bridge.jobs import complete
from bridge.jobs.complete import Success
from bridge.jobs.result_files import named_in
from bridge.jobs.submit_result import Accepted, accepted, judge, success_of
from bridge.runtime import Runtime
from models.job_state import JobState


class Submission(NamedTuple):
    """A result and the job that it is for."""

    job_id: str
    result: Mapping[str, Any]  # as bridge.jobs.submit_result.submit takes it
    token: str | None


# Of each in its place: the answer, or why there is none. A SQLAlchemyError is a value that PostgreSQL refuses.
Outcome = Accepted | BridgeError | SQLAlchemyError


def submit_many(runtime: Runtime, caller: Caller, submissions: Sequence[Submission]) -> list[Outcome]:
    """Submit results; return the outcome of each. Raises SQLAlchemyError if PostgreSQL does not answer: then some may
    be accepted, and all may be sent again."""
    done = _completed(runtime, _successes(caller, submissions))
    return [
        done[place] if place in done else _judged(runtime, caller, submission)
        for place, submission in enumerate(submissions)
    ]


def _successes(caller: Caller, submissions: Sequence[Submission]) -> dict[int, Success]:
    """Return those that may be tried without a look, by place: of several about one job, only the first."""
    seen, successes = set(), {}
    for place, (job_id, result, token) in enumerate(submissions):
        try:
            success = success_of(caller, job_id, result, token)
        except NotFound:
            continue
        if result["success"] and not named_in(result) and success.job_id not in seen:
            successes[place] = success
        seen.add(success.job_id)
    return successes


def _completed(runtime: Runtime, successes: Mapping[int, Success]) -> dict[int, Outcome]:
    """Write the successes; return the answers to those that were written, by place."""
    small = [place for place, success in successes.items() if not complete.is_large(success)]
    large = [[place] for place, success in successes.items() if complete.is_large(success)]
    done: dict[int, Outcome] = {}
    for places in filter(None, [small, *large]):
        try:
            rows = complete.TOGETHER.run(runtime, [successes[place] for place in places])
        except Exception as error:
            if not is_of_a_row(error):
                raise
            continue  # judging each alone shows which one it was
        for place, row in zip(places, rows, strict=True):
            if row is not None:
                done[place] = accepted(runtime, JobState(row.status))
    return done


def _judged(runtime: Runtime, caller: Caller, submission: Submission) -> Outcome:
    try:
        return judge(runtime, caller, *submission)
    except BridgeError as refusal:
        return refusal
    except SQLAlchemyError as error:
        if not is_of_a_row(error):
            raise
        return error
