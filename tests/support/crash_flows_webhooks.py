"""What leads past the crash points of webhooks."""

import json
import time

import requests
from sqlalchemy import text
from standardwebhooks import Webhook

from bridge import names
from bridge.admission.keys import prefix_of
from bridge.names import KEYS_BASE, WEBHOOKS_BASE
from tests.support.client import ok
from tests.support.crash_flows import to_the_end
from tests.support.crash_site import PATIENCE, Site, new_name
from tests.support.receiver import receiver
from tests.support.waiting import wait_until


def called(site: Site) -> list[str]:
    """Deliver a webhook, also if nobody asks for it; every delivery is the same, under one ID."""
    with receiver() as there:
        assert site.client.key is not None
        secret = f"{KEYS_BASE}/{prefix_of(site.client.key)}/webhook-secret"
        made = ok(site.again(lambda **how: site.client.post(secret, **how)))
        body = {**site.client.fields(), "callback_url": there.url}
        headers = {"Idempotency-Key": new_name()}

        def created() -> str | None:
            """Once all processes know of the secret."""
            try:
                answer = site.client.post("", body, headers=headers, timeout=PATIENCE)
            except requests.RequestException:
                return None
            return str(answer.json()["job_id"]) if answer.status_code == 200 else None

        job_id = wait_until(created, "the job to be created")
        to_the_end(site, job_id)
        _delivered(site, job_id)
        with site.bridge.engine.begin() as connection:
            # A sender that is still awake passes by what is locked: the sweep is the first to find it due.
            connection.execute(text("SELECT FROM webhooks WHERE job_id = :i FOR KEY SHARE"), {"i": job_id})
            due = "UPDATE webhooks SET next_at = now(), delivered_at = NULL WHERE job_id = :i RETURNING next_at"
            (since,) = site.bridge.sql(due, i=job_id)
            ran = "SELECT FROM sweeps WHERE name = 'call_back' AND ran_at > :since"
            site.swept(lambda: site.bridge.sql(ran, since=since.next_at), names.CALL_BACK, "a sweep to look")
        _delivered(site, job_id)
        again = f"{WEBHOOKS_BASE}/resend?job_id={job_id}"
        ok(site.again(lambda **how: site.client.post(again, **how)))
        _delivered(site, job_id)
    assert len(there.got) >= 3
    for one in there.got:
        Webhook(made["webhook_secret"]).verify(one.body, one.headers)
    assert {(one.headers["webhook-id"], one.body) for one in there.got} == {(f"continue-{job_id}-1", there.got[0].body)}
    assert json.loads(there.got[0].body)["data"]["status"] == "completed"
    return [job_id]


def _delivered(site: Site, job_id: str) -> None:
    since = time.monotonic()

    def so() -> bool:
        if time.monotonic() > since + 3:  # as after 120 s: who took it has died, or stands
            site.bridge.sql("UPDATE webhooks SET next_at = now() WHERE job_id = :i AND next_at IS NOT NULL", i=job_id)
        site.sweep(names.CALL_BACK)
        (row,) = site.bridge.sql("SELECT state FROM webhooks WHERE job_id = :i", i=job_id)
        return bool(row.state == "delivered")

    wait_until(so, "its receiver to be told")
