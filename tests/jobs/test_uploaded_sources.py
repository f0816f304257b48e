"""Jobs whose source was uploaded: from another host, under its own name, kept for as long as the job."""

import base64
import hashlib
import os
from uuid import uuid4

import pytest

from bridge.blobs import collect, uploads
from bridge.errors import Conflict, Invalid, NotFound
from bridge.jobs import enqueue as enqueue_module
from bridge.jobs.enqueue import enqueue
from bridge.jobs.fields import CreateFields
from bridge.jobs.looked_at import looked_at
from bridge.jobs.uploaded_sources import NAME, look_at_upload, name_uploads, uploaded_source
from tests.support.client import ok, refused
from tests.support.core import KEY
from tests.support.of_an_attempt import sent
from tests.support.tus import announce, append, objects, tus

FILE = os.urandom(100_000)
SHA256 = hashlib.sha256(FILE)
REPR = f"sha-256=:{base64.b64encode(SHA256.digest()).decode()}:"


@pytest.fixture
def upload(client):
    """Return a whole upload's address, and its ID."""
    place = announce(client, len(FILE), filename="Bericht ü.pdf", filetype="application/x-test")
    assert append(client, place, 0, FILE).status_code == 204
    return place, place.rpartition("/")[2]


def body(upload_id, **fields):
    return {"source_upload": upload_id, "content_type": "doc", "ingestion_task_id": "x", **fields}


def made(client, upload_id, **fields):
    return client.post("", body(upload_id, **fields))


def test_a_worker_is_told_of_it_and_gets_it_under_its_name_with_its_digest(client, upload):
    _, upload_id = upload
    job_id = ok(made(client, upload_id))["job_id"]
    job = client.claim("doc")
    assert job["job_id"] == job_id
    assert (job["source_name"], job["source_size"], job["source_media_type"], job["source_sha256"]) == (
        "Bericht ü.pdf", len(FILE), "application/x-test", SHA256.hexdigest(),
    )  # fmt: skip
    whole = client.download(job)
    assert (whole.status_code, whole.content, whole.headers["Repr-Digest"]) == (200, FILE, REPR)
    assert "filename*=UTF-8''Bericht%20%C3%BC.pdf" in whole.headers["Content-Disposition"]
    assert whole.headers["Content-Type"] == "application/octet-stream"
    part = client.download(job, Range="bytes=99990-", If_Range=whole.headers["ETag"])
    assert (part.status_code, part.content) == (206, FILE[99990:])
    assert part.headers["Content-Range"] == f"bytes 99990-99999/{len(FILE)}"
    assert client.download(job, Range="bytes=100000-").status_code == 416
    same = client.download(job, If_None_Match=whole.headers["ETag"])
    assert (same.status_code, same.content) == (304, b"")
    assert client.job(job_id)["source_file_path"] == f"upload:{upload_id}"


def test_a_digest_that_is_declared_must_be_its_own(client, upload):
    _, upload_id = upload
    ok(made(client, upload_id, source_sha256=SHA256.hexdigest().upper()))
    job = client.claim("doc")
    assert job["source_sha256"] == SHA256.hexdigest()
    assert client.download(job).headers["Repr-Digest"] == REPR
    problem = refused(made(client, upload_id, source_sha256="0" * 64), 422, "validation")
    assert list(problem["errors"]) == ["source_sha256"]
    assert SHA256.hexdigest() in problem["detail"]
    other = {"jobs": [body(upload_id, source_sha256="0" * 64)]}
    assert list(refused(client.post("batch", other), 422)["errors"]) == ["jobs.0.source_sha256"]


def test_batches_and_idempotency_keys_know_uploads(client, upload):
    place, upload_id = upload
    one = body(upload_id)
    assert len(ok(client.post("batch", {"jobs": [one, client.fields("doc")]}))["jobs"]) == 2
    key = {"Idempotency-Key": "once"}
    first = ok(client.post("", one, headers=key))
    assert ok(client.post("", one, headers=key)) == first
    refused(tus(client, "DELETE", place), 409, "in_use")
    assert ok(client.get(place))["expires_at"] is None
    bad = refused(client.post("batch", {"jobs": [one, {**one, "source_upload": "0" * 8 + upload_id[8:]}]}), 422)
    assert list(bad["errors"]) == ["jobs.1.source_upload"]


