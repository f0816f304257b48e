"""The bytes of an upload: whole or not there, and counted once."""

import hashlib
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest

from bridge.blobs import append_to_upload, content, uploads
from bridge.blobs.append_to_upload import SEGMENT_BYTES, Checksum, Cut
from bridge.caller import Caller
from bridge.errors import Conflict, NotFound, TooLarge, TooMany, Unavailable, WrongChecksum
from bridge.jobs.documents import UnreadFile, as_json
from tests.support.arriving import FILE, announced, content_of, stands
from tests.support.core import KEY, OTHER_KEY
from tests.support.tus import objects

SHA256 = hashlib.sha256(FILE).digest()


def cut_after(*pieces):
    yield from pieces
    raise Cut("the wire")


def test_a_file_that_comes_in_one_request_is_there_with_its_digest_and_in_private_files(core):
    upload = announced(core)
    whole = append_to_upload.append(core.runtime, upload, iter([FILE[:1000], FILE[1000:]]))
    assert (whole.received, bytes(whole.sha256)) == (len(FILE), SHA256)
    assert content_of(core, whole) == FILE
    kept = objects(core.runtime.settings)
    assert sorted(path.stat().st_size for path in kept) == [12345, SEGMENT_BYTES, SEGMENT_BYTES]
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    assert {path.parent.stat().st_mode & 0o777 for path in kept} == {0o700}


@pytest.mark.parametrize(
    "served",
    [range(0), range(10, 20), range(SEGMENT_BYTES - 5, SEGMENT_BYTES + 5), range(3, len(FILE)),
     range(len(FILE) - 1, len(FILE)), range(SEGMENT_BYTES, 2 * SEGMENT_BYTES)],
)  # fmt: skip
def test_any_part_can_be_read_across_the_objects(core, served):
    upload = append_to_upload.append(core.runtime, announced(core), iter([FILE]))
    assert content_of(core, upload, served) == FILE[served.start : served.stop]


def test_a_file_of_many_objects_is_found_a_page_of_them_at_a_time(core, monkeypatch):
    monkeypatch.setattr(content, "PAGE", 2)
    upload = append_to_upload.append(core.runtime, announced(core), iter([FILE]))
    assert content_of(core, upload) == FILE


def test_many_who_read_hold_little_each(core):
    upload = append_to_upload.append(core.runtime, announced(core), iter([FILE]))
    tracemalloc.start()
    try:
        reading = [content.pieces(core.runtime, upload.id, range(upload.length)) for _ in range(200)]
        assert {next(one) for one in reading} == {FILE[: content.PIECE]}
        held = tracemalloc.get_traced_memory()[0]
        assert held < content.READ_BYTES + 200 * content.PIECE * 1.5
    finally:
        tracemalloc.stop()
    assert b"".join(reading[-1]) == FILE[content.PIECE :]


def test_what_the_store_has_lost_ends_the_file_early(core):
    upload = append_to_upload.append(core.runtime, announced(core), iter([FILE]))
    for kept in objects(core.runtime.settings):
        with kept.open("r+b") as file:
            file.truncate(1000)
    assert content_of(core, upload) == FILE[:1000]
    text = append_to_upload.append(core.runtime, announced(core, 2000), iter([b"x" * 2000]))
    [kept] = [one for one in objects(core.runtime.settings) if one.stat().st_size == 2000]
    kept.write_bytes(b"x" * 1999)
    unread = UnreadFile(text.id, text.length)
    with pytest.raises(NotFound, match="gone from the store"):
        list(as_json(core.runtime, unread, nullcontext))


def test_what_came_before_a_cut_counts_and_the_digest_is_that_of_the_whole(core):
    upload = announced(core)
    for start in range(0, len(FILE), 3_000_000):
        piece = FILE[start : start + 3_000_000]
        if start + len(piece) < len(FILE):
            with pytest.raises(Cut):
                append_to_upload.append(core.runtime, stands(core, upload), cut_after(piece))
        else:
            append_to_upload.append(core.runtime, stands(core, upload), iter([piece]))
        assert stands(core, upload).received == start + len(piece)
    assert bytes(stands(core, upload).sha256) == SHA256
    assert content_of(core, upload) == FILE


