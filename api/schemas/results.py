"""Many results at once."""

from marshmallow import EXCLUDE, Schema, fields, validate

from api.schemas.problem import STATES, Problem
from api.schemas.strict import Untouched
from api.schemas.work import Result
from bridge.bounded_schema import BoundedList

MOST = 100


class JobResult(Result):
    """A result, and what it is of."""

    job_id = fields.String(required=True, metadata={"format": "uuid"})


class Results(Schema):
    """Up to 100 results."""

    class Meta:
        unknown = EXCLUDE

    results = BoundedList(Untouched(JobResult()), most=MOST, required=True)


class JobResultAnswer(Schema):
    """What became of one of them: `problem` is null when it was accepted."""

    status = fields.String(
        required=True,
        allow_none=True,
        validate=validate.OneOf([*STATES, None]),
        metadata={"description": "The job's state; null where the bridge did not come to look at the job."},
    )
    ingestion_continued = fields.Boolean(required=True, allow_none=True)
    problem = fields.Nested(Problem(), required=True, allow_none=True)


class ResultsAnswer(Schema):
    """The answers, each in the place of its result."""

    results = fields.List(fields.Nested(JobResultAnswer()), required=True)
