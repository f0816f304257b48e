"""The routes of those who watch the bridge: statistics, explanations of jobs, and workers with their pauses."""

import re
from collections import Counter
from heapq import nlargest
from typing import Any

import structlog
from flask import g, request

from api.http.access import caller, runtime, scope
from api.http.body import Blueprint, no_body
from api.http.documented_errors import gives
from api.http.parts import parts
from api.http.views import asked_priority, json_response
from api.schemas import insight as schemas
from bridge.admission.keys import ids_of_tenant
from bridge.cursor import decode_cursor, encode_cursor
from bridge.errors import Invalid
from bridge.insight.explain import MOST_AHEAD, explain
from bridge.insight.scaling import scaling
from bridge.insight.sentences import clocks, sentences, waits_for
from bridge.insight.statistics import statistics
from bridge.jobs.release import evict
from bridge.names import API_BASE, API_ROOT, CONTENT_TYPE_PATTERN
from bridge.workers.pauses import pause, resume
from bridge.workers.registry import WorkerRegistry
from bridge.workers.roster import WorkerInfo, roster_of

MOST_WORKERS = 50  # of a job's explanation
MOST_TYPES = 200  # content types in the statistics, those with the most jobs

log = structlog.get_logger("api")
operators = Blueprint("operate", __name__, description="Monitor the bridge and pause workers.")


def _seen() -> WorkerRegistry:
    return parts().polls.pauses.seen


@operators.route(f"{API_BASE}/statistics", methods=["GET"])
@scope("read")
@operators.response(200, schemas.Statistics())
@gives(operators)
def show_statistics() -> Any:
    """Return counts by status and content type (from counters), ages, durations, and the state of the sweeps."""
    numbers = statistics(runtime(), _seen(), caller().tenant)
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
    """Explain a job's state: what is ahead, which workers could take it, which clock runs; as fields and sentences."""
    facts = explain(runtime(), _seen(), caller().tenant, job_id, keys=runtime().settings.auth)
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
            "workers": [_worker(hand) for hand in hands[:MOST_WORKERS]],
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


@operators.route(f"{API_ROOT}/workers", methods=["GET"])
@scope("read")
@operators.arguments(schemas.WorkersQuery(), location="query")
@operators.response(200, schemas.WorkerList())
@gives(operators)
def list_workers(query: dict[str, Any]) -> Any:
    """List the workers that polled within the last hour, hold a job, or are paused."""
    (start,) = (0,) if query["cursor"] is None else decode_cursor(query["cursor"], int)
    known = roster_of(runtime(), _seen(), caller().tenant)
    end = start + query["limit"]
    return json_response(
        {
            "workers": [_worker(hand) for hand in known.hands[start:end]],
            "count": len(known.hands),
            "redis": "ok" if known.redis else "away",
            "next_cursor": encode_cursor(str(end)) if end < len(known.hands) else None,
        }
    )


@operators.route(f"{API_ROOT}/workers/<worker:worker_id>/pause", methods=["POST"])
@scope("admin")
@operators.arguments(schemas.PauseWorker())
@operators.response(200, schemas.PauseAnswer())
@gives(operators, body=True)
def pause_worker(body: dict[str, Any], worker_id: str) -> Any:
    """Pause a worker: its polls, waiting ones included, get 429 `paused` with the reason. It keeps its jobs."""
    until = pause(runtime(), caller().tenant, checked(worker_id), body["reason"], body["seconds"], body["key"])
    log.info("worker_paused", worker_id=worker_id, seconds=body["seconds"], reason=body["reason"])
    return json_response({"worker_id": worker_id, "paused": True, "drain": False, "until": until})


@operators.route(f"{API_ROOT}/workers/<worker:worker_id>/drain", methods=["POST"])
@scope("admin")
@operators.arguments(schemas.DrainWorker(), required=False)
@operators.response(200, schemas.PauseAnswer())
@gives(operators, body=True)
def drain_worker(body: dict[str, Any], worker_id: str) -> Any:
    """Ask a worker, at its next poll or heartbeat, to finish what it holds and to end; `resume` takes it back."""
    asked = schemas.DrainWorker().load({}) | body
    reason, seconds = asked["reason"], asked["seconds"]
    until = pause(runtime(), caller().tenant, checked(worker_id), reason, seconds, asked["key"], drain=True)
    log.info("worker_drained", worker_id=worker_id, seconds=seconds, reason=reason)
    return json_response({"worker_id": worker_id, "paused": True, "drain": True, "until": until})