def test_with_a_checksum_all_of_a_request_counts_or_nothing(core):
    upload = announced(core)

    def checked(wanted):
        return Checksum("sha256", hashlib.sha256(wanted).digest())

    with pytest.raises(WrongChecksum):
        append_to_upload.append(core.runtime, upload, iter([FILE]), checksum=checked(FILE + b"!"))
    with pytest.raises(Cut):
        append_to_upload.append(core.runtime, upload, cut_after(FILE[:-1]), checksum=checked(FILE))
    assert stands(core, upload).received == 0
    assert objects(core.runtime.settings) == []
    whole = append_to_upload.append(core.runtime, upload, iter([FILE]), checksum=checked(FILE))
    assert bytes(whole.sha256) == SHA256
    assert content_of(core, upload) == FILE


def test_of_two_that_send_at_once_one_wins_and_the_file_is_one_of_theirs(core):
    upload = announced(core, length=2000)
    first, second = Event(), Event()

    def slowly(byte, mine, other):
        yield byte * 1000
        mine.set()
        other.wait(20)
        yield byte * 1000

    def send(byte, mine, other):
        try:
            append_to_upload.append(core.runtime, upload, slowly(byte, mine, other))
        except Conflict as refusal:
            return refusal.code
        return "won"

    with ThreadPoolExecutor(2) as pool:
        told = [pool.submit(send, b"a", first, second), pool.submit(send, b"b", second, first)]
        outcomes = sorted(one.result() for one in told)
    assert outcomes == ["won", "wrong_offset"]
    assert content_of(core, upload) in (b"a" * 2000, b"b" * 2000)
    assert len(objects(core.runtime.settings)) == 1


def test_more_than_was_announced_is_refused_and_the_upload_stays_as_it_was(core):
    upload = announced(core, length=10)
    with pytest.raises(TooLarge):
        append_to_upload.append(core.runtime, upload, iter([b"x" * 11]))
    assert stands(core, upload).received == 0
    assert objects(core.runtime.settings) == []


def test_an_upload_of_too_many_small_pieces_is_refused(core):
    upload = announced(core, length=1000)
    for _ in range(append_to_upload.FREE_SEGMENTS):
        upload = append_to_upload.append(core.runtime, upload, iter([b"x"]))
    with pytest.raises(TooLarge, match="small pieces"):
        append_to_upload.append(core.runtime, upload, iter([b"x"]))


def test_an_empty_file_is_whole_at_once(core):
    upload = announced(core, length=0)
    assert bytes(upload.sha256) == hashlib.sha256().digest()
    assert content_of(core, upload) == b""


def test_a_store_that_takes_nothing_is_told_and_the_same_bytes_may_come_again(core):
    upload = announced(core, length=10)
    root = Path(core.runtime.settings.store.removeprefix("file:"))
    root.parent.mkdir(exist_ok=True)
    root.write_text("no directory")
    with pytest.raises(Unavailable):
        append_to_upload.append(core.runtime, upload, iter([b"x" * 10]))
    root.unlink()
    assert append_to_upload.append(core.runtime, stands(core, upload), iter([b"x" * 10])).received == 10


def test_an_upload_is_its_keys_alone(core):
    upload = announced(core)
    for other in (OTHER_KEY, KEY._replace(tenant="other"), Caller(uuid4())):
        with pytest.raises(NotFound):
            stands(core, upload, key=other)
        with pytest.raises(NotFound):
            uploads.give_up(core.runtime, other, str(upload.id))
    for odd in ("", "x", str(upload.id).upper(), f"{{{upload.id}}}", f"{upload.id}\n"):
        with pytest.raises(NotFound):
            uploads.find_upload(core.runtime, KEY, odd)


MIB = 1024 * 1024


def test_the_quotas_of_a_key_and_of_its_tenant_bound_what_is_announced(make_runtime, tmp_path):
    runtime = make_runtime(limits=f"upload_bytes={3 * MIB},tenant_upload_bytes={5 * MIB}")

    def announce(length, key=KEY):
        return uploads.announce(runtime, key, uploads.Announced(length))

    first = announce(2 * MIB)
    announce(1)  # counts as a mebibyte
    with pytest.raises(TooMany, match="this key take"):
        announce(1)
    announce(2 * MIB, OTHER_KEY)
    with pytest.raises(TooMany, match="key's tenant"):
        announce(1, OTHER_KEY)
    announce(2 * MIB, KEY._replace(tenant="another"))
    uploads.give_up(runtime, KEY, str(first.id))
    announce(2 * MIB)


