"""What cannot be joined: it is left for as long as it deserves, and keeps nothing else waiting."""

import os
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from bridge.blobs import join
from tests.support.arriving import content_of, stands
from tests.support.in_pieces import in_pieces, objects_of
from tests.support.joining import age, collected, joins, place
from tests.support.racing import meanwhile, watching

FILE = os.urandom(100_000)
HOLDING = "SET written_at = now() WHERE id"  # before the object is there
JOINING = "SET segments = 1"  # in the statement that changes what the upload names


def told(lines):
    return [(line["upload_id"], line["why"]) for line in lines if line["event"] == "upload_not_joined"]


def test_bytes_that_are_not_those_that_came_are_not_joined(core):
    """Nor what is missing; both are left for a day, and others go on."""
    other, *bad = in_pieces(core, FILE, 3), in_pieces(core, FILE, 3), in_pieces(core, FILE, 3)
    core.sql("UPDATE uploads SET expires_at = NULL WHERE id <> :id", id=str(other.id))
    before = [objects_of(core, upload) for upload in bad]
    place(core, before[0][1]).write_bytes(b"x" * (len(FILE) // 3 + 1))
    place(core, before[1][1]).unlink()
    for _ in bad:
        assert joins(core) == 0
        age(core, join.SILENT_SECONDS + 1)
    assert joins(core) == 1
    assert [objects_of(core, upload) for upload in bad] == before
    place(core, before[1][1]).touch()
    assert collected(core) == 3 + 3 + 1
    age(core, join.AGAIN_SECONDS)
    assert joins(core) is None
    age(core, 86400)
    assert joins(core) == 0


def test_a_store_that_does_not_answer_is_tried_again_and_so_is_what_takes_too_long_tomorrow(core):
    upload = in_pieces(core, FILE, 3)
    name = place(core, objects_of(core, upload)[1])
    name.rename(f"{name}.away")
    name.mkdir()
    assert joins(core) is None
    name.rmdir()
    Path(f"{name}.away").rename(name)
    age(core, join.AGAIN_SECONDS - 1)
    assert joins(core) is None
    age(core, 2)
    assert joins(core, most_seconds=0) == 0
    age(core, 86400)
    assert joins(core) == 1
    assert collected(core) == 1


def slowed(monkeypatch, seconds):
    """Have each look at the clock find it so many seconds later."""
    monkeypatch.setattr(join, "time", SimpleNamespace(monotonic=count(0, seconds).__next__))


def test_what_fails_keeps_nothing_waiting_and_is_tried_again_the_later_the_longer_it_took(core, monkeypatch):
    bad, other = in_pieces(core, FILE, 3), in_pieces(core, FILE, 3)
    core.sql("UPDATE uploads SET expires_at = NULL WHERE id = :id", id=str(bad.id))
    name = place(core, objects_of(core, bad)[1])
    name.rename(f"{name}.away")
    name.mkdir()
    with monkeypatch.context() as patched, capture_logs() as lines:
        slowed(patched, 100)
        assert joins(core) is None
    [(failed, why)] = told(lines)
    assert failed == str(bad.id)
    assert "Is a directory" in why
    assert joins(core) == 1
    assert stands(core, other).segments == 1
    name.rmdir()
    Path(f"{name}.away").rename(name)
    age(core, 3 * 100 * join.AGAIN_COST // 2)
    assert joins(core) is None
    age(core, 3 * 100 * join.AGAIN_COST // 2)
    assert joins(core) == 1
    assert stands(core, bad).segments == 1


def test_so_is_what_postgresql_does_not_take(core):
    upload, other = in_pieces(core, FILE, 3), in_pieces(core, FILE, 3)
    core.sql("UPDATE uploads SET expires_at = NULL WHERE id = :id", id=str(upload.id))
    before = objects_of(core, upload)

    def cut(connection, cursor, statement, *_):
        if JOINING in statement:
            pid = connection.connection.driver_connection.info.backend_pid
            core.sql("SELECT pg_terminate_backend(:pid, 60000)", pid=pid)

    with watching(core.engine, cut), capture_logs() as lines, pytest.raises(DBAPIError):
        joins(core)
    assert told(lines) == [(str(upload.id), "OperationalError")]
    assert objects_of(core, upload) == before
    assert joins(core) == 1
    assert stands(core, other).segments == 1
    assert joins(core) is None
    age(core, join.AGAIN_SECONDS)
    assert joins(core) == 1
    assert collected(core) == 2


def test_what_is_joined_although_the_answer_to_its_commit_was_lost_stays_so(core):
    upload, sent = in_pieces(core, FILE, 3), [""]

    def lost(connection):
        if JOINING in sent[-1]:
            connection.connection.commit()
            raise ConnectionResetError

    seen = watching(core.engine, lambda connection, cursor, statement, *_: sent.append(statement))
    with seen, watching(core.engine, lost, "commit"), capture_logs() as lines, pytest.raises(ConnectionResetError):
        joins(core)
    assert told(lines) == []
    assert len(objects_of(core, upload)) == 1
    assert collected(core) == 1
    assert content_of(core, upload) == FILE


@pytest.mark.parametrize("first", [True, False])
def test_of_two_that_join_the_same_upload_the_one_that_fails_takes_nothing_from_the_other(core, first):
    upload = in_pieces(core, FILE, 3)

    def another():
        age(core, join.AGAIN_SECONDS + 1)
        assert joins(core, **({} if first else {"most_seconds": 0})) == (1 if first else 0)

    with capture_logs() as lines, meanwhile(core.engine, "SELECT object, start" if first else JOINING, another):
        assert joins(core, **({"most_seconds": 0} if first else {})) == (0 if first else 1)
    assert len(told(lines)) == (0 if first else 1)
    assert len(objects_of(core, upload)) == 1
    assert collected(core) == 1


@pytest.mark.parametrize(("most_seconds", "joined", "held"), [(100, 0, 0), (1000, 1, 4)])
def test_whether_it_takes_too_long_is_known_after_a_minute(core, monkeypatch, most_seconds, joined, held):
    slowed(monkeypatch, join.PACE_SECONDS + 1)
    upload, sent = in_pieces(core, FILE, 3), []
    with watching(core.engine, lambda connection, cursor, statement, *_: sent.append(statement)):
        assert joins(core, most_seconds=most_seconds) == joined
    assert len([statement for statement in sent if HOLDING in statement]) == held
    assert stands(core, upload).segments == (1 if joined else 3)
