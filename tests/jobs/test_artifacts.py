"""Results that name files: a text that was uploaded, and artifacts; only those of their own attempt."""

import base64
import hashlib
import os

import pytest

from bridge.blobs import collect, uploads
from bridge.errors import Invalid, NotFound
from bridge.jobs import result_files
from bridge.jobs.artifacts import artifact, page, standing
from bridge.jobs.read import result
from bridge.jobs.submit_many import Submission, submit_many
from bridge.outbox.message import message
from tests.support.client import ok, refused
from tests.support.core import KEY, outcome_of
from tests.support.of_an_attempt import foreign_uploads, sent
from tests.support.racing import at_once
from tests.support.tus import objects

TEXT = "Größe ✓ \x01\n" * 40_000  # above what is read at once, and characters that pieces part
PICTURE = os.urandom(70_000)


def test_a_text_and_artifacts_go_through_the_whole_way(client):
    job = client.held("doc")
    name, path = "Bild 7 ü#%.png", f"{job['job_id']}/artifacts"
    refused(client.get(path), 409, "not_ready")
    whole = TEXT.encode()
    artifacts = [
        {"name": name, "upload": sent(client, job, PICTURE), "media_type": "image/png"},
        {"name": "a.vtt", "upload": sent(client, job, b"", filetype="text/vtt")},
    ]
    body = {"content": None, "result_upload": sent(client, job, whole), "artifacts": artifacts}
    first = ok(client.result(job, **body))
    assert (first["status"], ok(client.result(job, **body))) == ("completed", first)
    refused(client.result(job, **{**body, "artifacts": artifacts[:1]}), 409, "already_finished")

    result = ok(client.get(f"{job['job_id']}/result"))
    assert result["content"] == TEXT
    as_text = {"Accept": "text/plain"}
    plain = client.get(f"{job['job_id']}/result", headers=as_text)
    assert (plain.content, plain.headers["Content-Type"]) == (whole, "text/plain; charset=utf-8")
    assert plain.headers["Repr-Digest"] == digest_header(whole)
    some = {**as_text, "Range": "bytes=300000-300009", "If-Range": plain.headers["ETag"]}
    part = client.get(f"{job['job_id']}/result", headers=some)
    assert (part.status_code, part.content) == (206, whole[300000:300010])

    told = client.job(job["job_id"])
    assert told["result"] == {"size": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    assert told["artifacts"] == 2
    listed = ok(client.get(path, params={"limit": 1}))
    rest = ok(client.get(path, params={"cursor": listed["next_cursor"]}))
    picture = {"name": name, "size": len(PICTURE), "media_type": "image/png", "sha256": hex_of(PICTURE)}
    assert listed["items"] + rest["items"] == [
        picture, {"name": "a.vtt", "size": 0, "media_type": "text/vtt", "sha256": hex_of(b"")},
    ]  # fmt: skip
    assert rest["next_cursor"] is None
    got = client.get(f"{path}/Bild%207%20%C3%BC%23%25.png")
    assert (got.content, got.headers["Content-Type"]) == (PICTURE, "application/octet-stream")
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["Repr-Digest"] == digest_header(PICTURE)
    assert got.headers["Content-Disposition"].startswith('attachment; filename="Bild 7 ')
    assert client.get(f"{path}/a.vtt").content == b""
    for other in ("b.vtt", "", "..%2Fa.vtt", "%00", "%ff", "a.vtt%2F"):
        refused(client.get(f"{path}/{other}"), 404, "not_found")


def digest_header(content):
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def hex_of(content):
    return hashlib.sha256(content).hexdigest()


def test_a_text_that_came_inline_is_given_as_text_and_in_ranges_too(client):
    job = client.held("inline")
    ok(client.result(job, content=TEXT))
    path, plain = f"{job['job_id']}/result", {"Accept": "text/plain"}
    whole = client.get(path, headers=plain)
    assert whole.content == TEXT.encode()
    part = client.get(path, headers={**plain, "Range": "bytes=99990-300000", "If-Range": whole.headers["ETag"]})
    assert (part.status_code, part.content) == (206, TEXT.encode()[99990:300001])
    assert client.get(path, headers={**plain, "Range": "bytes=9999999-"}).status_code == 416
    assert ok(client.get(path, headers={"Accept": "*/*"}))["content"] == TEXT
    assert client.job(job["job_id"])["result"] == {"size": len(TEXT.encode()), "sha256": None}


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", ".profile", "a\\b", "a\nb", "a\x7f", "a\u202eb", "a\u200b", "ü" * 128, "x" * 201]
)
def test_a_name_that_is_no_segment_of_a_path_is_refused_and_ends_the_attempt(client, name):
    job = client.held("named", max_retries=0)
    answer = client.result(job, artifacts=[{"name": name, "upload": "x"}])
    assert list(refused(answer, 422)["errors"]) == ["artifacts.0.name"]
    assert answer.headers["X-Job-Status"] == "failed"
    many = [{"name": f"{n}", "upload": "x"} for n in range(1001)]
    assert "artifacts" in refused(client.result(job, artifacts=many), 422)["errors"]


