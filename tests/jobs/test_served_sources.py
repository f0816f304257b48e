"""What a download of a source file answers: headers and ranges."""

import os
from pathlib import Path

import pytest
import requests

from tests.support.client import Client, ok, refused


class Download:
    """A claimed job, and its source as the worker gets it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.path = Path(client.source(b"0123456789"))
        ok(client.post("", {**client.fields("served"), "source_file_path": str(self.path)}))
        self.job = client.claim("served")

    def __call__(self, **headers: str) -> requests.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        token = {"X-Lease-Token": self.job["lease_token"]}
        return self._client.get(self.job["source_file_url"], headers={**token, **given})


@pytest.fixture
def download(client):
    return Download(client)


def test_the_headers_of_a_download_are_fixed(download):
    answer = download()
    assert answer.content == b"0123456789"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{download.job["job_id"]}.bin"'
    assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    ("asked", "content", "span"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=3-", b"3456789", "bytes 3-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", b"0123456789", "bytes 0-9/10"),
        ("BYTES=8-99999999999999999999", b"89", "bytes 8-9/10"),
    ],
)
def test_one_range_is_a_206(download, asked, content, span):
    answer = download(Range=asked)
    assert (answer.status_code, answer.content, answer.headers["Content-Range"]) == (206, content, span)


@pytest.mark.parametrize(
    "asked",
    ["items=0-5", "bytes=0-1,3-4", "bytes=5-3", "bytes=-", "bytes", "bytes=a-b", "bytes=0x0-1", "=", "bytes=0-1-2",
     "bytes=" + ",".join(f"{i}-" for i in range(200)), "bytes=" + "9" * 4000 + "-"],
)  # fmt: skip
def test_what_is_not_one_range_is_ignored(download, asked):
    answer = download(Range=asked)
    assert (answer.status_code, answer.content) == (200, b"0123456789")


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=999999999999999999999-"])
def test_a_range_outside_the_file_is_a_416(download, asked):
    answer = download(Range=asked)
    refused(answer, 416)
    assert answer.headers["Content-Range"] == "bytes */10"


def test_a_range_counts_only_while_the_file_is_the_same(download):
    whole = download()
    for same in (whole.headers["ETag"], whole.headers["Last-Modified"]):
        assert download(Range="bytes=5-", If_Range=same).status_code == 206
    stale = ['"other"', f"W/{whole.headers['ETag']}", "Mon, 01 Jan 2001 00:00:00 GMT", "nonsense", '"']
    for other in stale:
        assert download(Range="bytes=5-", If_Range=other).status_code == 200
    os.utime(download.path, ns=(1, 1))
    assert download(Range="bytes=5-", If_Range=whole.headers["ETag"]).status_code == 200
    assert download(If_None_Match=download().headers["ETag"]).status_code == 304
