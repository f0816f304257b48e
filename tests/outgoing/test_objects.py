"""Which objects of buckets a job may name."""

import pytest

from bridge.outgoing.destination import BadAddress
from bridge.outgoing.objects import Place, allowed, entry, parsed

ENTRIES = ("https://files.example.org", "s3://scans", "s3://shared/in/tenant-a", "s3://shared/one.pdf")


@pytest.mark.parametrize(("url", "bucket", "key"), [
    ("s3://scans/a.pdf", "scans", "a.pdf"), ("s3://scans/b c/%2e%2e/ü?x=#1.pdf", "scans", "b c/%2e%2e/ü?x=#1.pdf"),
    ("s3://shared/in/tenant-a/x", "shared", "in/tenant-a/x"), ("s3://shared/one.pdf", "shared", "one.pdf"),
])  # fmt: skip
def test_the_key_is_taken_as_it_is(url, bucket, key):
    assert allowed(ENTRIES, url) == Place(bucket, key)


@pytest.mark.parametrize("url", [
    "s3://scans", "s3://scans/", "s3:///a", "s3://scans//a", "s3://scans/a//b", "s3://scans/a/", "s3://scans/../shared/x",
    "s3://scans/./a", "s3://scans/a/..", "S3://scans/a", "s3://Scans/a", "s3://scans:80/a", "s3://user@scans/a", "s3://a/b",
    "s3://scans/a\n", "s3://scans/a\0", "s3://scans/\ud800", "s3://scans/" + "ü" * 513, "s3://-scans/a", "scans/a", "",
])  # fmt: skip
def test_what_is_no_object_is_refused(url):
    with pytest.raises(BadAddress, match="s3://bucket/key"):
        parsed(url)


@pytest.mark.parametrize("url", [
    "s3://scans2/a", "s3://scan/a", "s3://shared/in/tenant-b/x", "s3://shared/in/tenant-a2", "s3://shared/in",
    "s3://shared/one.pdf2", "s3://shared/in/tenant-a%2f..%2fb/x", "s3://files.example.org/x",
])  # fmt: skip
def test_what_the_list_does_not_name_is_refused(url):
    with pytest.raises(BadAddress, match="operator allows"):
        allowed(ENTRIES, url)


@pytest.mark.parametrize(("store", "url"), [
    ("s3://scans/uploads/", "s3://scans/uploads/tenant-b/00/x"), ("s3://scans", "s3://scans/x"),
    ("s3://scans/", "s3://scans/x"), ("s3://scans/uploads", "s3://scans/uploads"),
])  # fmt: skip
def test_uploads_of_others_are_no_sources(store, url):
    with pytest.raises(BadAddress, match="own store"):
        allowed(ENTRIES, url, never=store)


def test_beside_the_store_objects_are_sources():
    assert allowed(ENTRIES, "s3://scans/uploads2/x", never="s3://scans/uploads")
    assert allowed(ENTRIES, "s3://scans/x", never="file:/srv/uploads")
    assert allowed(ENTRIES, "s3://scans/x", never="gs://scans")


@pytest.mark.parametrize(
    "text", ["s3://", "s3://*", "s3://*/x", "s3://b*/x", "s3://scans/../x", "s3://a", "s3://scans//x"]
)
def test_an_entry_names_a_bucket(text):
    with pytest.raises(ValueError, match="s3://bucket/key"):
        entry(text)
