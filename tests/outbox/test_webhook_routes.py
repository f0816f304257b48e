"""Webhooks as keys, producers and operators see them: over HTTP, Celery, the command line and the dashboard."""

import pytest

from bridge import names
from bridge.admission import keys
from bridge.names import KEYS_BASE, WEBHOOKS_BASE
from tests.support.browser import Browser
from tests.support.client import Client, ok, refused
from tests.support.client_commands import document, said
from tests.support.quick_command import quick_jobbridge as jobbridge
from tests.support.waiting import LATEST, wait_until

NOWHERE = "https://hooks.example.invalid/in?token=s3cret"  # a name that no resolver knows


@pytest.fixture
def calling(bridge, client):
    """Return a client whose key has a callback address and a webhook secret."""
    asked = {"name": "calls", "scopes": ["admin"], "callback_url": NOWHERE}
    answer = client.post(f"{KEYS_BASE}/", asked)
    assert answer.status_code == 201
    made = answer.json()
    assert made["webhook_secret"].startswith("whsec_")
    assert made["callback_url"] == NOWHERE
    return Client(bridge.url, made["key"], bridge.files, client.tenant)


def tried(client, job_id):
    """Return the webhook of a job, once it was tried."""

    def found():
        rows = ok(client.get(f"{WEBHOOKS_BASE}/"))["webhooks"]
        return next((row for row in rows if row["job_id"] == job_id and row["last_error"]), None)

    return wait_until(found, "the webhook to be tried")


def test_a_webhook_is_listed_and_sent_again_and_its_address_is_not_shown(bridge, client, calling):
    job_id = calling.create("hooked")
    ok(calling.post(f"{job_id}/cancel"))
    row = tried(client, job_id)
    assert (row["n"], row["status"], row["receiver"]) == (1, "cancelled", "hooks.example.invalid")
    assert (row["state"], row["response_status"], row["response_excerpt"]) == ("waiting", None, None)
    assert row["last_error"] == "The host's name cannot be looked up."
    assert ok(client.post(f"{WEBHOOKS_BASE}/resend?job_id={job_id}")) == {"changed": 1}
    assert ok(client.post(f"{WEBHOOKS_BASE}/resend?state=failed")) == {"changed": 0}
    for bad in ("", f"?job_id={job_id}&state=failed", "?n=1"):
        refused(client.post(f"{WEBHOOKS_BASE}/resend{bad}"), 422)
    other = bridge.client()
    refused(other.post(f"{WEBHOOKS_BASE}/resend?job_id={job_id}"), 404, "not_found")
    assert ok(other.get(f"{WEBHOOKS_BASE}/"))["webhooks"] == []
    for path in (f"{WEBHOOKS_BASE}/", "", job_id, f"{job_id}/explain"):
        assert "s3cret" not in client.get(path).text
    browser = Browser(bridge.url, client.key)
    page = browser.get("/ui/webhooks").text
    assert job_id in page
    assert "s3cret" not in page
    assert "1 webhooks are sent again" in browser.act("/ui/webhooks/resend", job_id=job_id, n="1").text
    assert document(run(client, "webhooks", "--json"))["webhooks"][0]["job_id"] == job_id
    assert said(run(client, "webhooks", "resend", job_id)) == "1 sent again\n"


def run(client, *arguments):
    return jobbridge(*arguments, cwd=client.files, BRIDGE_URL=client.url, BRIDGE_KEY=client.key)


def test_only_a_key_with_a_secret_has_others_called_and_not_inside(client, calling):
    there = client.fields()
    answer = refused(client.post("", {**there, "callback_url": NOWHERE}), 422)
    assert list(answer["errors"]) == ["callback_url"]
    literals = ("https://127.0.0.1/", "https://0x7f.1/", "https://[::ffff:7f00:1]/")
    for inside in ("http://example.org/", *literals, "https://x"):
        answer = refused(calling.post("", {**there, "callback_url": inside}), 422)
        assert list(answer["errors"]) == ["callback_url"], inside
        refused(client.post(f"{KEYS_BASE}/", {"name": "n", "scopes": ["read"], "callback_url": inside}), 422)
    batch = {"jobs": [there], "callback_url": NOWHERE}
    refused(calling.post("batch", batch), 422)
    ok(calling.post("batch", {**batch, "outcome": True}))


def test_a_secret_is_made_anew_by_an_admin_of_the_tenant(bridge, client, calling):
    prefix = keys.prefix_of(calling.key)
    first, second = (ok(client.post(f"{KEYS_BASE}/{prefix}/webhook-secret"))["webhook_secret"] for _ in range(2))
    assert first != second
    refused(bridge.client().post(f"{KEYS_BASE}/{prefix}/webhook-secret"), 404, "not_found")
    refused(client.post(f"{KEYS_BASE}/a%00b/webhook-secret"), 404, "not_found")
    assert said(run(client, "keys", "webhook-secret", prefix)).startswith("whsec_")
    key, secret = said(run(client, "keys", "create", "x", "--scopes", "submit", "--callback-url", NOWHERE)).split()
    assert key.startswith("jb_")
    assert secret.startswith("whsec_")


def test_a_pipeline_names_the_key_that_signs(bridge, client, calling):
    prefix = keys.prefix_of(calling.key)
    fields = {**client.fields("hooked"), "tenant": client.tenant}

    def create(**more):
        sent = bridge.celery.send_task(names.ENQUEUE, kwargs={**fields, **more}, queue=names.QUEUE)
        return sent.get(timeout=LATEST)["job_id"]

    job_id = create(callback_key=prefix)
    ok(client.post(f"{job_id}/cancel"))
    assert tried(client, job_id)["receiver"] == "hooks.example.invalid"
    for bad, why in (("jb_00000000", "callback_key"), (prefix, "callback_url")):
        with pytest.raises(Exception, match=why):
            create(callback_key=bad, callback_url="http://10.0.0.1/")
    with pytest.raises(Exception, match="callback_url"):
        create(callback_url=NOWHERE)
