"""Uploads of several objects become one object, whoever reads, deletes, dies or joins meanwhile."""

import os
from dataclasses import replace

import pytest

from bridge.blobs import append_to_upload, collect, content, join, uploads
from bridge.errors import NotFound
from tests.support.arriving import announced, content_of, stands
from tests.support.core import KEY, OTHER_KEY
from tests.support.in_pieces import in_pieces, objects_of
from tests.support.joining import age, collected, joins, place
from tests.support.racing import at_once, meanwhile, watching
from tests.support.tus import objects
from tests.support.waiting import wait_until

FILE = os.urandom(100_000)
HOLDING = "SET written_at = now() WHERE id"  # before the object is there
JOINING = "SET segments = 1"  # in the statement that changes what the upload names


def test_an_upload_of_several_objects_becomes_one_and_the_others_are_collected(core):
    upload = in_pieces(core, FILE, 7)
    before = objects_of(core, upload)
    assert joins(core) == 1
    assert joins(core) is None
    [new] = objects_of(core, upload)
    assert place(core, new).read_bytes() == FILE
    assert new.startswith(f"tenant-{upload.tenant}/")
    assert stands(core, upload)._mapping == {**upload._mapping, "segments": 1, "join_at": stands(core, upload).join_at}
    assert content_of(core, upload, range(50_001, 99_999)) == FILE[50_001:99_999]
    collect.collect(core.runtime)
    assert all(place(core, name).exists() for name in before), "for those who read by an earlier look"
    assert collected(core) == 1
    assert content_of(core, upload) == FILE


@pytest.mark.parametrize("gone", [False, True])
def test_who_reads_meanwhile_gets_the_same_bytes_whether_the_old_objects_last_or_not(core, gone):
    upload = in_pieces(core, FILE, content.PAGE + 10)
    for first in (0, 12_345):
        reading = content.pieces(core.runtime, upload.id, range(first, len(FILE)))
        read = next(reading)
        if joins(core) == 1 and gone:
            assert collected(core) == 1
        assert read + b"".join(reading) == FILE[first:]


def test_a_text_that_is_checked_meanwhile_is_read_on_at_the_right_byte(core):
    words = "Größe ✓ ".encode() * 9_000
    upload = in_pieces(core, words, content.PAGE + 10)
    seen = []
    reading = content.segments(core.runtime, upload.id)

    def held():
        for count, segment in enumerate(reading):
            if count == content.PAGE - 1:
                assert joins(core) == 1
            yield segment

    content._read(core.runtime, held(), lambda piece: seen.append(bytes(piece)))
    assert b"".join(seen) == words


def test_an_object_that_is_missing_is_missing(core):
    upload = in_pieces(core, FILE, 3)
    place(core, objects_of(core, upload)[1]).unlink()
    reading = content.pieces(core.runtime, upload.id, range(len(FILE)))
    with pytest.raises(NotFound):
        list(reading)


def test_what_is_whole_in_several_objects_is_joined_and_nothing_else(core):
    append_to_upload.append(core.runtime, announced(core, 5), iter([b"12345"]))
    begun = announced(core, 10)
    for piece in (b"12", b"34"):
        begun = append_to_upload.append(core.runtime, begun, iter([piece]))
    assert joins(core) is None
    append_to_upload.append(core.runtime, begun, iter([b"567890"]))
    assert joins(core) == 1
    assert content_of(core, begun) == b"1234567890"


def test_those_that_jobs_name_come_first_and_then_the_oldest(core):
    old, new, named = (in_pieces(core, FILE[:n], 2) for n in (10, 20, 30))
    core.sql("UPDATE uploads SET join_at = join_at - interval '1 h' WHERE id = :id", id=str(old.id))
    core.sql("UPDATE uploads SET expires_at = NULL WHERE id = :id", id=str(named.id))
    for upload in (named, old, new):
        assert stands(core, upload).segments == 2
        assert joins(core) == 1
        assert stands(core, upload).segments == 1


def test_one_is_joined_at_a_time_and_what_arrives_is_no_reason_to_wait(core):
    [other, _] = in_pieces(core, FILE, 3), in_pieces(core, FILE, 2)
    begun = "INSERT INTO upload_segments (id, object, upload_id) VALUES (gen_random_uuid(), 'x', :id)"
    core.sql(begun, id=str(announced(core, 10).id))
    told = []
    with meanwhile(core.engine, JOINING, lambda: told.append(joins(core))):
        assert joins(core) == 1
    assert told == [None]
    assert joins(core) == 1
    assert stands(core, other).segments == 1


def test_whoever_died_is_waited_for_shortly_and_what_it_had_in_hand_is_joined_later(core):
    in_hand = in_pieces(core, FILE, 2)
    with core.engine.begin() as connection:
        connection.execute(join.TAKE, {"new": KEY.key_id, "place": "/x"})
    other = in_pieces(core, FILE, 3)
    assert joins(core) is None
    age(core, join.SILENT_SECONDS + 1)
    assert joins(core) == 1
    assert [stands(core, upload).segments for upload in (in_hand, other)] == [2, 1]
    age(core, join.AGAIN_SECONDS)
    assert joins(core) == 1
    assert content_of(core, in_hand) == FILE


