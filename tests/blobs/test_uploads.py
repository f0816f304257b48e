"""Uploads over HTTP, as clients of tus 1.0 send them."""

import base64
import hashlib
import os
import socket
from contextlib import closing

import pytest

from bridge.names import UPLOADS_BASE
from tests.support.client import Client, ok, refused
from tests.support.memory_peak import processes
from tests.support.tus import BYTES, announce, append, objects, offset, said, tus
from tests.support.waiting import wait_until

BASE = "/api/v1/uploads"
PIECE = os.urandom(300_000)


def view(client, place):
    return ok(client.get(place))


def test_a_file_that_comes_in_two_requests_is_there_with_its_name_and_digest(client):
    answer = tus(client, "POST", headers={"Upload-Length": len(PIECE) * 2,
                 "Upload-Metadata": said(filename="C:\\a\\Bericht ü.pdf", filetype="application/pdf")})  # fmt: skip
    assert answer.status_code == 201
    place = answer.headers["Location"]
    assert (answer.headers["Tus-Resumable"], answer.headers["Upload-Offset"]) == ("1.0.0", "0")
    assert answer.headers["Upload-Expires"].endswith("GMT")
    first = append(client, place, 0, PIECE)
    assert (first.status_code, first.headers["Upload-Offset"]) == (204, str(len(PIECE)))
    assert view(client, place)["sha256"] is None
    second = append(client, place, len(PIECE), PIECE)
    assert (second.status_code, second.headers["Upload-Offset"]) == (204, str(len(PIECE) * 2))
    assert "Upload-Expires" not in second.headers
    seen = view(client, place)
    assert seen["sha256"] == hashlib.sha256(PIECE * 2).hexdigest()
    assert (seen["name"], seen["media_type"]) == ("Bericht ü.pdf", "application/pdf")
    head = tus(client, "HEAD", place)
    assert (head.headers["Upload-Length"], head.headers["Cache-Control"]) == (str(len(PIECE) * 2), "no-store")
    assert head.headers["Upload-Metadata"].startswith("filename ")
    assert not head.content


def test_the_first_bytes_may_come_with_the_announcement(client):
    headers = {"Upload-Length": len(PIECE), "Content-Type": BYTES}
    answer = tus(client, "POST", headers=headers, data=PIECE)
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, str(len(PIECE)))
    assert answer.json()["sha256"] == hashlib.sha256(PIECE).hexdigest()


def test_what_the_server_can_do_is_told(client):
    told = tus(client, "OPTIONS").headers
    assert told["Tus-Version"] == "1.0.0"
    assert set(told["Tus-Extension"].split(",")) >= {"creation", "expiration", "checksum", "termination"}
    assert "sha1" in told["Tus-Checksum-Algorithm"]
    assert told["Tus-Max-Size"] == "17179869184"


def begun(client, place, start, promised, more="", method="PATCH"):
    """Return a connection on which the head of a request was sent."""
    head = (
        f"{method} {place} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {client.key}\r\nTus-Resumable: 1.0.0\r\n"
        f"Content-Type: {BYTES}\r\nUpload-Offset: {start}\r\nContent-Length: {promised}\r\n{more}\r\n"
    )
    host, port = client.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), 20)
    connection.sendall(head.encode())
    return connection


def cut(client, place, start, sent, promised):
    """Send a PATCH whose connection ends after some of its bytes."""
    with closing(begun(client, place, start, promised)) as connection:
        connection.sendall(sent)


@pytest.mark.slow
def test_what_came_before_its_process_stopped_is_kept_and_the_rest_goes_on_from_there(start_bridge):
    bridge = start_bridge(celery=False, beat=False, api_processes="1")
    client, [process] = bridge.client(), processes(bridge)
    place = announce(client, len(PIECE))
    expects, length = "Expect: 100-continue\r\n", f"Upload-Length: {len(PIECE)}\r\n"
    with (
        closing(begun(client, place, 0, len(PIECE), expects)) as connection,
        closing(begun(client, UPLOADS_BASE, 0, len(PIECE), expects + length, "POST")) as announcing,
    ):
        for one in (connection, announcing):
            one.settimeout(150)
            assert one.recv(1000).startswith(b"HTTP/1.1 100 ")  # this process has the request
            one.sendall(PIECE[:100_000])
        process.terminate()
        assert connection.recv(1000).startswith(b"HTTP/1.1 503 ")
        told = announcing.recv(2000)
        assert told.startswith(b"HTTP/1.1 201 ")
        assert b"Upload-Offset: 100000\r\n" in told
    assert offset(client, place) == 100_000
    assert append(client, place, 100_000, PIECE[100_000:]).status_code == 204
    assert view(client, place)["sha256"] == hashlib.sha256(PIECE).hexdigest()
    bridge.stack.stop()


