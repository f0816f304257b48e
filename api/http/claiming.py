"""Claims, for a poll and for a result that asks for the next job with its answer."""

import re
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flask import Response, g, request
from marshmallow import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.datastructures import MultiDict

from api.http.access import caller
from api.http.body import single
from api.http.connections import HungUp
from api.http.fixed_headers import POLL_HEADERS
from api.http.incoming import end_request
from api.http.parts import Parts, parts
from api.http.problems import flat, headers_of, refusal_body
from api.http.sending import refuse_without_room
from api.http.views import json_response, poll_answer
from api.schemas.facts import facts_of
from api.schemas.work import NextQuery
from bridge.admission.byte_budget import Budget
from bridge.caller import Caller
from bridge.crash_points import reach
from bridge.db import is_unavailable
from bridge.errors import BridgeError, Forbidden, Invalid, Unavailable
from bridge.job_events import REQUEST_ID
from bridge.jobs.claim import Claimant, Claimed
from bridge.jobs.claim_named import claim_named
from bridge.jobs.uploaded_sources import with_uploads
from bridge.long_poll.poll import Poll
from bridge.names import CONTENT_TYPE_PATTERN
from bridge.queues import Queue
from bridge.workers.slots import Slots

NEXT = NextQuery()


def poll_response(claimed: list[Claimed]) -> Response:
    """Return the claimed jobs as an answer."""
    return with_headers(POLL_HEADERS, json_response(poll_answer(claimed)))


def answer_with_next(accepted: dict[str, Any]) -> Response:
    """Return the answer to an accepted result, with the answer to the poll in its query; the body is freed before the
    wait."""
    g.pop("body", None)
    end_request()
    told, headers = next_claim(parts(), caller(), request.args, request.environ.get("gunicorn.socket"))
    return with_headers(headers, json_response({**accepted, **told}))


def next_claim(
    bridge: Parts, asks: Caller, query: MultiDict[str, str] | dict[str, str], connection: socket.socket | None
) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
    """Return `next`, the answer to a poll with this query, or `next_problem`, why it is refused; and the headers.

    The result has been accepted, and no refusal may replace that answer. Raises SQLAlchemyError for a defect only.
    """
    refusal: BridgeError
    bridge.limits.as_many(asks.key_id, asks.tenant, 2)
    try:
        parameters = NEXT.load(single(query) if isinstance(query, MultiDict) else query)
        return {"next": poll_answer(claim_for(bridge, asks, parameters, connection))}, POLL_HEADERS
    except ValidationError as error:
        refusal = Invalid(flat(error.normalized_messages()))
    except BridgeError as error:
        refusal = error
    except SQLAlchemyError as error:
        if not is_unavailable(error):
            raise
        refusal = Unavailable("PostgreSQL does not answer at the moment; the result is accepted, poll again.")
    return {"next": None, "next_problem": refusal_body(refusal)}, tuple(headers_of(refusal).items())


def with_headers(headers: tuple[tuple[str, str], ...], response: Response) -> Response:
    """Set these headers on the response and return it."""
    for name, value in headers:
        response.headers[name] = value
    return response


def claim_for(bridge: Parts, asks: Caller, query: Mapping[str, Any], connection: socket.socket | None) -> list[Claimed]:
    """Return the jobs that a poll gets, however it came in. Raises BridgeError, SQLAlchemyError."""
    types, denied = _content_types(query["content_types"], asks)
    who = Claimant(asks.key_id, query["worker_id"], query["lease"], query["claim_id"], asks.tenant, ",".join(types))
    if not types:
        bridge.polls.refuse_all(who, denied)
        raise Forbidden(f"This key is limited to the content types {', '.join(sorted(asks.content_types or ()))}.")
    refuse_without_room(bridge.limits.answers, asks)
    asking = Poll(
        who,
        [Queue(asks.tenant, content_type) for content_type in types],
        query["max_jobs"],
        _gone(bridge.limits.answers, asks, connection),
        connection,
        slots=Slots(query["slots_busy"], query["slots_free"]),
        facts=facts_of(query),
        denied=denied,
        request_id=REQUEST_ID.get(),
    )
    claimed = bridge.polls.claim(asking, query["wait"])
    if asking.hung_up and not claimed:
        raise HungUp  # thousands of answers that nobody reads would keep others waiting
    reach("claim.before_answer", claimed and not asking.again)
    return with_uploads(bridge.runtime, claimed)


def claim_one(bridge: Parts, asks: Caller, job_id: str, asked: Mapping[str, Any]) -> Claimed:
    """Claim a job by its ID and return it. Raises BridgeError, SQLAlchemyError."""
    refuse_without_room(bridge.limits.answers, asks)
    named = claim_named(
        bridge.runtime,
        asks,
        job_id,
        asked["worker_id"],
        lease=asked["lease"],
        claim_id=asked["claim_id"],
        admit=partial(bridge.limits.room, asks.key_id, asks.tenant),
    )
    if not named.again:
        bridge.limits.took(asks.key_id, asks.tenant, 1)
        reach("named.before_answer")
    return with_uploads(bridge.runtime, [named.job])[0]


def _content_types(text: str, asks: Caller) -> tuple[list[str], list[str]]:
    """Return a poll's content types that the key may have, and those that it may not. Raises Invalid."""
    types = list(dict.fromkeys(part.strip() for part in text.split(",")))
    if not 1 <= len(types) <= 32 or not all(re.fullmatch(CONTENT_TYPE_PATTERN, one) for one in types):
        raise Invalid({"content_types": ["Must be 1 to 32 content types of a-z 0-9 . _ and -, comma-separated."]})
    allowed = asks.content_types
    if allowed is None:
        return types, []
    return [one for one in types if one in allowed], [one for one in types if one not in allowed]


def _gone(answers: Budget, asks: Caller, connection: socket.socket | None) -> Callable[[], bool]:
    """Return a test: has the client closed its end, as far as the socket tells, or left too many answers unread?

    Such a poll gets no jobs; a client that is still there learns why from its next poll.
    """

    def gone() -> bool:
        if not answers.room(asks.whose):
            return True
        if connection is None:
            return False
        try:
            seen: bytes = connection._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)  # type: ignore[attr-defined]
            return seen == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    return gone
