"""Many results at once."""

from marshmallow import Schema, fields
from marshmallow.validate import OneOf

from api.schemas.problem import STATES, Problem
from api.schemas.strict import Untouched
from api.schemas.work import Result
from bridge.bounded_schema import BoundedList, Lenient, member

MOST = 100


class JobResult(Result):
    """A result, and the job it belongs to."""

    job_id = fields.String(required=True, metadata={"format": "uuid"})


class Results(Lenient):
    """Up to 100 results."""

    results = BoundedList(Untouched(JobResult()), most=MOST, required=True)


class JobResultAnswer(Schema):
    """The answer to one result: `problem` is null if it was accepted."""

    status = member(
        fields.String,
        "The job's state; null if the bridge did not look the job up.",
        null=True,
        validate=OneOf([*STATES, None]),
    )
    ingestion_continued = fields.Boolean(required=True, allow_none=True)
    problem = fields.Nested(Problem(), required=True, allow_none=True)


class ResultsAnswer(Schema):
    """The answers, in the order of the results."""

    results = fields.List(fields.Nested(JobResultAnswer()), required=True)