def test_what_came_before_the_connection_was_cut_is_kept_and_the_rest_goes_on_from_there(client):
    place = announce(client, len(PIECE))
    at = 0
    for sent in (1, 70_000, 131_072):
        cut(client, place, at, PIECE[at : at + sent], len(PIECE) - at)
        at = wait_until(lambda at=at, sent=sent: offset(client, place) == at + sent and at + sent, "what came to count")
    assert append(client, place, at, PIECE[at:]).status_code == 204
    assert view(client, place)["sha256"] == hashlib.sha256(PIECE).hexdigest()


def test_bytes_that_come_in_chunks_count_too(client):
    place = announce(client, len(PIECE))
    assert append(client, place, 0, iter([PIECE[:9], PIECE[9:]])).status_code == 204
    assert view(client, place)["sha256"] == hashlib.sha256(PIECE).hexdigest()
    more = announce(client, 5)
    assert append(client, more, 0, iter([b"123456"])).status_code == 413
    assert offset(client, more) == 0


def test_a_checksum_that_is_wrong_is_a_460_and_nothing_counts(client):
    place = announce(client, len(PIECE))
    for algorithm in ("sha1", "sha256", "sha512"):
        wrong = base64.b64encode(hashlib.new(algorithm, b"else").digest()).decode()
        answer = append(client, place, 0, PIECE, {"Upload-Checksum": f"{algorithm} {wrong}"})
        refused(answer, 460, "checksum_mismatch")
        assert offset(client, place) == 0
    right = base64.b64encode(hashlib.sha1(PIECE).digest()).decode()
    assert append(client, place, 0, PIECE, {"Upload-Checksum": f"sha1 {right}"}).status_code == 204


def test_an_upload_that_is_ended_is_gone(client):
    place = announce(client, 10)
    append(client, place, 0, b"12345")
    assert tus(client, "DELETE", place).status_code == 204
    for method in ("HEAD", "PATCH", "DELETE"):
        assert tus(client, method, place, {"Upload-Offset": 5, "Content-Type": BYTES}).status_code == 404
    refused(client.get(place), 404, "not_found")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 422),
        ({"Upload-Length": "-1"}, 422),
        ({"Upload-Length": "1_0"}, 422),
        ({"Upload-Length": "1" * 30}, 422),
        ({"Upload-Length": "99999999999999"}, 413),
        ({"Upload-Defer-Length": "1"}, 422),
        ({"Upload-Length": "1", "Upload-Metadata": "filename ???"}, 422),
        ({"Upload-Length": "1", "Upload-Metadata": "a YQ==,a YQ=="}, 422),
        ({"Upload-Length": "1", "Upload-Metadata": "filename AAAA"}, 422),
        ({"Upload-Length": "1", "Upload-Metadata": "x " + "A" * 5000}, 422),
        ({"Upload-Length": "1", "Upload-Metadata": said(filename="x" * 256)}, 422),
        ({"Upload-Length": "1", "Upload-Metadata": said(job_id="nonsense")}, 404),
        ({"Upload-Length": "1", "Tus-Resumable": "0.2.2"}, 412),
        ({"Upload-Length": "1", "Upload-Checksum": "crc32 AAAA"}, 422),
        ({"Upload-Length": "1", "X-Lease-Token": ""}, 422),
    ],
)
def test_an_announcement_that_says_nonsense_is_refused(client, headers, status):
    refused(tus(client, "POST", headers=headers), status)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upload-Offset": "0", "Content-Type": "application/json"}, 415),
        ({"Upload-Offset": "0", "Content-Type": BYTES, "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": BYTES}, 422),
        ({"Upload-Offset": "x", "Content-Type": BYTES}, 422),
        ({"Upload-Offset": "3", "Content-Type": BYTES}, 409),
        ({"Upload-Offset": "0", "Content-Type": BYTES, "Tus-Resumable": "2"}, 412),
        ({"Upload-Offset": "0", "Content-Type": BYTES, "Upload-Checksum": "sha1 ?"}, 422),
    ],
)
def test_bytes_that_cannot_be_taken_are_refused_and_nothing_counts(client, headers, status):
    place = announce(client, 10)
    refused(tus(client, "PATCH", place, headers, data=b"12345"), status)
    assert offset(client, place) == 0
    refused(append(client, place, 0, b"12345678901"), 413, "too_large")


