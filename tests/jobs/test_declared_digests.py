"""A source's SHA-256 as its producer declares it: told to the worker, which checks it; the bridge does not."""

import base64
import hashlib

import pytest

from bridge import names
from bridge.jobs.fields import CreateFields, fingerprint
from tests.support.client import ok, refused
from tests.support.waiting import LATEST

FILE = b"declared" * 1000
SHA256 = hashlib.sha256(FILE)
REPR = f"sha-256=:{base64.b64encode(SHA256.digest()).decode()}:"


@pytest.fixture
def body(client):
    """Return the fields of a job whose file is FILE."""
    return {**client.fields("doc"), "source_file_path": client.source(FILE)}


@pytest.mark.parametrize("spelled", [SHA256.hexdigest(), SHA256.hexdigest().upper()])
def test_it_is_told_in_the_claim_and_with_the_whole_and_each_part(client, body, spelled):
    ok(client.post("", {**body, "source_sha256": spelled}))
    job = client.claim("doc", claim_id="once")
    assert job["source_sha256"] == SHA256.hexdigest()
    assert client.claim("doc", claim_id="once")["source_sha256"] == SHA256.hexdigest()  # its answer was lost
    whole = client.download(job)
    assert (whole.status_code, whole.content, whole.headers["Repr-Digest"]) == (200, FILE, REPR)
    part = client.download(job, Range="bytes=10-19")
    assert (part.status_code, part.content, part.headers["Repr-Digest"]) == (206, FILE[10:20], REPR)
    assert client.download(job, "HEAD").headers["Repr-Digest"] == REPR


def test_without_one_nothing_is_told(client, body):
    for none in ({}, {"source_sha256": None}):
        ok(client.post("", {**body, **none}))
        job = client.claim("doc")
        assert job["source_sha256"] is None
        assert "Repr-Digest" not in client.download(job).headers


def test_another_one_is_told_as_it_was_declared(client, body):
    """The bridge would have to read the file to know better."""
    ok(client.post("", {**body, "source_sha256": "0" * 64}))
    got = client.download(client.claim("doc"))
    assert (got.content, got.headers["Repr-Digest"]) == (FILE, f"sha-256=:{'A' * 43}=:")


@pytest.mark.parametrize("wrong", [
    "", "a" * 63, "a" * 65, "g" * 64, "a" * 64 + "\n", " " + "a" * 63, "٣" * 64,
    "\N{FULLWIDTH LATIN SMALL LETTER A}" * 64, "0x" + "a" * 62, "a" * 100_000, 5, True, ["a" * 64], {},
])  # fmt: skip
def test_what_is_none_is_refused_by_the_name_of_its_field(client, body, wrong):
    assert list(refused(client.post("", {**body, "source_sha256": wrong}), 422)["errors"]) == ["source_sha256"]
    batch = {"jobs": [body, {**body, "source_sha256": wrong}]}
    assert list(refused(client.post("batch", batch), 422)["errors"]) == ["jobs.1.source_sha256"]


def test_each_job_of_a_batch_has_its_own(client, body):
    ok(client.post("batch", {"jobs": [{**body, "source_sha256": "a" * 64}, body, {**body, "source_sha256": "B" * 64}]}))
    assert [client.claim("doc")["source_sha256"] for _ in range(3)] == ["a" * 64, None, "b" * 64]


def test_an_idempotency_key_stands_for_it_too(client, body):
    key, declared = {"Idempotency-Key": "once"}, {**body, "source_sha256": "a" * 64}
    first = ok(client.post("", declared, headers=key))
    assert ok(client.post("", {**declared, "source_sha256": "A" * 64}, headers=key)) == first
    for other in (body, {**declared, "source_sha256": "b" * 64}):
        refused(client.post("", other, headers=key), 422, "idempotency_mismatch")


def test_a_body_without_one_keeps_the_hash_that_it_had_before():
    given = {"source_file_path": "/x", "content_type": "doc", "ingestion_task_id": "x"}
    without, none, one = (CreateFields().load({**given, **more}) for more in ({}, {"source_sha256": None},
                                                                             {"source_sha256": "a" * 64}))  # fmt: skip
    assert fingerprint(without) == fingerprint(none) != fingerprint(one)
    assert fingerprint(without) == fingerprint({name: without[name] for name in without if name != "source_sha256"})


def test_celery_takes_it_too(bridge, client, body):
    def sent(sha256):
        kwargs = {**body, "tenant": client.tenant, "source_sha256": sha256}
        return bridge.celery.send_task(names.ENQUEUE, kwargs=kwargs, queue=names.QUEUE).get(timeout=LATEST)

    sent(SHA256.hexdigest().upper())
    assert client.claim("doc")["source_sha256"] == SHA256.hexdigest()
    with pytest.raises(Exception, match="source_sha256"):
        sent("a" * 63)
