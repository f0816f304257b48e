"""The routes that list workers, and pause, drain, resume and evict them."""

from collections import Counter
from typing import Any

import structlog
from flask import request

from api.http.access import caller, runtime, scope, seen
from api.http.body import no_body
from api.http.documented_errors import gives
from api.http.views import json_response, worker_view
from api.routes.insight import operators
from api.schemas import insight as schemas
from bridge.admission.keys import ids_of_tenant
from bridge.cursor import decode_cursor, encode_cursor
from bridge.errors import Invalid
from bridge.jobs.release import evict
from bridge.names import API_ROOT
from bridge.workers.pauses import pause, resume
from bridge.workers.roster import roster_of

log = structlog.get_logger("api")


@operators.route(f"{API_ROOT}/workers", methods=["GET"])
@scope("read")
@operators.arguments(schemas.WorkersQuery(), location="query")
@operators.response(200, schemas.WorkerList())
@gives(operators)
def list_workers(query: dict[str, Any]) -> Any:
    """List the workers that polled within the last hour, hold a job, or are paused."""
    (start,) = (0,) if query["cursor"] is None else decode_cursor(query["cursor"], int)
    known = roster_of(runtime(), seen(), caller().tenant)
    end = start + query["limit"]
    return json_response(
        {
            "workers": [worker_view(hand) for hand in known.hands[start:end]],
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
    """Ask a worker, at its next poll or heartbeat, to finish what it holds and to end; `resume` undoes it."""
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
    """Return all jobs of a vanished worker to the head of their queues, without spending a retry. Idempotent.

    A key with scope work evicts its own workers; an admin, those of every key of the tenant.
    """
    no_body(request)
    return json_response({"worker_id": worker_id, "released": _evict([checked(worker_id)])[worker_id]})


@operators.route(f"{API_ROOT}/workers/evict", methods=["POST"])
@scope("admin", "work")
@operators.arguments(schemas.EvictWorkers())
@operators.response(200, schemas.EvictedWorkers())
@gives(operators, body=True)
def evict_workers(body: dict[str, Any]) -> Any:
    """Return the jobs of many vanished workers to their queues, in one request. Idempotent."""
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


def checked(worker_id: str) -> str:
    """Return a worker's ID if a poll may name it. Raises Invalid."""
    if not 1 <= len(worker_id) <= 255 or "\x00" in worker_id:
        raise Invalid({"worker_id": ["Must have 1 to 255 characters and no NUL."]})
    return worker_id
