"""What a job that names an address is made of; the download is tests/http/test_remote_sources.py."""

from contextlib import ExitStack
from uuid import uuid4

import pytest
from marshmallow import ValidationError

from bridge.errors import Invalid, NotFound
from bridge.jobs.enqueue import enqueue
from bridge.jobs.fields import CreateFields, fingerprint
from bridge.jobs.remote_sources import _judged, address_for_worker, remote_name, without_query
from bridge.outgoing.fetch import Fetched
from bridge.settings import SettingsError, load_settings

URL = "https://files.example.org/a.pdf?key=1"


def fields(**given):
    return CreateFields().load({"content_type": "doc", "ingestion_task_id": "x", **given})


@pytest.mark.parametrize("setting", [{}, {"source_allow": "off"}])
def test_off_unless_the_operator_names_hosts(make_runtime, setting):
    with pytest.raises(Invalid, match=r"source_url: .*BRIDGE_SOURCE_ALLOW"):
        enqueue(make_runtime(**setting), "default", fields(source_url=URL))


@pytest.mark.parametrize("how", [{}, {"idempotency_key": "k"}, {"waited": True}])
def test_a_job_has_the_address_and_no_size(make_runtime, core, how):
    job = enqueue(
        make_runtime(process="p2", source_allow="https://*.example.org"), "default", fields(source_url=URL), **how
    )
    (row,) = core.sql("SELECT source_file_path, source_size FROM remote_jobs WHERE id = :id", id=job.job_id)
    assert tuple(row) == (URL, None)


@pytest.mark.parametrize("given", [
    {"source_url": URL, "source_file_path": "/x"}, {"source_url": URL, "source_upload": "0" * 32},
    {"source_url": "http://files.example.org/"}, {"source_url": ""}, {"source_url": None}, {"source_url": 5},
    {"source_url": "https://x/" + "a" * 2048}, {"source_file_path": URL}, {},
])  # fmt: skip
def test_exactly_one_source_of_its_own_kind(given):
    with pytest.raises(ValidationError):
        fields(**given)


@pytest.mark.parametrize(("url", "name"), [
    ("https://x.org/a/b%20c.mp3?d=/e.f", "b c.mp3"), ("https://x.org", "else"), ("https://x.org/a/", "else"),
    ("https://x.org?a=/b", "else"), ("https://x.org/a%2F..%2Fb", "b"), ("https://x.org/a%5Cb", "b"),
    ("https://x.org/a%00%0Ab", "a\ufffd\ufffdb"), ("https://x.org/%ff.pdf", "\ufffd.pdf"),
    ("https://x.org/" + "a" * 300 + ".pdf", "a" * 251 + ".pdf"), ("s3://b/in/a%20b?c.pdf", "a%20b?c.pdf"),
])  # fmt: skip
def test_the_name_is_the_last_part_of_the_path(url, name):
    assert remote_name(url, "else") == name


def test_an_address_that_is_no_longer_allowed_is_not_given_to_a_worker(make_runtime):
    runtime = make_runtime(source_allow="https://files.example.org")
    assert address_for_worker(runtime, URL) == URL
    with pytest.raises(NotFound, match="operator allows"):
        address_for_worker(runtime, "https://elsewhere.example.org/a.pdf")


@pytest.mark.parametrize(("told", "length"), [
    ("bytes 1-5/9", 5), ("bytes 0-3/9", 4), ("bytes 0-4/9", 4), ("bytes 0-4/*", 5), ("", 5),
])  # fmt: skip
def test_only_the_range_that_was_asked_for_is_taken(told, length):
    fetched = Fetched(206, {"Content-Range": told, "Content-Length": str(length)}, None, ExitStack())
    with pytest.raises(NotFound, match="another one"):
        _judged(fetched, "bytes=0-4", 9)


def test_the_query_is_not_shown_and_paths_are_as_they_are():
    assert without_query(URL) == "https://files.example.org/a.pdf"
    assert without_query("/srv/what?.pdf") == "/srv/what?.pdf"


@pytest.mark.parametrize(
    "entry", ["http://files.example.org", "https://*,http://x.org", "example.org", "off,https://x.org"]
)
def test_entries_are_https(entry):
    with pytest.raises(SettingsError, match="BRIDGE_SOURCE_ALLOW"):
        load_settings({"BRIDGE_SOURCE_ALLOW": entry})


def test_only_an_address_may_be_fetched_by_the_worker_and_only_where_that_is_allowed(make_runtime):
    for wrong in (
        {"source_file_path": "/srv/a"},
        {"source_upload": str(uuid4())},
        {"source_url": URL, "source_fetch": 1},
    ):
        with pytest.raises(ValidationError, match="source_fetch"):
            fields(**{"source_fetch": "worker", **wrong})
    asked, by_bridge = (fields(source_url=URL, source_fetch=who) for who in ("worker", "bridge"))
    with pytest.raises(Invalid, match=r"source_fetch: .*BRIDGE_SOURCE_WORKER_FETCH"):
        enqueue(make_runtime(source_allow="https://*.example.org"), "default", asked)
    assert fingerprint(fields(source_url=URL)) == fingerprint(by_bridge) != fingerprint(asked)
