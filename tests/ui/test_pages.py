"""Each page with real jobs: what it shows, and what its forms do."""

import re
import uuid

import pytest

from tests.support.browser import Browser, shown
from tests.support.client import ok
from tests.support.of_an_attempt import sent
from tests.support.waiting import wait_until

HOSTILE = "<script>alert(1)</script>'\"><img src=x onerror=alert(2)>{{ 7919 * 7907 }}\u202egpj.exe\u2066\x07"
NAMED = ("jobs", "batches", "workers", "continuations", "webhooks", "keys", "sweeps")
PAGES = ("/ui/", *(f"/ui/{name}" for name in NAMED))


@pytest.fixture
def browser(bridge, client):
    return Browser(bridge.url, client.key)


def test_hostile_text_is_shown_as_text_on_every_page(bridge, client, browser):
    long = HOSTILE + "W" * 200
    bridge.sql("UPDATE api_keys SET name = :name WHERE tenant = :t", name=HOSTILE[:100], t=client.tenant)
    job_id = client.create(
        "hostile", ingestion_task_id=long[:255].replace("\x07", ""), task_options={HOSTILE: long * 200}
    )
    job = client.claim("hostile", worker_id=long[:255])
    ok(client.heartbeat(job, progress=0.5, message=HOSTILE))
    waiting = browser.get(f"/ui/jobs/{job_id}")
    ok(client.post(f"/api/v1/workers/{uuid.uuid4().hex}/pause", {"reason": HOSTILE}))
    ok(client.result(job, content=long * 500, metadata={"note": HOSTILE}))
    failing = client.create("hostile")
    ok(client.result(client.claim("hostile"), success=False, error_message=long, retryable=False))
    bridge.sql("INSERT INTO webhooks (job_id, n, tenant, key_id, url, kwargs, created_at, since, next_at, tries,"
               " last_error, response_status, response_excerpt) VALUES (:id, 9, :t, :id, :url, :kwargs, now(), now(),"
               " now() + interval '1 day', 9, :hostile, 503, :hostile)", id=failing, t=client.tenant, hostile=long,
               url=f"https://{HOSTILE}/secret", kwargs='{"status": "failed"}')  # fmt: skip
    pages = [waiting, *(browser.get(path) for path in (*PAGES, f"/ui/jobs/{job_id}", f"/ui/jobs/{failing}"))]
    for answer in pages:
        assert answer.status_code == 200, answer.url
        for raw in ("<script>alert", "<img src=x", "\u202e", "\u2066", "\x07", "62615533", 'onerror=alert(2)>"'):
            assert raw not in answer.text, (answer.url, raw)
        assert len(answer.content) < 300_000, answer.url
    assert "1 webhook tried often and not delivered" in shown(browser.get("/ui/"))
    assert re.search("503 <bdi", browser.get("/ui/webhooks").text), "what was answered"
    assert "\\u202e" in waiting.text
    assert "&lt;script&gt;alert(1)" in waiting.text
    download = browser.get(f"/ui/jobs/{job_id}/result")
    assert download.text == long * 500
    assert download.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert download.headers["Content-Disposition"] == f'attachment; filename="{job_id}.txt"'


def test_another_tenants_browser_sees_nothing_of_a_job(bridge, client):
    mark = f"mark-{uuid.uuid4().hex}"
    job_id = client.create(mark[:40], ingestion_task_id=mark)
    other = Browser(bridge.url, bridge.client().key)
    for path in (*PAGES, f"/ui/jobs?q={job_id}", f"/ui/jobs/{job_id}", f"/ui/jobs/{job_id}/result"):
        answer = other.get(path)
        assert mark[:40] not in answer.text, path
        assert client.tenant not in answer.text, path
    assert other.get(f"/ui/jobs/{job_id}").status_code == 404
    assert other.act(f"/ui/jobs/{job_id}/cancel").status_code == 404
    assert client.status(job_id) == "pending"


def test_jobs_are_found_by_id_by_task_and_by_filters_and_paged(client, browser):
    ids = [client.create("many", ingestion_task_id="a-task") for _ in range(3)]
    assert browser.get(f"/ui/jobs?q={ids[0].upper()}").url.endswith(f"/ui/jobs/{ids[0]}")
    found = browser.get("/ui/jobs?q=a-task").text
    assert [job_id in found for job_id in ids] == [True] * 3
    assert ids[0] not in browser.get("/ui/jobs?status=failed").text
    assert ids[0] in browser.get("/ui/jobs?created_after=2020-01-01T00:00&content_type=many&status=&worker_id=").text
    assert browser.get("/ui/jobs?status=none").status_code == 422
    assert browser.get("/ui/jobs?cursor=none").status_code == 422
    client.post("batch", {"jobs": [client.fields("pages") for _ in range(60)]})
    first = browser.get("/ui/jobs?content_type=pages")
    [older] = re.findall(r'href="(/ui/jobs\?content_type=pages&amp;cursor=[^"]*)"', first.text)
    rest = browser.get(older.replace("&amp;", "&"))
    assert [len(set(re.findall(r'href="/ui/jobs/([0-9a-f-]{36})"', one.text))) for one in (first, rest)] == [50, 10]


