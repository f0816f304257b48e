"""The routes for monitoring: statistics, explanations of jobs, how many workers are needed."""

import re
from heapq import nlargest
from typing import Any

from flask import g

from api.http.access import caller, runtime, scope, seen
from api.http.body import Blueprint
from api.http.documented_errors import gives
from api.http.views import asked_priority, json_response, worker_view
from api.schemas import insight as schemas
from bridge.errors import Invalid
from bridge.insight.explain import MOST_AHEAD, explain
from bridge.insight.scaling import scaling
from bridge.insight.sentences import clocks, sentences, waits_for
from bridge.insight.statistics import statistics
from bridge.names import API_BASE, API_ROOT, CONTENT_TYPE_PATTERN

MOST_WORKERS = 50  # of a job's explanation
MOST_TYPES = 200  # content types in the statistics, those with the most jobs

operators = Blueprint("operate", __name__, description="Monitor the bridge and pause workers.")


@operators.route(f"{API_BASE}/statistics", methods=["GET"])
@scope("read")
@operators.response(200, schemas.Statistics())
@gives(operators)
def show_statistics() -> Any:
    """Return counts by status and content type (from counters), ages, durations, and the state of the sweeps."""
    numbers = statistics(runtime(), seen(), caller().tenant)
    by_status: dict[str, int] = {}
    every: dict[str, dict[str, int]] = {}
    for content_type, status, jobs in numbers.counts:
        by_status[status] = by_status.get(status, 0) + jobs
        every.setdefault(content_type, {})[status] = jobs
    shown = nlargest(MOST_TYPES, every, key=lambda one: sum(every[one].values()))
    by_type = {content_type: every[content_type] for content_type in shown}
    return json_response(
        {
            "by_status": by_status,
            "by_content_type": by_type,
            "content_types": len(every),
            "oldest_pending_seconds": max(numbers.oldest.values(), default=None),
            "oldest_pending_seconds_by_content_type": {
                one: seconds for one, seconds in numbers.oldest.items() if one in by_type
            },
            "median_durations": {
                row.content_type: {"seconds": row.median_seconds, "jobs": row.jobs}
                for row in numbers.medians
                if row.content_type in by_type
            },
            "parked_polls": numbers.parked_polls,
            "sweeps": [
                {
                    "name": sweep.name,
                    "age_seconds": sweep.age,
                    "took_seconds": sweep.seconds,
                    "changed": sweep.changed,
                    "backlog": numbers.backlog.get(sweep.name),
                }
                for sweep in numbers.sweeps
            ],
        }
    )


@operators.route(f"{API_BASE}/<job:job_id>/explain", methods=["GET"])
@scope("read", "submit")
@operators.response(200, schemas.Explanation())
@gives(operators, 404)
def explain_job(job_id: str) -> Any:
    """Explain a job's state as fields and sentences: jobs ahead, workers that could take it, running clocks."""
    facts = explain(runtime(), seen(), caller().tenant, job_id, keys=runtime().settings.auth)
    job = facts.job
    g.job_status = job.status
    hands = [*facts.accepting, *([facts.holder] if facts.holder else [])]
    return json_response(
        {
            "job_id": job.id,
            "status": job.status,
            "content_type": job.content_type,
            "priority": asked_priority(job),
            "sentences": sentences(facts),
            "waits_for": waits_for(facts),
            "available_at": job.available_at,
            "jobs_ahead": facts.jobs_ahead,
            "jobs_ahead_or_more": facts.jobs_ahead == MOST_AHEAD,
            "workers": [worker_view(hand) for hand in hands[:MOST_WORKERS]],
            "workers_count": len(hands),
            "clocks": [clock._asdict() for clock in clocks(facts)],
            "estimated_start": facts.starts_at,
            "estimated_completion": facts.completes_at,
            "attempts": [dict(attempt._mapping) for attempt in facts.attempts],
            "completed_at": job.completed_at,
            "error_message": job.error_message,
            "continuation": None if facts.continuation is None else dict(facts.continuation._mapping),
        }
    )


@operators.route(f"{API_ROOT}/scaling", methods=["GET"])
@scope("read")
@operators.arguments(schemas.ScalingQuery(), location="query")
@operators.response(200, schemas.Scaling())
@gives(operators)
def show_scaling(query: dict[str, Any]) -> Any:
    """Return how many workers each content type needs to clear its queue within a given time."""
    within = query["clear_within"]
    queues = scaling(runtime(), seen(), caller().tenant, within)
    return json_response({"clear_within": within, "queues": [queue._asdict() for queue in queues]})


@operators.route(f"{API_ROOT}/scaling/<content_type>", methods=["GET"])
@scope("read")
@operators.arguments(schemas.ScalingQuery(), location="query")
@operators.response(200, schemas.QueueScale())
@gives(operators)
def show_scaling_of_type(query: dict[str, Any], content_type: str) -> Any:
    """Return the same for one content type, zeros if there is nothing to do; for KEDA's metrics-api scaler."""
    if not re.fullmatch(CONTENT_TYPE_PATTERN, content_type):
        raise Invalid({"content_type": ["Not a content type: use a-z 0-9 . _ and -."]})
    found = scaling(runtime(), seen(), caller().tenant, query["clear_within"], content_type)
    return json_response(found[0]._asdict())
