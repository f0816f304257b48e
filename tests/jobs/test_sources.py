"""Source files: whatever path is asked for, nothing outside a root is read, and nothing but a regular file."""

import itertools
import os
import socket
import threading
import urllib.parse
from pathlib import Path

import pytest

from bridge.errors import Invalid, NotFound
from bridge.jobs import source_files
from bridge.jobs.source_files import check_source, open_source, place_of, source_name
from tests.support.client import ok, refused

SECRET = b"outside every root"
CONTENT = b"inside the root"


@pytest.fixture
def place(tmp_path):
    """Yield a root with a file in it, and all kinds of things beside and inside it that must not be read."""
    root, beside = tmp_path / "root", tmp_path / "beside"
    for directory in (root / "sub", beside, tmp_path / "root-twin"):
        directory.mkdir(parents=True)
    (root / "file").write_bytes(CONTENT)
    (root / "sub" / "file").write_bytes(CONTENT)
    for outside in (beside / "secret", tmp_path / "root-twin" / "secret", tmp_path / "secret"):
        outside.write_bytes(SECRET)
    (root / "link-out").symlink_to(beside / "secret")
    (root / "link-up").symlink_to("../secret")
    (root / "dir-out").symlink_to(beside)
    (root / "dir-root").symlink_to("/")
    (root / "loop").symlink_to("loop")
    (root / "twice").symlink_to("link-out")
    (root / "proc").symlink_to("/proc/self")
    (root / "null").symlink_to("/dev/null")
    os.mkfifo(root / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.relpath(root / "socket"))
    yield root
    listener.close()


