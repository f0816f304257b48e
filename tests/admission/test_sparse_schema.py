"""What is loaded by the fields that were sent is what marshmallow loads."""

from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marshmallow import Schema, ValidationError

from api.schemas.jobs import CreateBatch, CreateJob, ListQuery
from api.schemas.work import Heartbeat, NextQuery, PollQuery, Result
from bridge.sparse_schema import MOST_PARTS, Sparse

SCHEMAS = (CreateJob, CreateBatch, ListQuery, PollQuery, NextQuery, Result, Heartbeat)
JOB = {"source_file_path": "/a", "content_type": "audio", "ingestion_task_id": "t"}
VALUES = st.sampled_from(
    ["1", 1, 1.5, True, None, "", "a", "audio", "true", "high", [], {}, {"a": 1}, [JOB], [JOB, {}], [{"job": 1}],
     "https://a.example/b", "upload:1", "2999-01-01T00:00:00Z", "11111111-1111-4111-8111-111111111111"]
)  # fmt: skip


def _loaded(load, data):
    try:
        return load(data)
    except ValidationError as error:
        return error.normalized_messages()


@settings(max_examples=60, deadline=None)
@given(st.data())
@pytest.mark.parametrize("schema", SCHEMAS)
def test_sparse_loading_has_the_values_and_the_complaints_of_the_whole_schema(schema, data):
    names = [*schema().fields, "unknown"]
    wanted: dict[str, dict[str, Any]] = {
        "CreateJob": JOB,
        "PollQuery": {"worker_id": "w", "content_types": "a"},
        "Result": {"success": True},
    }
    sent = data.draw(st.dictionaries(st.sampled_from(names), VALUES, max_size=4))
    if data.draw(st.booleans()):
        sent = {**wanted.get(schema.__name__, {}), **sent}
    sparse = schema()
    for _ in range(2):  # the second time by what is remembered
        assert _loaded(sparse.load, sent) == _loaded(lambda body: Schema.load(schema(), body), sent)


def test_every_field_of_a_sparse_schema_is_loaded_under_its_own_name():
    for schema in SCHEMAS:
        assert issubclass(schema, Sparse)
        assert all(field.data_key is None and field.attribute is None for field in schema().fields.values())


def test_a_default_that_is_made_is_made_anew():
    sparse = CreateJob()
    first, second = sparse.load(JOB), sparse.load(JOB)
    first["task_options"]["a"] = 1
    assert second["task_options"] == {}
    later = sparse.load({**JOB, "available_at": "2999-01-01T00:00:00Z"})
    assert (later["available_at"], later["task_options"]) == (datetime(2999, 1, 1, tzinfo=UTC), {})


def test_what_is_remembered_has_a_bound():
    sparse, names = PollQuery(), ["wait", "max_jobs", "lease", "slots_busy", "slots_free", "memory", "memory_free"]
    for chosen in product((False, True), repeat=len(names)):
        sent = {name: "10" for name, yes in zip(names, chosen, strict=True) if yes}
        query = sparse.load({"worker_id": "w", "content_types": "a", **sent})
        assert {name: query[name] for name in sent} == dict.fromkeys(sent, 10)
    assert sparse._parts is not None
    assert len(sparse._parts) == MOST_PARTS
