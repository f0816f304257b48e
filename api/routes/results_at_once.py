"""Many results of one key in one request, each judged as if it had come alone."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import gevent
from flask import Request
from marshmallow import Schema, ValidationError

from api.http.access import caller, limits, runtime, scope
from api.http.body import Blueprint, StrictParser, Unstorable, read_json
from api.http.broken_results import REFUSED_VALUE, spend, token_in, unstorable
from api.http.counted import REFUSED
from api.http.documented_errors import gives
from api.http.problems import UNSTORABLE, flat, is_refused_value, refusal_body
from api.http.views import json_response
from api.routes.work import accepted_view, note_accepted
from api.schemas.results import JobResult, Results, ResultsAnswer
from bridge.admission import json_guard
from bridge.crash_points import reach
from bridge.errors import BridgeError, Conflict, Invalid
from bridge.jobs.submit_many import Outcome, Submission, submit_many
from bridge.jobs.submit_result import Accepted
from bridge.names import API_ROOT

RESULT = JobResult()


class _Parser(StrictParser):
    """Puts the guard's refusal of a result in the result's place."""

    def load_json(self, req: Request, schema: Schema) -> Any:
        return read_json(req, partial(json_guard.parse_each, name="results"))


class _Blueprint(Blueprint):
    ARGUMENTS_PARSER = _Parser()


results = _Blueprint("results", __name__, url_prefix=API_ROOT, description="Submit many results at once (workers).")


@results.route("/results", methods=["POST"])
@scope("work")
@results.arguments(Results())
@results.response(200, ResultsAnswer())
@gives(results, body=True)
def submit_results(sent: dict[str, Any]) -> Any:
    """Submit up to 100 results, each judged separately; the answers are in the same order. May be repeated."""
    items = sent["results"]
    limits().as_many(caller().key_id, caller().tenant, len(items))
    read = list(map(_read, _in_turns(items)))
    submissions = [one for one in read if isinstance(one, Submission)]
    outcomes = iter(submit_many(runtime(), caller(), submissions))
    told = [
        _told(one, next(outcomes)) if isinstance(one, Submission) else _broken(item, one)
        for item, one in zip(items, read, strict=True)
    ]
    reach("results.before_answer")
    return json_response({"results": told})


def _in_turns(items: list[Any]) -> Iterator[Any]:
    """Yield each item, and let others run in between: a hundred with a thousand artifacts each take two seconds."""
    for item in items:
        yield item
        gevent.sleep(0)


def _read(item: Any) -> Submission | Invalid:
    """Return a result, or what is wrong with its form."""
    if isinstance(item, json_guard.Refused):
        return Unstorable.of(item)
    try:
        loaded: dict[str, Any] = RESULT.load(item)
    except ValidationError as error:
        return Invalid(flat(error.normalized_messages()))
    loaded["retryable"] = loaded["retryable"] is not False
    return Submission(loaded.pop("job_id"), loaded, loaded["lease_token"])


def _told(one: Submission, outcome: Outcome) -> dict[str, Any]:
    """Return a schemas.JobResultAnswer. Raises SQLAlchemyError when PostgreSQL does not answer."""
    if isinstance(outcome, Accepted):
        note_accepted(outcome)
        return {**accepted_view(outcome), "problem": None}
    if isinstance(outcome, Conflict):
        REFUSED.inc(outcome.code)
    if isinstance(outcome, Invalid):  # its files are missing, or not text
        outcome.job_status = spend(one.job_id, lambda: one.token, outcome.detail)
    if isinstance(outcome, BridgeError):
        return _refused(outcome)
    if not is_refused_value(outcome):
        raise outcome
    status = spend(one.job_id, lambda: one.token, REFUSED_VALUE)
    return _refused(Invalid(dict(UNSTORABLE), job_status=status))


def _broken(item: Any, refusal: Invalid) -> dict[str, Any]:
    """End the attempt of a result that can never be accepted, as far as the result names it, and return the answer."""
    if isinstance(refusal, Unstorable):
        item = item.body
    job_id = item.get("job_id") if isinstance(item, dict) else None
    if not isinstance(job_id, str):
        return _refused(refusal)
    if not isinstance(refusal, Unstorable):
        refusal.job_status = spend(job_id, lambda: token_in(item), refusal.detail)
        return _refused(refusal)
    try:
        return _refused(unstorable(job_id, refusal.token, refusal))
    except BridgeError as foreign:
        return _refused(foreign)


def _refused(refusal: BridgeError) -> dict[str, Any]:
    return {"status": refusal.job_status, "ingestion_continued": None, "problem": refusal_body(refusal)}