@operators.route(f"{API_ROOT}/workers/<worker:worker_id>/resume", methods=["POST"])
@scope("admin")
@operators.arguments(schemas.ResumeWorker(), required=False)
@operators.response(200, schemas.PauseAnswer())
@gives(operators, body=True)
def resume_worker(body: dict[str, Any], worker_id: str) -> Any:
    """Resume a worker, whoever paused or drained it; a no-op if nobody did."""
    resume(runtime(), caller().tenant, checked(worker_id), body.get("key"))
    log.info("worker_resumed", worker_id=worker_id)
    return json_response({"worker_id": worker_id, "paused": False, "drain": False, "until": None})


@operators.route(f"{API_ROOT}/workers/<worker:worker_id>/evict", methods=["POST"])
@scope("admin", "work")
@operators.response(200, schemas.Evicted())
@gives(operators, body=True)
def evict_worker(worker_id: str) -> Any:
    """Put back at the head, without spending a retry, all that a worker holds that is gone. Idempotent.

    A key with scope work evicts its own workers; an admin those of every key of the tenant.
    """
    no_body(request)
    return json_response({"worker_id": worker_id, "released": _evict([checked(worker_id)])[worker_id]})


@operators.route(f"{API_ROOT}/workers/evict", methods=["POST"])
@scope("admin", "work")
@operators.arguments(schemas.EvictWorkers())
@operators.response(200, schemas.EvictedWorkers())
@gives(operators, body=True)
def evict_workers(body: dict[str, Any]) -> Any:
    """Put back what many workers hold that are gone, all of it at once. Idempotent."""
    released = _evict([checked(one) for one in dict.fromkeys(body["worker_ids"])])
    workers = [{"worker_id": one, "released": jobs} for one, jobs in released.items()]
    return json_response({"released": released.total(), "workers": workers})


def _evict(worker_ids: list[str]) -> Counter[str]:
    who = caller()
    with runtime().engine.connect() as connection:
        key_ids = ids_of_tenant(connection, who.tenant) if who.may("admin") else [who.key_id]
    released = evict(runtime(), who.tenant, worker_ids, key_ids)
    for worker_id, jobs in released.items():
        log.info("worker_evicted", worker_id=worker_id, released=jobs)
    return released


@operators.route(f"{API_ROOT}/scaling", methods=["GET"])
@scope("read")
@operators.arguments(schemas.ScalingQuery(), location="query")
@operators.response(200, schemas.Scaling())
@gives(operators)
def show_scaling(query: dict[str, Any]) -> Any:
    """How many workers each content type asks for, to clear its queue in a given time."""
    within = query["clear_within"]
    queues = scaling(runtime(), _seen(), caller().tenant, within)
    return json_response({"clear_within": within, "queues": [queue._asdict() for queue in queues]})


@operators.route(f"{API_ROOT}/scaling/<content_type>", methods=["GET"])
@scope("read")
@operators.arguments(schemas.ScalingQuery(), location="query")
@operators.response(200, schemas.QueueScale())
@gives(operators)
def show_scaling_of_type(query: dict[str, Any], content_type: str) -> Any:
    """The same of one content type, zeros where there is nothing to do: what KEDA's metrics-api scaler reads."""
    if not re.fullmatch(CONTENT_TYPE_PATTERN, content_type):
        raise Invalid({"content_type": ["Not a content type: use a-z 0-9 . _ and -."]})
    found = scaling(runtime(), _seen(), caller().tenant, query["clear_within"], content_type)
    return json_response(found[0]._asdict())


def checked(worker_id: str) -> str:
    """A worker's ID as a poll may name it. Raises Invalid."""
    if not 1 <= len(worker_id) <= 255 or "\x00" in worker_id:
        raise Invalid({"worker_id": ["Must have 1 to 255 characters and no NUL."]})
    return worker_id


def _worker(hand: WorkerInfo) -> dict[str, Any]:
    """schemas.ShownWorker"""
    paused = hand.pause
    return {
        "worker_id": hand.worker_id,
        "key": None if hand.key is None else hand.key._asdict(),
        "content_types": list(hand.content_types),
        "denied_content_types": list(hand.denied_content_types),
        "last_seen": hand.last_seen,
        "jobs_in_hand": hand.jobs_in_hand,
        "slots_busy": hand.slots.busy,
        "slots_free": hand.slots.free,
        "facts": hand.facts._asdict(),
        "job_ids": list(hand.job_ids),
        "paused": None
        if paused is None
        else {
            "by": paused.by,
            "reason": paused.reason,
            "paused_at": paused.paused_at,
            "until": paused.until,
            "drain": paused.drain,
        },
    }
