"""POST /results: up to a hundred results, each judged as if it had come by itself."""

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from api.http.problems import is_refused_value
from bridge.admission.limits import Limits
from bridge.db import make_engine
from bridge.errors import BridgeError, TooMany
from bridge.jobs import complete
from bridge.jobs.submit_many import Submission, submit_many
from bridge.jobs.submit_result import Accepted
from bridge.settings import load_settings
from models.job_state import JobState
from tests.jobs.test_second_wall import refusing
from tests.support.client import ok, refused
from tests.support.core import KEY, OTHER_KEY
from tests.support.racing import watching

RESULTS = "/api/v1/results"
# What a worker may send of a job that it holds, right and wrong.
SENT: dict[str, dict[str, Any]] = {
    "a success": {"success": True, "content": "text", "metadata": {"a": [1, 2.5, None]}, "processing_time": 1.5},
    "nothing but a success": {"success": True},
    "a large one": {"success": True, "content": "x" * (complete.MOST_TOGETHER_BYTES + 1)},
    "a failure": {"success": False, "error_message": "no"},
    "a failure for good": {"success": False, "error_message": "no", "retryable": False},
    "null as absent": {"success": False, "retryable": None},
    "an unknown field": {"success": True, "colour": "red"},
    "a wrong token": {"success": True, "lease_token": "x" * 43},
    "no token": {"success": True, "lease_token": None},
    "a token that is none": {"success": True, "lease_token": 7},
    "a NUL": {"success": True, "content": "a\0b"},
    "a lone surrogate": {"success": True, "content": "\ud800"},
    "an integer beyond 2^53": {"success": True, "metadata": {"a": 2**60}},
    "NaN": {"success": True, "metadata": {"a": float("nan")}},
    "nested as deep as it goes": {"success": True, "metadata": json.loads('{"a":' * 62 + "{}" + "}" * 62)},
    "nested too deeply": {"success": True, "metadata": json.loads('{"a":' * 70 + "{}" + "}" * 70)},
    "success as a word": {"success": "yes"},
    "no success": {"content": "text"},
    "metadata as a list": {"success": True, "metadata": []},
    "a negative time": {"success": True, "processing_time": -1},
}


def told(answer):
    """Return what the answer to a single result says, in the form of a place."""
    body = answer.json()
    if answer.status_code == 200:
        return {**body, "problem": None}
    return {"status": answer.headers.get("X-Job-Status"), "ingestion_continued": None, "problem": body}


def of(job, **said):
    return {"job_id": job["job_id"], "lease_token": job["lease_token"], **said}


def at_once(client, sent):
    data = json.dumps({"results": sent}).encode()
    answer = client.request("POST", RESULTS, data=data, headers={"Content-Type": "application/json"})
    return ok(answer)["results"]


def end_of(client, job):
    whole = client.job(job["job_id"])
    ends = [(one["how"], one["why"], [each["code"] for each in one["refusals"]]) for one in whole["attempts"]]
    return whole["status"], whole["retry_count"], ends, [one["code"] for one in whole["refusals"]]


def held(client, count):
    ok(client.post("batch", {"jobs": [client.fields() for _ in range(count)]}))
    jobs = ok(client.poll(max_jobs=count, lease=60))["jobs"]
    assert len(jobs) == count
    return jobs


def test_each_is_answered_and_ends_its_job_as_it_does_alone(client):
    singly, together = held(client, len(SENT)), held(client, len(SENT))
    alone = [{"lease_token": job["lease_token"], **sent} for job, sent in zip(singly, SENT.values(), strict=True)]
    many = [of(job, **sent) for job, sent in zip(together, SENT.values(), strict=True)]

    def put(job, sent):
        headers = {"Content-Type": "application/json"}
        return told(client.request("PUT", f"{job['job_id']}/result", data=json.dumps(sent).encode(), headers=headers))

    for _ in range(2):  # and again: each may be repeated
        expected = [put(job, sent) for job, sent in zip(singly, alone, strict=True)]
        assert dict(zip(SENT, at_once(client, many), strict=True)) == dict(zip(SENT, expected, strict=True))
        ends = {name: end_of(client, job) for name, job in zip(SENT, together, strict=True)}
        assert ends == {name: end_of(client, job) for name, job in zip(SENT, singly, strict=True)}
    assert [end[0] for end in ends.values()][:3] == ["completed"] * 3
    stored = ok(client.get(f"{together[0]['job_id']}/result"))
    assert stored == {name: SENT["a success"][name] for name in ("content", "metadata", "processing_time")}


def test_what_is_no_job_of_this_key_is_told_in_its_place(bridge, client):
    (mine,) = held(client, 1)
    (foreign,) = held(other := bridge.client(), 1)
    shared = bridge.client(client.tenant, ("work",))
    client.create()
    (colleague,) = ok(shared.poll(lease=60))["jobs"]
    sent: list[Any] = [
        {"job_id": "nonsense", "success": True}, {"job_id": 7, "success": True}, {"success": True}, [], None, "x",
        *(of(job, success=True) for job in (foreign, colleague, mine)),
        {"job_id": colleague["job_id"], "success": "yes"}, {"job_id": foreign["job_id"], "content": "\0"},
    ]  # fmt: skip
    answers = at_once(client, sent)
    assert [one["problem"] and one["problem"]["status"] for one in answers] == [
        404, 422, 422, 422, 422, 422, 404, 409, None, 422, 404,
    ]  # fmt: skip
    assert answers[1]["problem"]["errors"].keys() == answers[2]["problem"]["errors"].keys() == {"job_id"}
    assert answers[8] == {"status": "completed", "ingestion_continued": True, "problem": None}
    assert other.status(foreign["job_id"]) == shared.status(colleague["job_id"]) == "processing"


