"""What a body may cost: the memory and the time of reading it, and the bytes of the answer that refuses it."""

import importlib
import io
import pkgutil
import time
import tracemalloc
from contextlib import ExitStack

import gevent
import gevent.event
import orjson
import pytest
from flask import Flask, Request
from flask_smorest import Blueprint
from marshmallow import ValidationError, fields

import api.routes
from api.http import incoming, plain_requests
from api.schemas.jobs import CreateBatch, CreateJob
from api.schemas.keys import CreateKey
from bridge.admission import json_guard
from bridge.admission.byte_budget import Budget
from bridge.admission.json_guard import NotJson, Refused
from tests.support.client import refused

ZEROS = b"0," * 245_000
DEEP_NAMES = b"".join(b'{"' + bytes([97 + level % 26]) * 250 + b'":' for level in range(61))

# Small bodies that were made to be dear. All of them are refused, or hold what has to be read twice.
DEAR = {
    "deep names around many values": DEEP_NAMES + b"[" + ZEROS + b"9007199254740993]" + b"}" * 61,
    "deep names around many lists": DEEP_NAMES + b"[" + b"[]," * 120_000 + b"1e999]" + b"}" * 61,
    "deep arrays": b"[" * 60 + ZEROS + b"18446744073709551617" + b"]" * 60,
    "many members, the last one twice": b"{" + b",".join(b'"m%d":0' % n for n in range(240_000)) + b',"m1":1}',
    "commas in millions of strings": b"[" + b'",",' * 3_000_000 + b'""]',
    "quotes that are never closed": b'"' + b',\\"' * 5_000_000,
    "lists of lists": b"[" + b"[[[[0]]]]," * 200_000 + b"0]",
}


