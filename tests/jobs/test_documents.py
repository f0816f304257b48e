"""A job's documents, each as large as the largest body, are read by those who show them, and only so many at once."""

import json
from contextlib import contextmanager, nullcontext
from random import Random
from string import ascii_letters, digits
from uuid import UUID, uuid4

import pytest

from bridge.errors import NotFound
from bridge.jobs.bulk import steer
from bridge.jobs.documents import AT_ONCE, PIECE, SENT, Document, Unread, as_json, size_of
from bridge.jobs.listing import MOST_BYTES, _weighed, in_order, page
from bridge.jobs.read import LONGEST_MESSAGE, STANDING, WHOLE, find, result
from models.job_state import Asked, JobState
from tests.jobs.test_list import pages
from tests.support.core import KEY
from tests.support.racing import watching

DOCUMENTS = {"task_options", "result_data", "content"}


@contextmanager
def fetched(core):
    """Yield the names of the columns that PostgreSQL answers with meanwhile."""
    names: set[str] = set()

    def note(connection, cursor, *_):
        names.update(column.name for column in cursor.description or ())

    with watching(core.engine, note, "after_cursor_execute"):
        yield names


@pytest.mark.parametrize(
    ("verb", "state"),
    [("heartbeat", "held"), ("result", "held"), ("release", "held"), ("cancel", "held"), ("restart", "ended")],
)
def test_no_verb_about_a_job_reads_its_documents(core, verb, state):
    job = core.held()
    if state == "ended":
        core.result(job, success=False, retryable=False)
    with fetched(core) as names:
        getattr(core, verb)(job.job_id if verb in ("cancel", "restart") else job)
    assert "status" in names
    assert not names & DOCUMENTS


def test_a_change_of_many_jobs_reads_none_of_their_documents(core):
    core.create()
    core.create("video")
    with fetched(core) as names:
        assert steer(core.runtime, KEY, Asked.CANCEL, {"status": "pending"}).changed == 2
    assert "created_at" in names
    assert not names & {*DOCUMENTS, "error_message"}


def test_where_a_job_stands_is_told_without_its_documents(core):
    job = core.held(task_options={"a": 1})
    core.result(job, metadata={"b": 2})
    with fetched(core) as names:
        assert find(core.runtime, "default", str(job.job_id), STANDING).status == "completed"
    assert not names & DOCUMENTS
    assert find(core.runtime, "default", str(job.job_id), WHOLE).task_options == '{"a":1}'
    stored = result(core.runtime, "default", str(job.job_id))
    assert (stored.content, stored.metadata, stored.processing_time) == ("text", '{"b":2}', "null")


def test_an_error_message_of_an_earlier_attempt_weighs_on_no_heartbeat(core):
    job = core.held()
    core.result(job, success=False, error_message="x" * 100_000)
    core.age(job.job_id, 60)
    job = core.claim(str(job.job_id))
    assert len(find(core.runtime, "default", str(job.job_id)).error_message) == 1000
    assert len(find(core.runtime, "default", str(job.job_id), STANDING).error_message) == LONGEST_MESSAGE


def noise(size: int, seed: str) -> str:
    """Text in which nothing repeats, so that it is stored as it is."""
    return "".join(Random(seed).choices(ascii_letters + digits, k=size))


def test_a_page_of_large_documents_is_shorter_and_the_next_one_goes_on(client):
    third = noise(MOST_BYTES // 3, "third")
    made = [client.create(task_options={"n": third}) for _ in range(7)]
    assert [len(ids) for ids in pages(client, limit=7)] == [3, 3, 1]
    found = pages(client, status="pending", limit=7)
    assert [job_id for ids in found for job_id in ids] == made[::-1]
    assert [len(ids) for ids in pages(client, limit=2)] == [2, 2, 2, 1]


@pytest.mark.parametrize(
    ("column", "document"), [("task_options", Document.TASK_OPTIONS), ("result_data", Document.METADATA)]
)
def test_each_document_counts_and_what_does_not_fit_is_not_even_measured(core, column, document):
    ids = [core.create() for _ in range(4)][::-1]
    value = json.dumps({"metadata": noise(MOST_BYTES, column)})
    core.sql(f"UPDATE remote_jobs SET {column} = CAST(:value AS json) WHERE id <> :small", value=value, small=ids[0])
    with core.engine.connect() as connection:
        every = connection.execute(_weighed(in_order([], {}, list(JobState), 4))).all()
    assert [row._mapping[size_of(document)] is not None for row in every[1:]] == [True, False, False]
    assert not any(row._mapping[document] for row in every[1:]), "it is read when it is sent"
    first, cursor = page(core.runtime, "default", {}, 4, None)
    assert [str(row.id) for row in first] == ids[:2]
    assert first[1]._mapping[size_of(document)] >= MOST_BYTES
    second, cursor = page(core.runtime, "default", {}, 4, cursor)
    assert [str(row.id) for row in second] == ids[2:3]
    last, cursor = page(core.runtime, "default", {}, 4, cursor)
    assert [str(row.id) for row in last] == ids[3:]
    assert cursor is None


TEXTS = ["a", '"\\\x01\n/\x7f\u2028', "ü💥"]


@pytest.mark.parametrize("size", [AT_ONCE - 2, AT_ONCE, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 7])
@pytest.mark.parametrize("text", TEXTS, ids=["plain", "escapes", "wide"])
def test_a_document_in_pieces_is_what_was_stored(core, text, size):
    content = (text * size)[:size]
    job = core.held(task_options={"o": content})
    core.result(job, content=content, metadata={"m": content})
    stored = {Document.TASK_OPTIONS: {"o": content}, Document.METADATA: {"m": content}, Document.CONTENT: content}
    for document, value in stored.items():
        pieces = list(as_json(core.runtime, Unread(job.job_id, document), nullcontext))
        assert json.loads(b"".join(pieces)) == value
        assert max(map(len, pieces)) <= SENT


def test_a_document_is_sent_as_it_was_when_its_turn_came(core):
    job = core.held()
    core.result(job, content="a" * 3 * PIECE)
    pieces = as_json(core.runtime, Unread(job.job_id, Document.CONTENT), nullcontext)
    first = next(pieces) + next(pieces)
    core.sql("UPDATE job_results SET content = 'b'")
    assert json.loads(first + b"".join(pieces)) == "a" * 3 * PIECE


@pytest.mark.parametrize("document", list(Document))
def test_a_document_that_is_gone_breaks_off(core, document):
    with pytest.raises(NotFound):
        list(as_json(core.runtime, Unread(uuid4(), document), nullcontext))


@pytest.mark.parametrize("document", [Document.METADATA, Document.CONTENT, Document.CHECKPOINT])
def test_a_job_that_nobody_has_done_has_no_document_of_a_result(core, document):
    with pytest.raises(NotFound, match="no longer there"):
        list(as_json(core.runtime, Unread(UUID(core.create()), document), nullcontext))