def test_of_many_that_announce_at_once_no_more_are_let_in_than_there_is_room_for(make_runtime):
    runtime = make_runtime(limits=f"upload_bytes={4 * MIB}")

    def announce(_):
        try:
            return uploads.announce(runtime, KEY, uploads.Announced(1)).length
        except TooMany:
            return 0

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(announce, range(12))) == 4


def test_a_file_larger_than_the_setting_is_refused(make_runtime):
    with pytest.raises(TooLarge):
        uploads.announce(make_runtime(upload_max_bytes="10"), KEY, uploads.Announced(11))


def test_what_counts_although_the_answer_to_its_commit_was_lost_keeps_its_bytes(core, monkeypatch):
    upload = announced(core, length=10)

    def lost(at, having=True):
        if at == "upload.after_commit":
            raise ConnectionResetError

    with monkeypatch.context() as patched:
        patched.setattr(append_to_upload, "reach", lost)
        with pytest.raises(ConnectionResetError):
            append_to_upload.append(core.runtime, upload, iter([b"1234567890"]))
    assert stands(core, upload).received == 10
    assert content_of(core, upload) == b"1234567890"


def test_who_loses_gives_up_its_own_bytes_alone(core):
    upload = announced(core, length=append_to_upload.WRITE_BYTES + 1)

    def pieces():
        yield b"x" * append_to_upload.WRITE_BYTES
        other = announced(core, length=5)
        with pytest.raises(WrongChecksum):
            append_to_upload.append(core.runtime, other, iter([b"12345"]), checksum=Checksum("sha256", b""))
        yield b"x"

    assert append_to_upload.append(core.runtime, upload, pieces()).received == upload.length
    assert len(objects(core.runtime.settings)) == 1


def test_bytes_that_were_given_up_meanwhile_do_not_count(core):
    upload = announced(core, length=append_to_upload.WRITE_BYTES + 1)

    def pieces():
        yield b"x" * append_to_upload.WRITE_BYTES
        core.sql("UPDATE upload_segments SET upload_id = NULL")  # as the sweep does after half an hour
        yield b"x"

    with pytest.raises(Conflict):
        append_to_upload.append(core.runtime, upload, pieces())
    assert stands(core, upload).received == 0


def test_the_last_bytes_of_an_upload_that_is_given_up_meanwhile_do_not_count(core):
    upload = append_to_upload.append(core.runtime, announced(core, 600_000), iter([FILE[:100_000]]))

    def pieces():
        yield FILE[100_000:400_000]
        uploads.give_up(core.runtime, KEY, str(upload.id))
        yield FILE[400_000:600_000]

    with pytest.raises(Conflict):
        append_to_upload.append(core.runtime, upload, pieces())


@pytest.mark.parametrize(
    "content", ["aé✓😀".encode() * 3, "é".encode() * 4 + b"\xff" + b"a", "✓".encode()[:2], b"\xed\xa0\x80"]
)
def test_whether_a_workers_file_is_utf_8_is_found_as_it_comes_and_as_it_was_cut(core, content):
    """Cut at every byte, within characters too: in one request, and in two, of which the first broke off."""
    job = core.held()

    def made():
        said = uploads.Announced(len(content), job_id=job.job_id, attempt=job.attempt)
        return uploads.announce(core.runtime, KEY, said)

    try:
        known = content.decode() is not None
    except UnicodeDecodeError:
        known = False
    for cut in range(1, len(content)):
        assert append_to_upload.append(core.runtime, made(), iter([content[:cut], content[cut:]])).utf8 is known
        resumed = made()
        with pytest.raises(Cut):
            append_to_upload.append(core.runtime, resumed, cut_after(content[:cut]))
        assert stands(core, resumed).utf8 is None
        assert append_to_upload.append(core.runtime, stands(core, resumed), iter([content[cut:]])).utf8 is known