def test_what_is_refused_among_results_that_come_together_ends_its_attempt(client):
    job = client.held("together", max_retries=0)
    one = {"job_id": job["job_id"], "lease_token": job["lease_token"], "success": True, "result_upload": "x"}
    (told,) = ok(client.post("/api/v1/results", {"results": [one]}))["results"]
    assert (told["status"], list(told["problem"]["errors"])) == ("failed", ["result_upload"])


def test_only_whole_uploads_of_this_attempt_count(core, work):
    job, other = core.held(), core.held()
    mine = work.upload(job)
    for why, upload in foreign_uploads(work, job, other).items():
        with pytest.raises(Invalid, match="No such upload"):
            pytest.fail(f"{why}: {work.submit(job, result_upload=upload)}")
        named = [{"name": "a", "upload": mine}, {"name": "b", "upload": upload}]
        with pytest.raises(Invalid, match=r"artifacts\.1\.upload"):
            work.submit(job, artifacts=named)
    assert core.status(job.job_id) == "processing"
    assert core.sql("SELECT 1 FROM job_uploads") == []


def test_what_contradicts_itself_is_refused(core, work):
    job = core.held()
    upload = work.upload(job)
    with pytest.raises(Invalid, match="not both"):
        core.result(job, content="x", result_upload=upload)
    with pytest.raises(Invalid, match="this name"):
        work.submit(job, artifacts=[{"name": "a", "upload": upload}] * 2)
    for text in (b"a" * 70_000 + b"\xff", "ü".encode()[:1]):
        bad = work.upload(job, text)
        for said in (r"not UTF-8\.", "not UTF-8: "):
            with pytest.raises(Invalid, match=said):
                work.submit(job, result_upload=bad)
            core.sql("UPDATE uploads SET utf8 = NULL WHERE id = CAST(:id AS uuid)", id=bad)  # as of an earlier version
    assert work.submit(job, artifacts=[{"name": "a", "upload": upload}, {"name": "b", "upload": upload}]) == "completed"


def test_a_text_is_not_read_again_as_it_is_accepted(core, work, monkeypatch):
    job = core.held()
    monkeypatch.setattr(result_files, "check_utf8", lambda *_: pytest.fail("it is read"))
    assert work.submit(job, result_upload=work.upload(job, TEXT.encode())) == "completed"


def test_a_late_result_has_the_files_of_its_attempt(core, work):
    job = core.held()
    upload = work.upload(job)
    core.expire_after(job.job_id, 100)
    assert core.status(job.job_id) == "pending"
    assert work.submit(job, result_upload=upload) == "completed"
    again = core.held()
    upload = work.upload(again)
    core.expire_after(again.job_id, 100)
    core.age(again.job_id, 1000)
    assert core.claim(str(again.job_id), key=KEY) is not None
    assert outcome_of(lambda: work.submit(again, result_upload=upload)) == "lease_lost"


def test_of_two_that_submit_at_once_one_names_its_files(core, work):
    job = core.held()
    said = [{"artifacts": [{"name": name, "upload": work.upload(job)}]} for name in "ab"]
    got = at_once(*(lambda one=one: outcome_of(lambda: work.submit(job, **one)) for one in said))
    assert sorted(got) == ["already_finished", "completed"]
    assert len(core.sql("SELECT 1 FROM job_files")) == len(core.sql("SELECT 1 FROM job_uploads")) == 1


