"""What leads past the crash points of uploads, as crash_flows does past the others."""

import hashlib
import os
import subprocess
import sys
from contextlib import suppress

import requests
from sqlalchemy.exc import DBAPIError

from bridge import names
from tests.support.client import ok
from tests.support.crash_flows import to_the_end
from tests.support.crash_site import PATIENCE, Site
from tests.support.of_an_attempt import sent
from tests.support.tus import announce, append, objects, tus
from tests.support.waiting import wait_until


def uploaded_life(site: Site) -> list[str]:
    """Its row, and that its source is named, are one transaction."""
    uploaded(site)
    asked = "SELECT id FROM uploads WHERE tenant = :t ORDER BY created_at DESC LIMIT 1"
    job_id = site.create(source_file_path=None, source_upload=str(site.bridge.sql(asked, t=site.client.tenant)[0].id))
    return to_the_end(site, job_id)


def uploaded(site: Site) -> list[str]:
    """Sent on from where the server says that it is, as clients of tus do."""
    sent = os.urandom(300_000)
    announced = site.again(lambda **how: tus(site.client, "POST", headers={"Upload-Length": len(sent)}, **how))
    place = announced.headers["Location"]

    def whole() -> bool:
        at = int(site.again(lambda **how: tus(site.client, "HEAD", place, **how)).headers["Upload-Offset"])
        if at < len(sent):
            with suppress(requests.RequestException):
                append(site.client, place, at, sent[at:], timeout=PATIENCE)
        return at == len(sent)

    wait_until(whole, "the upload to be whole")
    seen = ok(site.again(lambda **how: site.client.get(place, **how)))
    assert seen["sha256"] == hashlib.sha256(sent).hexdigest()
    return []


def checkpointed(site: Site) -> list[str]:
    """Name uploads as the checkpoint, one after the other; what the next attempt is given was named last."""
    job_id = site.create()
    job = site.claim()
    token, last = {"X-Lease-Token": job["lease_token"]}, [b""]
    for content in (b"first", b"second"):
        body = {"checkpoint_upload": sent(site.client, job, content)}
        put = site.again(lambda body=body, **how: site.client.put(f"{job_id}/checkpoint", body, headers=token, **how))
        if put.status_code != 200:  # its lease ran out meanwhile: whether it was named, nobody told
            last.append(content)
            break
        last = [content]
    left = {"lease_token": job["lease_token"]}
    assert site.again(lambda **how: site.client.post(f"{job_id}/release", left, **how)).status_code in (200, 409)
    again = wait_until(lambda: site.poll(worker_id="next"), "the next attempt")[0]
    told, given = again["checkpoint_upload"], b""
    if told is not None:
        token = {"X-Lease-Token": again["lease_token"]}
        given = site.again(lambda **how: site.client.get(told["url"], headers=token, **how)).content
        assert hashlib.sha256(given).hexdigest() == told["sha256"]
    assert given in last
    site.do(again)
    return to_the_end(site, job_id)


def joined(site: Site) -> list[str]:
    """Until it is one object; what is left behind goes, and the job gets the bytes that were sent."""
    content, tenant = os.urandom(300_000), {"t": site.client.tenant}
    place = announce(site.client, len(content))
    for at in (0, 100_000, 200_000):
        assert append(site.client, place, at, content[at : at + 100_000]).status_code == 204
    of_tenant = "object LIKE 'tenant-' || :t || '/%'"

    def one() -> bool:
        with suppress(DBAPIError):  # a process that stands still has locked them
            site.bridge.sql("UPDATE uploads SET join_at = now() WHERE tenant = :t", **tenant)
            site.bridge.sql(
                f"UPDATE upload_segments SET written_at = now() - interval '1 h' WHERE {of_tenant}", **tenant
            )
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.join_process"], env=site.bridge.stack.environment
        )
        with suppress(subprocess.TimeoutExpired):  # it stands still
            process.wait(10)
        return bool(site.bridge.sql("SELECT segments = 1 FROM uploads WHERE tenant = :t", **tenant)[0][0])

    wait_until(one, "the upload to be one object")
    site.bridge.sql(f"UPDATE upload_segments SET written_at = now() - interval '1 h' WHERE {of_tenant}", **tenant)
    site.until(f"SELECT count(*) = 1 FROM upload_segments WHERE {of_tenant}", names.COLLECT, "the rest to go", **tenant)
    assert len([path for path in objects(site.bridge.settings) if site.client.tenant in str(path)]) == 1
    job_id = site.create(source_file_path=None, source_upload=place.rpartition("/")[2])
    job = site.claim()
    token = {"X-Lease-Token": job["lease_token"]}
    assert site.again(lambda **how: site.client.get(job["source_file_url"], headers=token, **how)).content == content
    site.do(job)
    return to_the_end(site, job_id)


def collected(site: Site) -> list[str]:
    """Collect what is left behind, too, and nothing that is named."""
    uploaded(site)
    tenant = {"t": site.client.tenant}
    of_tenant = "object LIKE 'tenant-' || :t || '/%'"
    kept = set(objects(site.bridge.settings))
    uploaded(site)
    site.bridge.sql(
        "UPDATE uploads SET expires_at = now() - interval '1 s' WHERE id ="
        " (SELECT id FROM uploads WHERE tenant = :t ORDER BY created_at DESC LIMIT 1)", **tenant)  # fmt: skip
    site.bridge.sql(f"UPDATE upload_segments SET written_at = written_at - interval '1 h' WHERE {of_tenant}", **tenant)
    site.until(f"SELECT count(*) = 1 FROM upload_segments WHERE {of_tenant}", names.COLLECT, "it to go", **tenant)
    mine = [path for path in objects(site.bridge.settings) if site.client.tenant in str(path)]
    assert len(mine) == 1
    assert mine[0] in kept
    return []