NAMES = [b"caf\xe9.txt", b"\xff\xfe", "ä ß.txt".encode(), b"a%20b", b"percent%", b"new\nline", b"#frag?q=1"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_is_found_by_its_uri(place, name):
    (place / os.fsdecode(name)).write_bytes(CONTENT)
    uri = "file://" + urllib.parse.quote_from_bytes(os.fsencode(place) + b"/" + name)
    assert check_source(uri, [place]) == len(CONTENT)
    with open_source(uri, [place]) as file:
        assert file.read() == CONTENT
    assert source_name(uri) == name.decode(errors="replace")


@pytest.mark.parametrize(
    "form", ["file:{}", "file:/{}", "FILE://{}", "file://localhost{}", "http://{}", "{}%00", "file://{}%00"]
)
def test_other_addresses_are_refused(place, form):
    with pytest.raises(Invalid):
        check_source(form.format(place / "file"), [place])


@pytest.mark.parametrize("inside", ["link-out", "../secret", "%2e%2e/secret", "dir-out/secret", "fifo", "sub"])
def test_a_uri_leads_nowhere_that_a_path_does_not(place, inside):
    with pytest.raises(Invalid):
        check_source(f"file://{place}/{inside}", [place])
    with pytest.raises(NotFound):
        open_source(f"file://{place}/{inside}", [place])


@pytest.mark.skipif(not Path("/proc/sys/vm/drop_caches").exists(), reason="needs a file that nobody may read")
def test_a_file_that_the_bridge_may_not_read_is_told_as_that():
    with pytest.raises(Invalid, match="may not read"):
        check_source("/proc/sys/vm/drop_caches", [Path("/proc/sys")])


def test_a_pipe_that_takes_the_files_place_after_the_look_is_not_read(place, monkeypatch):
    looks, must_be_regular = [], source_files._must_be_regular

    def swapped(seen):
        must_be_regular(seen)
        looks.append(seen)
        (place / "file").unlink()
        os.mkfifo(place / "file")

    monkeypatch.setattr(source_files, "_must_be_regular", swapped)
    with pytest.raises(NotFound):
        open_source(str(place / "file"), [place])
    assert len(looks) == 1


def test_where_a_file_lies_for_a_server_before_the_bridge(place):
    assert place_of(str(place / "sub" / ".." / "file"), [place / "sub", place]) == (1, b"file")
    for elsewhere in ("link-out", "../secret"):
        with pytest.raises(NotFound):
            place_of(str(place / elsewhere), [place])


def test_a_claim_tells_name_size_and_media_type(client):
    name = b"r\xe9sum\xe9.PDF"
    path = os.fsencode(client.files) + b"/" + name
    with open(path, "wb") as file:
        file.write(b"x" * 1234)
    job = client.held(source_file_path="file://" + urllib.parse.quote_from_bytes(path))
    told = (job["source_name"], job["source_size"], job["source_media_type"])
    assert told == ("r\ufffdsum\ufffd.PDF", 1234, "application/pdf")
    assert client.get(f"{job['job_id']}/download").content == b"x" * 1234
    job = client.held(source_file_path=client.source(b"", "unknown-kind"))
    assert (job["source_size"], job["source_media_type"]) == (0, "application/octet-stream")


def corpus(root: Path) -> list[str]:
    """Paths that must not be read, over a thousand of them."""
    up = ["..", "../", "./..", "....//", "..;", "%2e%2e", "%2e.", "..%2f", "..%5c", "..\\", "\u2025", "．．", "..\x00",
          "%c0%ae%c0%ae"]  # fmt: skip
    targets = [
        "secret",
        "beside/secret",
        "root-twin/secret",
        "etc/passwd",
        "proc/self/environ",
        "dev/zero",
        "etc/shadow",
    ]
    built = [
        f"{base}/{'/'.join([step] * times)}/{target}"
        for base, step, times, target in itertools.product(
            [str(root), f"{root}/sub", f"{root}/file", "", f"{root}//"], up, (1, 2, 8), targets
        )
    ]
    inside = ["link-out", "link-up", "dir-out/secret", "dir-root/etc/passwd", "loop", "twice", "proc/environ", "null",
              "fifo", "socket", "sub", "", ".", "..", "proc/fd/0", "proc/root/etc/passwd", "proc/cwd/setup.py",
              "dir-out/../secret", "missing", "file/", "file/.", "file/file"]  # fmt: skip
    named = [f"{root}/{name}" for name in inside]
    quoted = [urllib.parse.quote(path, safe="") for path in named] + [path.replace("/", "\\") for path in named]
    system = ["/etc/passwd", "/etc/shadow", "/proc/self/environ", "/proc/self/mem", "/proc/1/cmdline", "/dev/zero",
              "/dev/stdin", "/dev/tty", "/dev/random", "/", "//", "///etc/passwd", "/proc/self/fd/0", "/sys",
              "file:///etc/passwd", "http://localhost/", "~root/.bashrc", "~/x", "C:\\x", "\\\\host\\x", "etc/passwd",
              "-", "|id", "$(id)", "`id`", "file", "sub/file", "./file", f"{root}-twin/secret", f"{root}\x00",
              f"{root}/file\x00", f"\x00{root}/file", f"{root}/file\n", f" {root}/file", f"{root}/FILE",
              f"{root}/" + "a" * 300, "/" + "a/" * 2000, f"{root}/" + "../" * 2000 + "etc/passwd",
              f"{root}/" + "a" * 5000, f"{root}/\ud800"]  # fmt: skip
    return list(dict.fromkeys([*built, *named, *quoted, *system]))


def test_nothing_of_the_corpus_is_accepted_or_read(place):
    paths = corpus(place)
    # Other spellings of what may be read are no attack.
    inside = {str(place / "file"), str(place / "sub" / "file")}
    hostile = [path for path in paths if "\x00" in path or "\ud800" in path or os.path.realpath(path) not in inside]
    assert len(hostile) > 1000
    for path in hostile:
        with pytest.raises(Invalid):
            check_source(path, [place])
        with pytest.raises(NotFound):
            open_source(path, [place]).close()


@pytest.mark.parametrize("name", ["file", "sub/file", "sub/../file", "./file", "link-in", "dir-in/file", "by-root"])
def test_what_lies_under_a_root_once_links_are_resolved_is_read(place, name):
    (place / "link-in").symlink_to("sub/file")
    (place / "dir-in").symlink_to(place / "sub")
    (place / "by-root").symlink_to(place / "dir-in" / "file")
    check_source(f"{place}/{name}", [place])
    with open_source(f"{place}/{name}", [place]) as file:
        assert file.read() == CONTENT


def test_a_root_may_itself_be_a_link_and_a_link_may_lead_from_one_root_to_another(place, tmp_path):
    (tmp_path / "alias").symlink_to(place)
    assert check_source(f"{tmp_path}/alias/sub/file", [tmp_path / "alias"]) == len(CONTENT)
    for roots in ([tmp_path / "alias"], [place / "sub", tmp_path / "beside"], [place, tmp_path / "beside"]):
        with open_source(f"{place}/sub/file", [*roots]) as file:
            assert file.read() == CONTENT
    with open_source(f"{place}/link-out", [place, tmp_path / "beside"]) as file:
        assert file.read() == SECRET


def test_a_link_that_is_swapped_in_between_look_and_opening_is_not_followed(place, tmp_path):
    """One thread swaps a directory for a link to another one; whatever the moment, only the file inside is read."""
    inside, parked, out = place / "swapped", place / "parked", place / "out"
    inside.mkdir()
    (inside / "secret").write_bytes(CONTENT)
    out.symlink_to(tmp_path / "beside")
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            os.rename(inside, parked)
            os.rename(out, inside)
            os.rename(inside, out)
            os.rename(parked, inside)

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                with open_source(f"{inside}/secret", [place]) as file:
                    seen.add(file.read())
            except NotFound:
                seen.add(b"refused")
    finally:
        stop.set()
        swapper.join()
    assert SECRET not in seen
    assert CONTENT in seen


@pytest.mark.parametrize("kind", ["fifo", "socket", "directory", "link"])
def test_what_took_the_place_of_the_file_since_the_job_was_created_is_a_404(bridge, client, kind):
    path = Path(client.source(CONTENT))
    job = client.held("swapped", source_file_path=str(path))
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(path))
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/etc/passwd")
    answer = client.download(job)
    refused(answer, 404, "not_found")
    assert str(path) not in answer.text
    assert ok(client.get(job["job_id"]))["acknowledged_at"] is None