def test_only_a_whole_upload_of_the_tenant_is_a_source(bridge, client, upload):
    _, upload_id = upload
    half = announce(client, 10).rpartition("/")[2]
    for given in (half, "00000000-0000-4000-8000-000000000000"):
        assert "source_upload" in refused(made(client, given), 422)["errors"]
    assert "source_upload" in refused(made(bridge.client(), upload_id), 422)["errors"]
    assert "source_upload" in refused(made(client, upload_id, source_file_path=client.source()), 422)["errors"]
    assert "source_upload" in refused(made(client, "nonsense"), 422)["errors"]
    neither = {"content_type": "doc", "ingestion_task_id": "x"}
    assert "source_file_path" in refused(client.post("", neither), 422)["errors"]
    smuggled = {**neither, "source_file_path": f"upload:{upload_id}"}
    assert "source_file_path" in refused(client.post("", smuggled), 422)["errors"]
    theirs = sent(client, client.held("held"), b"x")
    assert "source_upload" in refused(made(client, theirs), 422)["errors"]


UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize("upload_id", ["nonsense", "", f"{UNKNOWN}\n", UNKNOWN])
def test_what_names_no_upload_is_refused_and_is_no_source(core, upload_id):
    with pytest.raises(Invalid, match="No such upload"):
        look_at_upload(core.runtime, "default", f"upload:{upload_id}")


def test_an_uploaded_source_that_is_gone_is_not_found(core):
    with pytest.raises(NotFound, match="gone"):
        uploaded_source(core.runtime, f"upload:{uuid4()}")


@pytest.fixture
def whole(work):
    """Return the ID of a whole upload."""
    return work.upload(content=FILE)


def create(core, upload_id, **how):
    return str(enqueue(core.runtime, "default", CreateFields().load(body(upload_id)), **how).job_id)


def age(core):
    core.sql("UPDATE uploads SET expires_at = expires_at - interval '40 days'")
    core.sql("UPDATE upload_segments SET written_at = written_at - interval '40 days'")


@pytest.mark.parametrize("how", [{}, {"idempotency_key": "k"}])
def test_what_a_job_names_stays_until_the_last_such_job_is_deleted(core, whole, how):
    jobs = [create(core, whole, **how), create(core, whole)]
    age(core)
    collect.collect(core.runtime)
    with pytest.raises(Conflict):
        uploads.give_up(core.runtime, KEY, whole)
    for job_id in jobs:
        assert len(objects(core.runtime.settings)) == 1
        core.cancel(job_id)
        assert core.purge_after(job_id, 31) == 1
        collect.collect(core.runtime)
    assert core.sql("SELECT 1 FROM uploads") == []
    assert objects(core.runtime.settings) == []


def test_a_job_whose_upload_goes_meanwhile_is_not_made(core, whole, monkeypatch):
    """Between the look and the insert."""
    looked = looked_at

    def goes(*args):
        seen = looked(*args)
        uploads.give_up(core.runtime, KEY, whole)
        return seen

    monkeypatch.setattr(enqueue_module, "looked_at", goes)
    with pytest.raises(Invalid, match="source_upload"):
        create(core, whole)
    assert core.sql("SELECT 1 FROM remote_jobs") == []


def test_naming_waits_for_who_removes_and_the_other_way_round(core, whole):
    """The row's lock decides; whoever comes second finds what the first one did."""
    job_id = core.create()
    with core.engine.begin() as connection:
        connection.execute(uploads.LOCK, {"id": whole})
        names = {"jobs": [job_id], "uploads": [whole], "tenant": "default"}
        connection.execute(NAME, names)
        assert collect.collect(core.runtime) == 0, "its row is locked, so the sweep passes it by"
    collect.collect(core.runtime)
    assert len(core.sql("SELECT 1 FROM uploads")) == 1


def test_only_a_whole_file_of_the_tenant_that_is_no_result_can_be_named(core, work, whole):
    job, spare = core.held(), work.upload()
    elsewhere = work.upload(key=KEY._replace(tenant="elsewhere"))
    bad = [work.upload(content=b"", length=5), elsewhere, work.upload(job), job.job_id]
    for upload_id in bad:
        with pytest.raises(Invalid):
            look_at_upload(core.runtime, "default", f"upload:{upload_id}")
        with pytest.raises(Invalid), core.engine.begin() as connection:
            name_uploads(connection, "default", [job.job_id], [{"source_file_path": f"upload:{upload_id}"}])
    create(core, whole)
    ends = core.sql("SELECT id FROM uploads WHERE expires_at IS NULL")
    assert [str(row.id) for row in ends] == [whole], f"{spare}, which nobody names, expires"


def test_what_a_job_names_stays_also_where_it_was_given_an_end(core, work, whole):
    """As by who deletes its last job while another names it."""
    create(core, whole)
    free, expires = work.upload(), work.upload()
    uploads.give_up(core.runtime, KEY, free)
    core.sql("UPDATE uploads SET expires_at = now() - interval '1 s'")
    assert collect.collect(core.runtime) == 1
    assert expires not in {str(row.id) for row in core.sql("SELECT id FROM uploads")}
    assert uploads.find_upload(core.runtime, KEY, whole).received == len(FILE)