def test_of_two_for_one_job_the_first_counts_and_the_same_again_is_accepted(client):
    first, second, third = held(client, 3)
    done = partial(of, success=True)
    sent = [
        done(first, content="a"), done(first, content="b"), done(first, content="a"),
        of(second, success=False, retryable=False), done(second), done(third, content="c"), of(third, success="no"),
    ]  # fmt: skip
    answers = at_once(client, sent)
    codes = [one["problem"] and one["problem"]["code"] for one in answers]
    assert codes == [None, "already_finished", None, None, "already_finished", None, "validation"]
    assert [client.status(job["job_id"]) for job in (first, second, third)] == ["completed", "failed", "completed"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"{}", b'{"results": null}', b'{"results": []}', b'{"results": {"0": {}}}', b'"results"',
        b'{"results": [{}], "results": [{}]}', b'{"results": [{"success": true}], "other": "\\u0000"}',
        b'{"results": [{"content": "\\u0000"}], "other": "\\u0000"}', b'{"results": "\\u0000"}',
        b'{"results": [' + b",".join([b"{}"] * 101) + b"]}", b'{"results": [' + b"[" * 100_000 + b"]}",
        b'{"results": [{"metadata": [' + b"0," * 250_000 + b"0]}]}",
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_told_apart_is_refused_as_a_whole(client, body):
    answer = client.request("POST", RESULTS, data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    refused(answer, answer.status_code)


def test_a_body_that_is_too_large_ends_nothing(bridge, client):
    (job,) = held(client, 1)
    sent = of(job, success=True, content="x" * bridge.settings.max_body_bytes)
    refused(client.post(RESULTS, {"results": [sent]}), 413)
    assert client.status(job["job_id"]) == "processing"


def submissions(jobs, **said):
    return [Submission(str(job.job_id), {"success": True, "content": "text", **said}, job.lease_token) for job in jobs]


def test_successes_are_one_statement_and_one_nudge(core):
    jobs = [core.held() for _ in range(5)]
    statements = []
    note = lambda _, __, statement, *___: statements.append(statement)  # noqa: E731
    with watching(core.engine, note):
        answers = submit_many(core.runtime, KEY, submissions(jobs))
    assert answers == [Accepted(JobState.COMPLETED, True)] * 5
    assert len(statements) == 1
    assert core.runtime.nudge == [str(job.job_id) for job in jobs]


def test_one_that_postgresql_refuses_costs_the_others_nothing(core):
    jobs = [core.held() for _ in range(3)]
    good, bad, late = submissions(jobs)
    sent = [good, bad._replace(result={"success": True, "content": "bad"}), late]
    with refusing(core, "job_results", "1 / CASE new.content WHEN 'bad' THEN 0 ELSE 1 END"):
        answers = submit_many(core.runtime, KEY, sent)
    assert [isinstance(one, Accepted) for one in answers] == [True, False, True]
    assert isinstance(answers[1], SQLAlchemyError)
    assert is_refused_value(answers[1])
    assert [core.status(job.job_id) for job in jobs] == ["completed", "processing", "completed"]


@pytest.mark.parametrize("success", [True, False])
def test_a_postgresql_that_is_away_is_no_answer_about_any_of_them(core, success):
    job = core.held()
    away = make_engine(load_settings({"BRIDGE_DATABASE_URL": "postgresql://127.0.0.1:1/x"}))
    with pytest.raises(OperationalError):
        submit_many(replace(core.runtime, engine=away), KEY, submissions([job], success=success))
    assert core.status(job.job_id) == "processing"


def test_late_and_foreign_ones_are_judged_as_alone(core):
    late, foreign, locked = core.held(), core.held(), core.held()
    core.expire_after(late.job_id)
    answers = submit_many(core.runtime, KEY, submissions([late, locked]))
    answers += submit_many(core.runtime, OTHER_KEY, submissions([foreign]))
    assert [getattr(one, "status", None) for one in answers[:2]] == ["completed", "completed"]
    assert isinstance(answers[2], BridgeError)
    assert answers[2].code == "lease_lost"


def test_all_of_a_request_count_as_requests(make_runtime):
    limits = Limits(make_runtime(limits="requests=10"))
    whose = (KEY.key_id, KEY.tenant)
    limits.request(*whose)
    limits.as_many(*whose, 8)
    limits.request(*whose)
    limits.request(*whose)  # the tenth
    with pytest.raises(TooMany):
        limits.request(*whose)
    other = (OTHER_KEY.key_id, KEY.tenant)
    for _ in range(9):
        limits.request(*other)
    limits.as_many(*other, 100)  # all of it is taken, and nothing after it
    limits.share()
    with pytest.raises(TooMany):
        limits.request(*other)
