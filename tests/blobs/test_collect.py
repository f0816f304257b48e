"""What is collected: uploads whose time is over, and bytes that nobody names."""

from contextlib import nullcontext

import pytest

from bridge.blobs import append_to_upload, collect, uploads
from bridge.blobs.append_to_upload import SEGMENT_BYTES
from bridge.errors import Conflict, NotFound, Unavailable
from tests.support.arriving import announced, content_of, stands
from tests.support.core import KEY, OTHER_KEY
from tests.support.tus import objects


def age(core, seconds):
    core.sql(
        "WITH u AS (UPDATE uploads SET expires_at = expires_at - make_interval(secs => :s))"
        " UPDATE upload_segments SET written_at = written_at - make_interval(secs => :s)",
        s=seconds,
    )


def test_what_expired_goes_with_its_objects_and_its_share_of_the_quota(core):
    announced(core)
    old = append_to_upload.append(core.runtime, announced(core, length=5), iter([b"12345"]))
    age(core, 86400 + 1)
    young = append_to_upload.append(core.runtime, announced(core, length=5), iter([b"12345"]))
    assert collect.collect(core.runtime) == 2 + 1
    with pytest.raises(NotFound):
        stands(core, old)
    assert content_of(core, young) == b"12345"
    assert len(objects(core.runtime.settings)) == 1
    assert [row.bytes for row in core.sql("SELECT bytes FROM upload_usage")] == [uploads.LEAST_BYTES]
    assert collect.collect(core.runtime) == 0


def test_each_piece_that_comes_puts_the_end_off(core):
    upload = announced(core, length=10)
    age(core, 86400 - 60)
    upload = append_to_upload.append(core.runtime, stands(core, upload), iter([b"12345"]))
    age(core, 3600)
    collect.collect(core.runtime)
    assert append_to_upload.append(core.runtime, stands(core, upload), iter([b"67890"])).received == 10


def test_what_a_killed_process_left_is_removed_and_what_is_named_never(core, monkeypatch):
    upload = announced(core)
    kept = append_to_upload.append(core.runtime, announced(core, length=5), iter([b"12345"]))

    class Killed(BaseException):
        pass

    for point in ("upload.before_object", "upload.after_object"):

        def killed(at, having=True, point=point):
            if at == point:
                raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(append_to_upload, "reach", killed)
            patched.setattr(append_to_upload._Arriving, "drop", lambda self: None)
            with pytest.raises(Killed):
                append_to_upload.append(core.runtime, stands(core, upload), iter([b"x" * 1000]))
    assert len(objects(core.runtime.settings)) == 2
    assert collect.collect(core.runtime) == 0, "a sender may still be at it"
    age(core, collect.ABANDONED_SECONDS + collect.SETTLED_SECONDS)
    assert collect.collect(core.runtime) == 2
    assert [path.stat().st_size for path in objects(core.runtime.settings)] == [5]
    assert content_of(core, kept) == b"12345"


def test_who_stores_longer_than_is_waited_for_loses_the_piece_not_the_file(core):
    upload = announced(core, length=10)

    arriving = append_to_upload._Arriving(core.runtime, upload, None, nullcontext)
    arriving.take(b"12345")
    age(core, collect.ABANDONED_SECONDS + 1)
    collect.collect(core.runtime)
    with pytest.raises((Conflict, Unavailable)):
        arriving.end()
    arriving.drop()
    assert stands(core, upload).received == 0
    assert append_to_upload.append(core.runtime, stands(core, upload), iter([b"abcde" * 2])).received == 10
    assert content_of(core, upload) == b"abcde" * 2


def test_an_upload_that_is_given_up_while_it_comes_is_gone_and_so_is_what_came(core):
    upload = announced(core, length=SEGMENT_BYTES)

    def given_up():
        yield b"x" * SEGMENT_BYTES
        uploads.give_up(core.runtime, KEY, str(upload.id))

    def given_up_halfway():
        yield b"x" * append_to_upload.WRITE_BYTES
        uploads.give_up(core.runtime, KEY, str(upload.id))

    with pytest.raises((Conflict, NotFound)):
        append_to_upload.append(core.runtime, upload, given_up_halfway())
    assert objects(core.runtime.settings) == []
    upload = announced(core, length=SEGMENT_BYTES)
    append_to_upload.append(core.runtime, upload, given_up())
    age(core, collect.SETTLED_SECONDS)
    collect.collect(core.runtime)
    assert objects(core.runtime.settings) == []


def test_who_sends_on_while_another_is_collected_keeps_what_is_not_yet_abandoned(core):
    upload = announced(core, length=append_to_upload.WRITE_BYTES + 1)
    old = announced(core, length=5)

    def pieces():
        yield b"x" * append_to_upload.WRITE_BYTES
        core.sql(
            "INSERT INTO upload_segments (id, object, upload_id, written_at)"
            " VALUES (gen_random_uuid(), 'tenant-a/b/c', :id, now() - interval '1 day')",
            id=str(old.id),
        )
        collect.collect(core.runtime)
        yield b"x"

    assert append_to_upload.append(core.runtime, upload, pieces()).received == upload.length
    assert core.sql("SELECT FROM upload_segments WHERE upload_id = :id", id=str(old.id)) == []


def usage(core):
    rows = core.sql("SELECT tenant, key_id, bytes FROM upload_usage")
    return {(row.tenant, row.key_id): row.bytes // uploads.LEAST_BYTES for row in rows}


def test_what_goes_is_what_was_given_up_or_expired_and_its_keys_share_alone(core):
    elsewhere = KEY._replace(tenant="elsewhere")
    kept = [announced(core, 5, key) for key in (OTHER_KEY, elsewhere)]
    given_up, expires = announced(core, 5), announced(core, 5)
    uploads.give_up(core.runtime, KEY, str(given_up.id))
    others = {("default", OTHER_KEY.key_id): 1, ("elsewhere", KEY.key_id): 1}
    assert usage(core) == {("default", KEY.key_id): 1, **others}
    core.sql("UPDATE uploads SET expires_at = now() - interval '1 s' WHERE id = :id", id=str(expires.id))
    assert collect.collect(core.runtime) == 1
    assert usage(core) == {("default", KEY.key_id): 0, **others}
    assert {row.id for row in core.sql("SELECT id FROM uploads")} == {one.id for one in kept}


def test_an_object_lies_there_for_a_while_after_nobody_names_it(core):
    """Not those of others that are removed meanwhile: what forgets it without removing it leaves it there for ever."""
    old = append_to_upload.append(core.runtime, announced(core, length=5), iter([b"12345"]))
    age(core, collect.SETTLED_SECONDS + 1)
    young = append_to_upload.append(core.runtime, announced(core, length=5), iter([b"12345"]))
    for one in (old, young):
        uploads.give_up(core.runtime, KEY, str(one.id))
        assert len(objects(core.runtime.settings)) == 2
    for left in (1, 0):
        assert collect.collect(core.runtime) == 1
        assert len(objects(core.runtime.settings)) == left
        age(core, collect.SETTLED_SECONDS + 1)