def test_an_upload_that_goes_between_the_look_and_the_naming_leaves_the_job_as_it_was(core, work, monkeypatch):
    job = core.held()
    upload = work.upload(job)
    looked = result_files.look_at_files

    def goes(*args):
        name = looked(*args)
        uploads.give_up(core.runtime, KEY, upload)
        return name

    monkeypatch.setattr("bridge.jobs.submit_result.look_at_files", goes)
    with pytest.raises(Invalid, match="gone meanwhile"):
        work.submit(job, artifacts=[{"name": "a", "upload": upload}])
    assert (core.status(job.job_id), core.outcomes(job.job_id)) == ("processing", [])


def test_files_stay_as_long_as_their_job_and_go_with_it(core, work):
    job = core.held()
    files = [{"name": "a", "upload": work.upload(job, b"1")}, {"name": "b", "upload": work.upload(job, b"2")}]
    left = work.upload(job, b"3")
    assert work.submit(job, result_upload=work.upload(job), artifacts=files) == "completed"
    for table, clock in (("uploads", "expires_at"), ("upload_segments", "written_at")):
        core.sql(f"UPDATE {table} SET {clock} = {clock} - interval '40 days'")
    collect.collect(core.runtime)
    assert len(objects(core.runtime.settings)) == 3
    assert left not in {str(row.id) for row in core.sql("SELECT id FROM uploads")}
    assert artifact(core.runtime, "default", str(job.job_id), "b").length == 1
    assert core.purge_after(job.job_id, 31) == 1
    collect.collect(core.runtime)
    assert (core.sql("SELECT 1 FROM uploads"), core.sql("SELECT 1 FROM job_files")) == ([], [])
    assert objects(core.runtime.settings) == []


def test_a_job_that_is_deleted_while_it_is_read_is_not_found(core):
    job = core.held()
    core.result(job)
    row = core.row(job.job_id)
    core.sql("DELETE FROM job_results")  # as a purge does between two looks
    for read in (lambda: standing(core.runtime, row), lambda: result(core.runtime, "default", str(job.job_id))):
        with pytest.raises(NotFound):
            read()


def test_a_plain_success_asks_nothing_of_files_and_one_of_many_may_name_some(core, work, monkeypatch):
    monkeypatch.setattr("bridge.jobs.submit_result.look_at_files", None)
    assert core.result(core.held()).status == "completed"
    monkeypatch.undo()
    plain, rich = core.held(), core.held()
    body = {"success": True, "content": None, "result_upload": work.upload(rich)}
    many = [Submission(str(plain.job_id), {"success": True}, plain.lease_token),
            Submission(str(rich.job_id), body, rich.lease_token)]  # fmt: skip
    answers = submit_many(core.runtime, KEY, many)
    assert [getattr(one, "status", one) for one in answers] == ["completed", "completed"]


def test_the_pipeline_is_told_where_a_text_is_and_which_files_there_are(core, work):
    object.__setattr__(core.runtime.settings, "continuation_inline_bytes", 10)
    small, large, uploaded = core.held(), core.held(), core.held()
    core.result(small, content="ü" * 5)
    core.result(large, content="ü" * 6)
    picture = work.upload(uploaded, b"x")
    files = [{"name": f"{n:03}?.png", "upload": picture} for n in range(120)]
    work.submit(uploaded, result_upload=work.upload(uploaded), artifacts=files)
    told = [message(core.runtime, job.job_id, 1)[0] for job in (small, large, uploaded)]
    assert [(one["content"], one["result_url"] is None, one["result_size"]) for one in told] == [
        ("ü" * 5, True, 10), (None, False, 12), (None, False, 4),
    ]  # fmt: skip
    assert told[1]["result_sha256"] == hex_of("üüüüüü".encode())
    assert told[2]["result_sha256"] == hex_of(b"text")
    assert [(len(one["artifacts"]), one["artifacts_count"]) for one in told] == [(0, 0), (0, 0), (100, 120)]
    base = f"/api/v1/remote-jobs/{uploaded.job_id}"
    assert told[2]["result_url"] == f"{base}/result"
    assert told[2]["artifacts"][0] == {
        "name": "000?.png", "url": f"{base}/artifacts/000%3F.png", "size": 1,
        "media_type": "application/octet-stream", "sha256": hex_of(b"x"),
    }  # fmt: skip
    assert page(core.runtime, "default", str(uploaded.job_id), 100, None)[0][-1].name == "099?.png"
    failed = core.held(max_retries=0)
    core.result(failed, success=False)
    nothing, _ = message(core.runtime, failed.job_id, 1)
    assert [nothing[name] for name in ("content", "result_url", "result_size", "artifacts")] == [None, None, None, []]
