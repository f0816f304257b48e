"""A directory and a bucket keep the same promises."""

import os
import resource
from contextlib import contextmanager, suppress

import pytest

from bridge.blobs.bucket import Bucket, part_bytes
from bridge.blobs.store import store_of
from bridge.errors import NotFound, Unavailable
from bridge.settings import SettingsError, load_settings
from tests.support.scripted_answers import answer, scripted
from tests.support.seaweed import ACCESS, bucket

PIECE = 256 * 1024
NAME = "tenant-a/0f/00000000-0000-4000-8000-000000000000"


@pytest.fixture(params=["directory", pytest.param("bucket", marks=pytest.mark.clients)])
def store(request, tmp_path, monkeypatch):
    if request.param == "directory":
        yield store_of(f"file:{tmp_path / 'deep' / 'store'}")
        return
    with bucket(tmp_path / "seaweed") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield store_of(f"s3://files/{tmp_path.name}")


def test_an_object_is_there_wholly_or_not_at_all(store):
    draft = store.draft(NAME)
    for piece in (b"abc", b"def", b"x" * 300_000):
        draft.write(piece)
    with pytest.raises(NotFound):
        store.read(NAME, 0, 3)
    draft.keep()
    assert store.read(NAME, 2, 3) == b"cde"
    assert store.read(NAME, 300_000, 100) == b"x" * 6
    with suppress(NotFound):  # a bucket
        assert store.read(NAME, 300_006, 100) == b""
    store.delete(NAME)
    store.delete(NAME)
    with pytest.raises(NotFound):
        store.read(NAME, 0, 3)


def written(draft, pieces):
    for piece in pieces:
        if draft.write(piece):
            draft.hand_on()


@pytest.mark.parametrize("most", [0, 2**30])
def test_an_object_of_many_parts_is_there_wholly_or_not_at_all(store, most):
    pieces = [os.urandom(PIECE) for _ in range(72)]  # two parts and a little
    draft = store.draft(NAME, most)
    written(draft, pieces)
    with pytest.raises(NotFound):
        store.read(NAME, 0, 3)
    draft.keep()
    assert [store.read(NAME, at * PIECE, PIECE) for at in range(72)] == pieces
    draft.discard()
    draft.discard()
    given_up = store.draft(f"{NAME}-b")
    written(given_up, pieces)
    given_up.hand_on()
    given_up.discard()
    given_up.discard()
    for name in (NAME, f"{NAME}-b"):
        with pytest.raises(NotFound):
            store.read(name, 0, 1)


def test_a_look_says_whether_it_can_be_used_and_leaves_nothing(store, tmp_path):
    store.look()
    assert not (tmp_path / "deep").exists()
    kept = store.draft(NAME)
    kept.write(b"x")
    kept.keep()
    store.look()


def test_a_look_at_what_cannot_be_used_says_why(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="Not a directory"):
        store_of(f"file:{tmp_path / 'file' / 'below'}").look()


def test_what_is_dropped_leaves_nothing(store, tmp_path):
    kept, begun = store.draft(NAME), store.draft(f"{NAME}-b")
    kept.write(b"x")
    begun.write(b"x")
    kept.keep()
    for draft in (kept, begun):
        draft.discard()
        draft.discard()
    for name in (NAME, f"{NAME}-b"):
        with pytest.raises(NotFound):
            store.read(name, 0, 1)
    begun = store.draft(f"{NAME}-c")
    begun.write(b"x")
    store.delete(f"{NAME}-c")
    assert [path for path in (tmp_path / "deep").rglob("*") if path.is_file()] == []


def test_where_files_lie_is_the_data_directory_unless_it_is_told(tmp_path):
    assert load_settings({"BRIDGE_DATA_DIR": str(tmp_path)}).store == f"file:{tmp_path}/uploads"
    assert load_settings({"BRIDGE_STORE": "file:/srv/u"}).store == "file:/srv/u"


@pytest.fixture
def directory(tmp_path):
    return store_of(f"file:{tmp_path}")


@contextmanager
def no_room():
    """Let files have a thousand bytes."""
    least, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (least, most))


def test_a_directory_that_takes_no_bytes_is_told_of_and_keeps_nothing(directory, tmp_path):
    draft = directory.draft("a")
    with no_room(), pytest.raises(Unavailable, match="too large"):
        draft.write(b"x" * 2000)
    draft.discard()
    assert list(tmp_path.iterdir()) == []


def stored(draft, piece):
    draft.write(piece)
    draft.keep()


@pytest.mark.clients
@pytest.mark.parametrize("size", [2000, 300_000])
def test_so_is_a_full_directory_of_temporary_files(store_refusing, size):
    draft = store_refusing.draft(NAME)
    with no_room():
        with pytest.raises(Unavailable, match="send the request again"):
            stored(draft, b"x" * size)
        with suppress(Unavailable):  # of this store, which refuses
            draft.discard()