def test_of_two_that_join_the_same_upload_one_does(core):
    upload = in_pieces(core, FILE, 3)
    told = []

    def another():
        age(core, join.AGAIN_SECONDS + 1)
        told.append(joins(core))

    with meanwhile(core.engine, JOINING, another):
        told.append(joins(core))
    assert told == [1, 0]
    assert len(objects_of(core, upload)) == 1
    assert collected(core) == 1
    assert content_of(core, upload) == FILE


def test_many_that_join_at_once_join_each_upload_once(core):
    whole = [in_pieces(core, FILE[: 1000 + n], 3) for n in range(4)]
    at_once(*(lambda: [joins(core) for _ in range(3)] for _ in range(4)))
    age(core, join.SILENT_SECONDS + 1)
    while joins(core) is not None:
        pass
    assert collected(core) == len(whole)
    assert [content_of(core, upload) for upload in whole] == [FILE[: 1000 + n] for n in range(4)]


@pytest.mark.parametrize("point", ["SELECT object, start", HOLDING, JOINING])
@pytest.mark.parametrize("collects", [False, True])
def test_an_upload_that_goes_meanwhile_is_gone_and_so_is_what_was_made_of_it(core, point, collects):
    upload, other = in_pieces(core, FILE, 3), in_pieces(core, FILE, 2, OTHER_KEY)
    core.sql("UPDATE uploads SET join_at = now() + interval '1 h' WHERE id = :id", id=str(other.id))

    def given_up():
        uploads.give_up(core.runtime, KEY, str(upload.id))
        if collects:
            assert collected(core) == 2

    with meanwhile(core.engine, point, given_up):
        assert joins(core) == 0
    with pytest.raises(NotFound):
        stands(core, upload)
    assert collected(core) == 2
    assert content_of(core, other) == FILE


def test_what_is_gone_is_not_copied_on(core):
    upload, sent = in_pieces(core, FILE, 3), []
    given_up = meanwhile(core.engine, HOLDING, lambda: uploads.give_up(core.runtime, KEY, str(upload.id)))
    with given_up, watching(core.engine, lambda connection, cursor, statement, *_: sent.append(statement)):
        assert joins(core) == 0
    assert not [statement for statement in sent if JOINING in statement]


def test_what_was_abandoned_meanwhile_is_not_named(core):
    """A process that stood still for longer than it may: its object belongs to no upload."""
    upload = in_pieces(core, FILE, 3)
    with meanwhile(core.engine, JOINING, lambda: collected(core)):
        assert joins(core) == 0
    assert content_of(core, upload) == FILE
    assert collected(core) == 3


@pytest.mark.parametrize("point", ["join.before_object", "join.after_object", "join.before_commit"])
def test_whoever_is_killed_leaves_the_upload_as_it_was_and_an_object_that_is_collected(core, monkeypatch, point):
    class Killed(BaseException):
        pass

    def killed(at):
        if at == point:
            raise Killed

    upload = in_pieces(core, FILE, 3)
    before = objects_of(core, upload)
    with monkeypatch.context() as patched:
        patched.setattr(join, "reach", killed)
        with pytest.raises(Killed):
            joins(core)
    assert objects_of(core, upload) == before
    assert len(objects(core.runtime.settings)) == 3 + (point != "join.before_object")
    assert collected(core) == 3
    assert joins(core) == 1
    assert collected(core) == 1
    assert content_of(core, upload) == FILE


def test_an_object_may_have_more_than_two_gibibytes(core):
    upload, length = in_pieces(core, FILE, 2), 3 * 2**30
    core.sql("UPDATE uploads SET length = :n, received = :n WHERE id = :id", n=length, id=str(upload.id))
    with core.engine.begin() as connection:
        taken = connection.execute(join.TAKE, {"new": KEY.key_id, "place": "/x"}).one()
        with place(core, taken.object).open("wb") as sparse:
            sparse.seek(length - 5)
            sparse.write(b"12345")
        assert connection.scalar(join.JOIN, {"upload_id": upload.id, "new": KEY.key_id, "length": length}) == 1
    assert content_of(core, upload, range(length - 7, length)) == b"\0\x0012345"


@pytest.mark.parametrize("redirect", [False, True])
def test_the_sweep_joins_all_where_the_store_is_to_give_files(core, redirect):
    whole = [in_pieces(core, FILE, 3) for _ in range(2)]
    settings = core.runtime.settings.model_copy(update={"store_redirect": redirect})
    joining = join.Joining(replace(core.runtime, settings=settings))
    joining.wake()
    joining.wake()  # it goes on already
    asked = "SELECT total FROM sweeps WHERE name = 'join_uploads'"
    if redirect:
        wait_until(lambda: core.sql(asked) and core.sql(asked)[0].total == 2, "both to be joined")
        wait_until(lambda: not joining._busy.locked(), "the thread to end")
    assert {stands(core, upload).segments for upload in whole} == ({1} if redirect else {3})