@pytest.mark.parametrize("what", DEAR)
@pytest.mark.slow
def test_a_body_costs_no_more_memory_than_a_few_times_its_size(what):
    body = DEAR[what]
    tracemalloc.start()
    try:
        with pytest.raises((Refused, NotJson)) as refusal:
            json_guard.parse(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * len(body) + 60 * 2**20, f"{peak / 2**20:.0f} MiB for {len(body) / 2**20:.1f}"
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize("what", DEAR)
def test_a_body_is_judged_in_a_time_that_does_not_grow_with_what_is_around_a_value(what):
    began = time.process_time()
    with pytest.raises((Refused, NotJson)):
        json_guard.parse(DEAR[what])
    assert time.process_time() - began < 3


MANY = {
    "unknown names": (CreateJob(), {f"n{n}": 0 for n in range(245_000)}),
    "unknown names in a key": (CreateKey(), {f"k{n}": {} for n in range(200_000)}),
    "scopes": (CreateKey(), {"name": "n", "scopes": ["x"] * 245_000}),
    "content types": (CreateKey(), {"name": "n", "scopes": ["read"], "content_types": [1] * 245_000}),
    "jobs that are none": (CreateBatch(), {"jobs": [0] * 245_000}),
    "jobs with unknown names": (CreateBatch(), {"jobs": [{f"n{n}": 0 for n in range(240)}] * 1000}),
    "jobs with bad values": (CreateBatch(), {"jobs": [{"available_at": "x" * 3000, "priority": 1}] * 1000}),
    "jobs without anything": (CreateBatch(), {"jobs": [{}] * 1000}),
}


@pytest.mark.parametrize("what", MANY)
def test_a_schema_complains_of_the_first_few_only_and_the_answer_is_small(client, what):
    schema, given = MANY[what]
    with pytest.raises(ValidationError) as refusal:
        schema.load(given)
    assert len(orjson.dumps(refusal.value.normalized_messages(), option=orjson.OPT_NON_STR_KEYS)) < 100_000
    path = {"CreateKey": "/api/v1/keys", "CreateBatch": "batch", "CreateJob": ""}[type(schema).__name__]
    answer = client.request("POST", path, data=orjson.dumps(given), headers={"Content-Type": "application/json"})
    problem = refused(answer, 422, "validation")
    assert len(answer.content) < 40_000
    assert 1 <= len(problem["errors"]) <= 100


def _leaves(name, field):
    if isinstance(field, fields.Nested):
        for inner, one in field.schema.load_fields.items():
            yield from _leaves(f"{name}.{inner}", one)
    elif isinstance(field, fields.List):
        yield from _leaves(name, field.inner)
    else:
        yield name, field


def test_a_form_is_looked_for_in_short_texts_alone():
    """A UUID, a moment and a word are looked for by four passes over the text, by its `repr`, by a regular expression:
    16 MB took a quarter of a second."""
    modules = [importlib.import_module(f"api.routes.{one.name}") for one in pkgutil.iter_modules(api.routes.__path__)]
    blueprints = {found for module in modules for found in vars(module).values() if isinstance(found, Blueprint)}
    routes = [methods for found in blueprints for methods in found._docs.values()]
    arguments = [doc.get("arguments") or {} for methods in routes for doc in methods.values() if isinstance(doc, dict)]
    bodies = [one["schema"] for given in arguments for one in given.get("parameters", ()) if one.get("in") == "json"]
    named = {leaf for body in bodies for name, field in body.load_fields.items() for leaf in _leaves(name, field)}
    formed = [one for one in named if isinstance(one[1], fields.UUID | fields.DateTime | fields.Enum)]
    assert {"source_upload", "available_at", "jobs.priority", "expires_at"} <= {name for name, _ in formed}
    for _, field in formed:
        with pytest.raises(ValidationError, match="at most 100 characters"):
            field.deserialize("1" * 101)


def test_a_body_counts_by_its_values_too():
    """What is cheap to send and dear to hold."""
    assert incoming.weight(b'"text"') == 6
    lists = b"[" + b"[]," * 20_000 + b"[]]"  # less than 64 KiB, and more than a MiB once it is parsed
    assert incoming.weight(lists) > 15 * len(lists) > incoming.HEAVY_BYTES
    ordinary = orjson.dumps({"source_file_path": "/a", "content_type": "a", "task_options": {"language": "en"}})
    assert incoming.weight(ordinary * 20) < incoming.HEAVY_BYTES / 20
    environ = {"REQUEST_METHOD": "PUT", "wsgi.input": io.BytesIO(lists * 50), "wsgi.input_terminated": True}
    with Flask(__name__).app_context():
        _, size, heavy = incoming._stored(Request(environ))
        assert (size, heavy) == (50 * len(lists), incoming.weight(lists * 50))
        incoming.end_request()
    environ = {"CONTENT_TYPE": "application/json", "wsgi.input": io.BytesIO(lists), "CONTENT_LENGTH": str(len(lists))}
    with pytest.raises(plain_requests._NotPlain):  # Flask's, which takes its turn
        plain_requests.PlainRequests(None, 2**24)._body(environ)


def test_a_body_that_comes_quickly_keeps_nobody_waiting():
    """What has come already is read without waiting for anything, and so without letting others run."""
    turns, ended = [], False

    def other():
        while not ended:
            turns.append(1)
            gevent.sleep(0)

    gevent.spawn(other)
    with Flask(__name__).app_context():
        body = io.BytesIO(bytes(100 * incoming._CHUNK))
        incoming._stored(Request({"REQUEST_METHOD": "PUT", "wsgi.input": body, "wsgi.input_terminated": True}))
        ended = True
        incoming.end_request()
    assert len(turns) >= 100


def test_what_is_held_at_a_time_is_bounded_for_all_and_for_each():
    budget = Budget(whole=10, of_tenant=6, of_key=6)
    a, b, c = ("a", 1), ("b", 1), ("c", 1)
    assert budget.take(a, 6)
    assert not budget.take(a, 1)
    assert not budget.take(b, 5)
    assert budget.take(b, 4)
    assert not budget.room(c)
    budget.give_back(a, 6)
    assert budget.take(c, 50)  # counts as 6, the most that one may hold
    budget.give_back(c, 50)
    assert budget.used == 4


def test_the_keys_of_a_tenant_leave_room_to_others_and_what_they_want_waits_for_themselves():
    budget = Budget(whole=10, of_tenant=6, of_key=4)
    assert budget.take(("a", 1), 4)
    assert not budget.take(("a", 2), 3)
    assert budget.take(("a", 2), 2)
    assert not budget.room(("a", 3))
    late = ExitStack()
    waiting = gevent.spawn(late.enter_context, budget.taken(("a", 3), 4))
    gevent.sleep(0)
    assert budget.take(("b", 1), 4)
    budget.give_back(("a", 1), 4)
    waiting.get(timeout=10)
    assert budget.used == 10
    assert not budget.room(("a", 4))
    late.close()
    assert budget.room(("a", 4))


def test_tenants_take_turns_however_many_keys_wait_of_one():
    budget, order = Budget(whole=1, of_tenant=1, of_key=1), []

    def work(whose):
        with budget.taken(whose, 1):
            order.append(whose)
            gevent.sleep(0)

    many = [("a", key) for key in (1, 2, 3, 1, 2, 3)]
    gevent.joinall([gevent.spawn(work, whose) for whose in [*many, ("b", 1), ("b", 1)]], raise_error=True)
    a1, a2, a3, b = (*many[:3], ("b", 1))
    assert order == [a1, a2, b, a3, b, a1, a2, a3]


def test_who_waits_is_let_in_in_turns_and_a_greedy_one_keeps_nobody_waiting():
    budget, order = Budget(whole=10, of_tenant=10, of_key=10), []
    ended = gevent.event.Event()

    def work(caller):
        with budget.taken((caller, 1), 8):
            order.append(caller)
            gevent.sleep(0)

    def hold():
        with budget.taken(("x", 1), 10):
            ended.wait()

    first = gevent.spawn(hold)
    gevent.sleep(0)
    waiting = [gevent.spawn(work, "greedy") for _ in range(5)] + [gevent.spawn(work, "modest")]
    gevent.sleep(0)
    assert not budget.take(("other", 1), 1)  # nobody passes those who wait
    given_up = gevent.spawn(work, "impatient")
    gevent.sleep(0)
    given_up.kill()
    ended.set()
    gevent.joinall([first, *waiting], raise_error=True)
    assert order.index("modest") <= 1
    assert sorted(order) == ["greedy"] * 5 + ["modest"]
    assert budget.used == 0