def test_a_disk_that_fails_is_no_missing_file(directory, tmp_path):
    (tmp_path / "failing").symlink_to("/proc/self/mem")  # its first bytes cannot be read
    (tmp_path / "directory").mkdir()
    (tmp_path / "gone.part").touch()
    for name in ("failing", "directory"):
        with pytest.raises(Unavailable, match="send the request again"):
            directory.read(name, 0, 1)
    with pytest.raises(Unavailable):
        directory.delete("directory")
    with pytest.raises(Unavailable):
        directory.draft("gone")
    assert directory.link("directory", 60) is None


@pytest.mark.parametrize("place", [{}, {"BRIDGE_STORE": "file:/srv/u"}])
def test_only_a_bucket_can_give_files_itself(place):
    for name, value in (("REDIRECT", "on"), ("OBJECT_BYTES", "8388608")):
        with pytest.raises(SettingsError, match=f"BRIDGE_STORE_{name}: needs a bucket as BRIDGE_STORE"):
            load_settings({**place, f"BRIDGE_STORE_{name}": value})
    assert load_settings({"BRIDGE_STORE": "s3://files", "BRIDGE_STORE_REDIRECT": "on"}).store_redirect
    assert not load_settings({"BRIDGE_STORE": "s3://files"}).store_redirect


@pytest.mark.parametrize("place", ["srv", "file:relative", "s3:/x", "s3://", "http://x/y", "s3://b/p?x=y"])
def test_a_store_that_is_none_stops_the_start(place):
    with pytest.raises(SettingsError, match="BRIDGE_STORE"):
        load_settings({"BRIDGE_STORE": place})


@pytest.fixture(params=["403 Forbidden", "500 Internal Server Error"])
def refusing(request, monkeypatch):
    pytest.importorskip("obstore")
    with scripted(answer(request.param, b"", kind="application/xml")) as server:
        for name, value in {**ACCESS, "AWS_ENDPOINT_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def store_refusing(refusing):
    return Bucket("s3://files/x")


@pytest.mark.clients
def test_an_object_that_could_not_be_begun_leaves_other_names_alone(store_refusing, refusing):
    draft = store_refusing.draft(NAME)
    draft.write(b"x" * 9_000_000)
    with pytest.raises(Unavailable):
        draft.hand_on()
    draft.discard()
    assert refusing.heads
    assert [head for head in refusing.heads if f" /files/x/{NAME}" not in head.partition("\r")[0]] == []


@pytest.mark.clients
def test_a_bucket_whose_server_refuses_is_no_missing_file(store_refusing):
    draft, large = store_refusing.draft(NAME), store_refusing.draft(f"{NAME}-b")
    draft.write(b"x")
    large.write(b"x" * 9_000_000)
    calls = [store_refusing.look, lambda: store_refusing.read(NAME, 0, 1), draft.keep, draft.discard]
    for call in (*calls, large.hand_on, large.keep, large.discard):
        with pytest.raises(Unavailable, match="send the request again"):
            call()


@pytest.mark.clients
def test_a_bucket_that_has_fewer_bytes_than_are_asked_for_lacks_the_file(monkeypatch):
    pytest.importorskip("obstore")
    with scripted(answer("416 Requested Range Not Satisfiable", b"", kind="application/xml")) as server:
        for name, value in {**ACCESS, "AWS_ENDPOINT_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(NotFound, match="cut short"):
            Bucket("s3://files/x").read(NAME, 100, 1)


@pytest.mark.clients
@pytest.mark.parametrize("body", [b"", b"<Error><Code>NoSuchBucket</Code></Error>", b"<html>nothing here</html>"])
def test_a_bucket_that_is_not_there_is_said_to_be_missing(monkeypatch, body):
    pytest.importorskip("obstore")
    with scripted(answer("404 Not Found", body, kind="application/xml")) as server:
        for name, value in {**ACCESS, "AWS_ENDPOINT_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(NotFound, match="no such bucket"):
            Bucket("s3://files/x").look()


@pytest.mark.clients
def test_a_bucket_without_a_name_stops_the_start():
    pytest.importorskip("obstore")
    with pytest.raises(SettingsError, match="BRIDGE_STORE: s3:///x"):
        Bucket("s3:///x")


@pytest.mark.parametrize("length", [0, 2**30, 80 * 2**30, 2**40])
def test_no_object_has_more_parts_than_a_bucket_takes(length):
    assert length <= 10_000 * part_bytes(length)
    assert part_bytes(length) >= 8 * 2**20