def test_the_version_that_is_spoken_is_told_to_who_speaks_another(client):
    answer = client.request("POST", BASE, headers={"Upload-Length": "1"})
    refused(answer, 412)
    assert answer.headers["Tus-Version"] == "1.0.0"


def test_an_upload_is_its_keys_alone_also_within_the_tenant(bridge, client):
    place = announce(client, 10)
    for other in (bridge.client(client.tenant), bridge.client(), bridge.client(client.tenant, ("submit",))):
        refused(other.get(place), 404)
        refused(append(other, place, 0, b"12345"), 404)
        refused(tus(other, "DELETE", place), 404)
    refused(bridge.client(client.tenant, ("read",)).get(place), 403)
    refused(Client(bridge.url, None, bridge.files).get(place), 401)


# A worker's.


@pytest.fixture
def worker(bridge, client):
    return bridge.client(client.tenant, ("work",))


def token(job):
    return {"X-Lease-Token": job["lease_token"]}


def test_a_workers_upload_belongs_to_its_attempt_and_is_a_sign_of_life(bridge, client, worker):
    client.create("up")
    job = worker.claim("up", lease=600)
    refused(tus(worker, "POST", headers={"Upload-Length": 10}), 422)
    submits = bridge.client(client.tenant, ("submit",))
    of_job = {"Upload-Length": 10, "Upload-Metadata": said(job_id=job["job_id"])}
    refused(tus(submits, "POST", headers=of_job), 403, "forbidden")
    refused(tus(client, "POST", headers={"Upload-Length": 10, "Upload-Metadata": said(job_id=job["job_id"])}), 409)
    refused(tus(worker, "POST", headers={"Upload-Length": 10, "Upload-Metadata": said(job_id=job["job_id"])}), 409)
    place = announce(worker, 10, token(job), job_id=job["job_id"])
    assert client.job(job["job_id"])["acknowledged_at"], "it acknowledges the claim"
    back = "UPDATE remote_jobs SET lease_expires_at = now() + interval '5 s' WHERE id = :id"
    bridge.sql(back, id=job["job_id"])
    refused(append(worker, place, 0, b"12345", {"X-Lease-Token": "guessed"}), 409, "lease_lost")
    assert append(worker, place, 0, b"12345", token(job)).status_code == 204
    left = bridge.sql("SELECT lease_expires_at - now() > interval '5 min' AS long FROM remote_jobs WHERE id = :id",
                      id=job["job_id"])  # fmt: skip
    assert left[0].long
    # In its next life under the same attempt it goes on.
    again = Client(worker.url, worker.key, worker.files, worker.tenant)
    assert offset(again, place) == 5
    assert append(again, place, 5, b"67890", token(job)).status_code == 204


def test_a_workers_upload_ends_with_its_attempt(client, worker):
    job_id = client.create("up")
    job = worker.claim("up", lease=600)
    place = announce(worker, 10, token(job), job_id=job_id)
    ok(worker.post(f"{job_id}/release", {"lease_token": job["lease_token"]}))
    refused(append(worker, place, 0, b"12345", token(job)), 409, "lease_lost")
    second = worker.claim("up", worker_id="w2", lease=600)
    assert second["job_id"] == job_id
    refused(append(worker, place, 0, b"12345", token(second)), 409, "lease_lost")
    ours = announce(worker, 10, token(second), job_id=job_id)
    ok(client.post(f"{job_id}/cancel"))
    refused(append(worker, ours, 0, b"12345", token(second)), 409, "already_finished")
    assert offset(worker, ours) == 0


def test_what_expired_is_collected_by_beat_and_celery(bridge, client):
    place = announce(client, 10)
    append(client, place, 0, b"12345")
    bridge.sql("UPDATE uploads SET expires_at = now() - interval '1 s' WHERE tenant = :t", t=client.tenant)
    bridge.sql("UPDATE upload_segments SET written_at = now() - interval '10 min'"
               " WHERE upload_id IN (SELECT id FROM uploads WHERE tenant = :t)", t=client.tenant)  # fmt: skip
    assert [path for path in objects(bridge.settings) if f"tenant-{client.tenant}" in str(path)]
    bridge.celery.send_task("bridge.collect_uploads", queue="bridge.sweeps", ignore_result=True)
    wait_until(lambda: client.get(place).status_code == 404, "it to expire")
    wait_until(lambda: not [path for path in objects(bridge.settings) if f"tenant-{client.tenant}" in str(path)],
               "its object to be removed")  # fmt: skip