def test_batches_are_listed_with_their_jobs_by_state_and_each_has_a_page(bridge, client, browser):
    assert "No batch" in shown(browser.get("/ui/batches"))
    hostile = [client.fields("batched", ingestion_task_id=HOSTILE.replace("\x07", "")) for _ in range(60)]
    first = ok(client.post("batch", {"jobs": hostile}))
    ok(client.result(client.claim("batched"), success=False, error_message=HOSTILE, retryable=False))
    batch_id, jobs = first["batch_id"], [job["job_id"] for job in first["jobs"]]
    assert f'href="/ui/batches/{batch_id}"' in browser.get(f"/ui/jobs/{jobs[0]}").text
    row = shown(browser.get("/ui/batches"))
    assert re.search(rf"{batch_id} \S+ s ago 60 59 0 0 1 0 0 no –", row), row
    page = browser.get(f"/ui/batches/{batch_id}")
    [further] = re.findall(rf'href="(/ui/batches/{batch_id}\?cursor=[^"]*)"', page.text)
    rest = browser.get(further)
    found = [list(dict.fromkeys(re.findall(r'href="/ui/jobs/([0-9a-f-]{36})"', one.text))) for one in (page, rest)]
    assert found == [jobs[:50], jobs[50:]]
    assert "<script>alert" not in page.text + rest.text
    assert "\\u202e" in page.text
    for _ in range(20):
        client.post("batch", {"jobs": [client.fields("batched")]})
    [older] = re.findall(r'href="(/ui/batches\?cursor=[^"]*)"', browser.get("/ui/batches").text)
    assert batch_id in browser.get(older).text
    assert browser.get("/ui/batches?cursor=none").status_code == 422
    assert browser.get(f"/ui/batches/{uuid.uuid4()}").status_code == 404
    assert Browser(bridge.url, bridge.client().key).get(f"/ui/batches/{batch_id}").status_code == 404


def test_many_are_cancelled_and_retried_with_the_count_shown_first(client, browser):
    ids = [client.create("bulk") for _ in range(3)]
    asked = browser.get("/ui/jobs/bulk?asked=cancel&content_type=bulk")
    assert "Cancel 3 jobs?" in shown(asked)
    assert client.status(ids[0]) == "pending"
    assert "3 of 3 jobs were cancelled" in shown(browser.act("/ui/jobs/bulk", asked="cancel", content_type="bulk"))
    assert {client.status(job_id) for job_id in ids} == {"cancelled"}
    assert "3 of 3 jobs were put back" in shown(browser.act("/ui/jobs/bulk", asked="retry", content_type="bulk"))
    assert browser.act("/ui/jobs/bulk", asked="cancel").status_code == 422  # no filter: that would be all
    assert client.status(ids[0]) == "pending"


def test_a_job_shows_its_life_and_is_cancelled_and_retried(client, browser):
    job_id = client.create("life")
    job = client.claim("life", worker_id="first")
    ok(client.post(f"{job_id}/release", {"lease_token": job["lease_token"]}))
    again = client.claim("life", worker_id="second")
    ok(client.heartbeat(again, progress=0.25, message="on it"))
    page = browser.get(f"/ui/jobs/{job_id}")
    text = shown(page)
    for said in ("attempt 1: released, first", "attempt 2: running, second", "25 %", "on it", "It is processing"):
        assert said in text, said
    assert len(re.findall(r'<rect class="bar', page.text)) >= 2
    assert browser.get(f"/ui/jobs/{job_id}/source").content == b"source"
    assert "The job is cancelled." in shown(browser.act(f"/ui/jobs/{job_id}/cancel"))
    assert browser.get(f"/ui/jobs/{job_id}/source").status_code == 403
    assert "The job is cancelled." not in shown(browser.get(f"/ui/jobs/{job_id}"))  # said once
    assert "The job is pending." in shown(browser.act(f"/ui/jobs/{job_id}/retry"))
    assert browser.act(f"/ui/jobs/{uuid.uuid4()}/retry").status_code == 404


def test_workers_are_shown_paused_and_resumed(client, browser):
    client.create("work")
    ok(client.result(client.claim("work", worker_id="w/1 ü", host="<b>host", memory=2**34, memory_free=2**33)))
    wait_until(lambda: "w/1 ü" in browser.get("/ui/workers").text, "the worker to be seen")
    wait_until(lambda: "&lt;b&gt;host" in browser.get("/ui/workers").text, "its machine")
    assert "8.0 GiB free of 16.0 GiB" in shown(browser.get("/ui/workers"))
    assert "is paused until it is resumed" in shown(browser.act("/ui/workers/pause", worker_id="w/1 ü", reason="disk"))
    page = shown(browser.get("/ui/workers"))
    assert "paused disk" in page
    wait_until(lambda: client.poll("work", "w/1 ü").json().get("code") == "paused", "the pause")
    assert "is given jobs again" in shown(browser.act("/ui/workers/resume", worker_id="w/1 ü"))
    wait_until(lambda: client.poll("work", "w/1 ü").status_code == 200, "the end of the pause")
    assert "is asked to end" in shown(browser.act("/ui/workers/drain", worker_id="w/1 ü"))
    assert "drained Drained on the dashboard." in shown(browser.get("/ui/workers"))
    assert browser.act("/ui/workers/pause", worker_id="w", reason="r", seconds="9" * 30).status_code == 422


