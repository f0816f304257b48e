"""Whatever a worker or a producer sends, one request after the other: it is answered alike before Flask and by it.

Each side has a tenant of its own, so that both see the same history; only IDs, tokens and moments differ.
"""

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.admission import keys
from bridge.names import API_BASE
from tests.http.test_fast_routes import QUERIES, Side
from tests.support.core import Core

ID = re.compile(r'"job_id":"([^"]+)"')
TOKEN = re.compile(r'"lease_token":"([^"]+)"')

# A header that does not matter, one that does, and their values as they should and should not be.
header_values = {
    "X-Request-ID": ["mine", "x" * 129, "not mine"],
    "Authorization": ["Bearer {key}", "bearer {key}", "Bearer  {key}", "Bearer wrong", "Basic x", "", "Bearer"],
    "X-API-Key": ["{key}", "wrong"],
    "X-Lease-Token": ["{token}", "other", "x" * 100, "x" * 101, "a b", "ü"],
    "Idempotency-Key": ["one", "two", "x" * 255, "x" * 256, "a b", "ü"],
    "Content-Type": ["application/json", "application/json; charset=UTF-8", "application/json;charset=utf-8",
                     "APPLICATION/JSON", "application/problem+json", "text/plain", "application/json; charset=latin-1"],
    "Content-Encoding": ["identity", "gzip"],
    "Accept": ["text/html"],
    "Cookie": ["a=b"],
    "Host": ["a.example:80", "a b"],
}  # fmt: skip
headers = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in header_values.items()})
few_headers: st.SearchStrategy[dict[str, str]] = st.one_of(st.just({}), st.just({"X-Lease-Token": "{token}"}), headers)
words = st.one_of(st.text(max_size=8), st.sampled_from(["", "ü\u2028", "\0", "\ud800", "x" * 300]))
numbers = st.one_of(st.integers(-2, 101), st.sampled_from([2**53, 2**53 + 1, 2**70, 1.5, -0.0, 1e22, 1e308]))
anything = st.recursive(st.one_of(st.none(), st.booleans(), numbers, words),
                        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
                        max_leaves=5)  # fmt: skip
objects = st.dictionaries(words, anything, max_size=3)


def likely(good, bad=anything):
    """Mostly what is right, so that most requests come through."""
    return st.integers(0, 9).flatmap(lambda n: bad if n == 9 else good)


creates = st.fixed_dictionaries(
    {},
    optional={
        "task_options": likely(objects), "priority": likely(st.sampled_from(["high", "low"])),
        "max_retries": likely(st.integers(0, 3)), "timeout_seconds": likely(st.integers(3600, 9999)),
        "available_at": likely(st.sampled_from(["2999-01-01T00:00:00+02:00", "2000-01-01T00:00:00Z"])),
        "content_type": likely(st.just("audio"), st.sampled_from(["NO", 7])), "colour": anything,
        "source_file_path": likely(st.just("{source}"), st.just("/nowhere/at/all")),
        "source_sha256": likely(st.just("aB" * 32)), "source_fetch": likely(st.just("bridge"), st.just("worker")),
    },
)  # fmt: skip
results = st.fixed_dictionaries(
    {"success": likely(st.booleans())},
    optional={
        "content": likely(words), "metadata": likely(objects), "error_message": likely(words),
        "processing_time": likely(st.floats(0, 1e9)), "retryable": likely(st.booleans()),
        "lease_token": likely(st.just("{token}"), words), "colour": anything,
    },
)  # fmt: skip
next_queries = st.sampled_from(
    ["", "", "", "next=true&worker_id=w&content_types=audio&wait=0&claim_id=c2", "next=true", "next=no&worker_id=w",
     "next=true&worker_id=w&content_types=audio&wait=0&wait=0", "a=b", "next=",
     "next=true&worker_id=w&content_types=audio&wait=99", "next=true&worker_id=w%20x&content_types=audio&wait=0"]
)  # fmt: skip
waits_not = [query for query in QUERIES if re.search("(^|&)wait=0(&|$)", query)]  # any other may wait
steps = st.one_of(
    st.tuples(st.just("create"), few_headers, creates, st.just("")),
    st.tuples(st.just("poll"), few_headers, st.none(), st.sampled_from(waits_not)),
    st.tuples(st.just("result"), few_headers, results, next_queries),
)


class One:
    """A side with its tenant, its keys, and what it holds."""

    def __init__(self, runtime, on):
        self.side, self.tenant = Side(runtime, on), f"tenant-{on}".lower()
        with runtime.engine.begin() as connection:
            self.keys = {
                "all": keys.create_key(connection, "k", ["submit", "work"], self.tenant),
                "work": keys.create_key(connection, "w", ["work"], self.tenant),
                "video": keys.create_key(connection, "v", ["submit", "work"], self.tenant, content_types=["video"]),
            }
        self.job_id, self.token = "0190b5d0-0000-7000-8000-000000000000", "none"
        self.source = str(Core(runtime, self.tenant).source)

    def ask(self, step, key):
        what, headers, body, query = step
        key = self.keys[key]
        self.side.client.get(f"{API_BASE}/nothing/status", headers={"Authorization": f"Bearer {key}"})  # it is at hand
        path = {"create": "", "poll": "poll", "result": f"{self.job_id}/result"}[what]
        method = {"create": "POST", "poll": "GET", "result": "PUT"}[what]
        if what == "create":
            body = {"source_file_path": "{source}", "content_type": "audio", "ingestion_task_id": "task", **body}
        raw = None
        if body is not None:
            text = json.dumps(body, ensure_ascii=True)
            raw = text.replace("{source}", self.source).replace("{token}", self.token).encode()
        headers = {name: value.replace("{token}", self.token) for name, value in headers.items()}
        told = self.side.ask(method, f"{API_BASE}/{path}", query, raw, headers, key, seen=self._seen)
        return [str(part).replace(self.tenant, "TENANT") for part in told]

    def _seen(self, answer):
        text = answer.get_data(as_text=True)
        if (token := TOKEN.search(text)) and (job_id := ID.search(text)):
            self.job_id, self.token = job_id[1], token[1]


@pytest.fixture
def pair(make_runtime):
    # No claim may go back and no retry become due: the moment may lie between the two sides' requests.
    runtime = make_runtime(ack_seconds="3600", retry_backoff="base=3600")
    return One(runtime, True), One(runtime, False)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(history=st.lists(st.tuples(steps, st.sampled_from(["all", "all", "all", "work", "video"])), max_size=8))
def test_a_history_is_answered_alike(pair, history):
    fast, slow = pair
    start: list[Any] = [(("create", {}, {}, ""), "all"), (("poll", {}, None, QUERIES[0]), "all")]
    for step, key in [*start, *history]:
        assert fast.ask(step, key) == slow.ask(step, key), (step, key)


def test_what_producers_and_workers_send_every_day_is_not_flasks(pair):
    fast, _ = pair
    source = {"create": {}, "poll": None, "result": {"success": True}}
    once = {"create": {"Idempotency-Key": "once"}, "poll": {}, "result": {"X-Lease-Token": "{token}"}}
    asking = "next=true&worker_id=w&content_types=audio&wait=0&lease=3000&claim_id=c9"
    for what, query in (("create", ""), ("poll", QUERIES[0]), ("result", ""), ("create", ""), ("result", asking)):
        before = fast.side.flask_saw
        status, *_ = fast.ask((what, once[what], source[what], query), "all")
        assert status == "200 OK"
        assert fast.side.flask_saw == before + 1  # the look-up of the key