def test_what_a_vanished_worker_holds_is_put_back(client, browser):
    job_id = client.create("gone")
    client.claim("gone", worker_id="gone/1")
    answer = browser.act("/ui/workers/evict", worker_id="gone/1")
    assert "Worker gone/1 held 1 jobs; they are pending again." in shown(answer)
    assert client.status(job_id) == "pending"


def test_outcomes_are_shown_and_sent_again(bridge, client, browser):
    job_id = client.create("outcome")
    ok(client.result(client.claim("outcome")))
    sent = "SELECT FROM continuations WHERE job_id = :id AND sent_at IS NOT NULL"
    wait_until(lambda: bridge.sql(sent, id=job_id), "the outcome to be sent")
    assert job_id in browser.get("/ui/continuations?state=sent").text
    before = bridge.sql("SELECT sent_at FROM continuations WHERE job_id = :id", id=job_id)[0][0]
    assert "1 outcomes are sent again" in shown(browser.act("/ui/continuations/resend", job_id=job_id, n="1"))
    later = "SELECT FROM continuations WHERE job_id = :id AND sent_at > :before"
    wait_until(lambda: bridge.sql(later, id=job_id, before=before), "the outcome to be sent again")
    assert "0 outcomes are sent again" in shown(browser.act("/ui/continuations/resend", state="failing"))
    assert "0 webhooks are sent again" in shown(browser.act("/ui/webhooks/resend", state="failed"))


def test_keys_are_made_shown_once_and_revoked(bridge, client, browser):
    answer = browser.act("/ui/keys", name="a <b>worker</b>", scopes=["work", "read"], content_types="audio, video")
    (key,) = re.findall(r'<code class="secret">(jb_[^<]*)</code>', answer.text)
    assert "a &lt;b&gt;worker" in answer.text
    again = browser.get("/ui/keys").text
    assert key not in again
    prefix = key[:11]
    assert prefix in again
    assert "audio, video" in again
    calling = browser.act("/ui/keys", name="c", scopes="submit", callback_url="https://hooks.example.org/a?b=secret")
    assert "whsec_" in calling.text
    assert "hooks.example.org" in calling.text
    assert "b=secret" not in calling.text
    made = bridge.sql("SELECT tenant, scopes, made_by FROM api_keys WHERE prefix = :p", p=prefix)[0]
    assert (made.tenant, made.scopes, made.made_by) == (client.tenant, ["read", "work"], client.key[:11])
    assert f"Key {prefix} is revoked" in shown(browser.act("/ui/keys/revoke", prefix=prefix))
    assert browser.act("/ui/keys", name="x", scopes="root").status_code == 422
    assert browser.act("/ui/keys", name="x", scopes="read", tenant="another").status_code == 403
    assert browser.act("/ui/keys/revoke", prefix="jb_nobody00").status_code == 404


def test_the_health_page_tells_what_the_tenants_uploads_take(bridge, client, browser):
    bridge.sql("INSERT INTO upload_usage (tenant, key_id, bytes) VALUES (:t, :k, 1100000000)",
               t=client.tenant, k=str(uuid.uuid4()))  # fmt: skip
    assert "1.1 GB of 1099.5 GB" in shown(browser.get("/ui/sweeps"))


def test_parts_of_pages_come_alone_and_the_plots_have_their_lines(client, browser):
    part = browser.get("/ui/", headers={"HX-Request": "true"}).text
    assert "Needs attention" in part
    assert "<html" not in part
    told = browser.get("/ui/history?span=1h").json()
    assert told["step"] == 15
    assert {len(told[name]) for name in ("at", "pending", "completed", "median_seconds")} == {len(told["at"])}
    assert browser.get("/ui/history?span=9y").status_code == 422


def test_files_of_a_result_are_listed_and_fetched_whatever_they_are_called(bridge, client, browser):
    client.create("files")
    job = client.claim("files")
    name, upload = "<img src=x onerror=alert(2)>\"'?#%.svg", sent(client, job, b"<svg></svg>")
    artifacts = [{"name": name, "upload": upload, "media_type": "image/svg+xml"}]
    ok(client.result(job, content=None, result_upload=upload, artifacts=artifacts))
    page = browser.get(f"/ui/jobs/{job['job_id']}").text
    assert "<img src=x" not in page
    assert ", uploaded)" in page
    [address] = re.findall(r'href="(/ui/jobs/[^"]+/artifacts/[^"]+)"', page)
    text = f"/ui/jobs/{job['job_id']}/result"
    for fetched, media_type in ((address, "application/octet-stream"), (text, "text/plain")):
        answer = browser.get(fetched)
        assert (answer.status_code, answer.content) == (200, b"<svg></svg>")
        assert answer.headers["Content-Type"].startswith(media_type)
        assert answer.headers["Content-Disposition"].startswith("attachment; ")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
