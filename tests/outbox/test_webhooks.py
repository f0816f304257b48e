"""Webhooks: recorded with the outcome, signed, sent in turns until they are delivered or given up."""

import base64
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from bridge.admission import keys
from bridge.cli.local.checkout import ROOT
from bridge.errors import Invalid
from bridge.jobs.batches import end_batches
from bridge.jobs.enqueue import enqueue, enqueue_batch
from bridge.jobs.unserved import tell_unserved
from bridge.outbox import webhooks
from bridge.runtime import Runtime
from bridge.traces import TRACEPARENT
from bridge.webhook_signature import shown
from jobbridge_client import verify
from models.job_state import WebhookState
from tests.support.calling import LOCAL, Calling
from tests.support.receiver import Receiver, answer, receiver


@pytest.fixture
def core(make_runtime: Callable[..., Runtime]) -> Calling:
    return Calling(make_runtime(**LOCAL))


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as it:
        yield it


def documented() -> Callable[[str, dict[str, str], bytes], bytes]:
    """Return the ten lines of docs/protocol.md."""
    page = (ROOT / "docs" / "protocol.md").read_text()
    found = re.search(r"^    import base64, .*?^        return body$", page, re.M | re.S)
    assert found is not None
    names: dict[str, Any] = {}
    exec(textwrap.dedent(found.group()), names)
    return names["verified"]


def test_an_outcome_names_the_trace_of_its_job(core: Calling, there: Receiver) -> None:
    sent = f"00-{'4b' * 16}-{'00f0' * 4}-01"
    of_this_request = TRACEPARENT.set(sent)
    try:
        core.ended(there.url, "text")
    finally:
        TRACEPARENT.reset(of_this_request)
    core.ended(there.url, "another")
    core.send()
    assert [one.headers.get("traceparent") for one in there.got].count(sent) == 1
    assert [one.headers.get("traceparent") for one in there.got].count(None) == 1


def test_an_outcome_is_delivered_signed_as_standard_webhooks_says(core: Calling, there: Receiver) -> None:
    job_id = core.ended(there.url, "the tëxt")
    core.send()
    (got,) = there.got
    assert got.headers["content-type"] == "application/cloudevents+json"
    assert got.headers["webhook-id"] == f"continue-{job_id}-1"
    Webhook(core.secret).verify(got.body, got.headers)
    assert verify(core.secret, got.headers, got.body) == json.loads(got.body)
    with pytest.raises(WebhookVerificationError):
        Webhook(core.secret).verify(got.body + b" ", got.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(shown(bytes(32))).verify(got.body, got.headers)
    assert documented()(core.secret, got.headers, got.body) == got.body
    with pytest.raises(ValueError, match="not signed"):
        documented()(core.secret, got.headers, got.body + b" ")
    event = json.loads(got.body)
    recorded = core.hooks(job_id)[0].created_at.isoformat()
    data = event.pop("data")
    assert event == {
        "specversion": "1.0", "id": f"continue-{job_id}-1", "source": "/api/v1/remote-jobs", "subject": job_id,
        "type": "jobbridge.outcome.completed", "time": recorded, "datacontenttype": "application/json",
        "tenant": "default",
    }  # fmt: skip
    assert (data["job_id"], data["content"], data["n"], data["recorded_at"]) == (job_id, "the tëxt", 1, recorded)
    (row,) = core.hooks(job_id)
    assert (row.state, row.tries, row.next_at, row.response_status) == ("delivered", 1, None, 204)
    core.send()
    assert len(there.got) == 1


def test_a_webhook_needs_no_continuation_task(make_runtime: Callable[..., Runtime], there: Receiver) -> None:
    core = Calling(make_runtime(**LOCAL, continuation_task=""))
    job_id = core.ended(there.url)
    core.send()
    assert not core.outcomes(job_id)
    assert len(there.got) == 1


def test_each_way_a_job_can_end_calls(core: Calling, there: Receiver) -> None:
    cancelled, retried = core.calling(there.url), core.calling(there.url, max_retries=0)
    core.cancel(cancelled)
    job = core.claim(retried, acknowledge=True)
    assert job is not None
    core.result(job, success=False, retryable=False, error_message="no")
    core.restart(retried)
    again = core.claim(retried, acknowledge=True)
    assert again is not None
    core.result(again)
    core.send()
    told = sorted((json.loads(one.body)["data"]["status"], one.headers["webhook-id"]) for one in there.got)
    assert told == [("cancelled", f"continue-{cancelled}-1"), ("completed", f"continue-{retried}-2"),
                    ("failed", f"continue-{retried}-1")]  # fmt: skip


@pytest.mark.parametrize("task", ["pipeline.receive", ""])
def test_an_unserved_job_and_the_end_of_a_batch_call(
    make_runtime: Callable[..., Runtime], there: Receiver, task: str
) -> None:
    core = Calling(make_runtime(**LOCAL, continuation_task=task))
    job_id = core.calling(there.url, unserved_after_seconds=30)
    core.sql("UPDATE remote_jobs SET available_at = available_at - interval '1 h', unserved_at = now()")
    assert tell_unserved(core.runtime) == 1
    core.cancel(job_id)
    batch = enqueue_batch(core.runtime, "default", [core.fields()] * 2, outcome=True, callback_url=there.url,
                          asks=core.asks)  # fmt: skip
    for one in batch:
        core.cancel(one.job_id)
    core.send()
    told = [json.loads(one.body)["data"] for one in there.got]
    assert sorted((one["status"], one["n"]) for one in told) == [("batch_ended", 0), ("cancelled", 2), ("unserved", 1)]
    assert end_batches(core.runtime, [batch[0].batch_id]) == []


def test_whom_a_job_calls(core: Calling) -> None:
    url = "http://127.0.0.1:9/x"
    with pytest.raises(Invalid, match="no webhook secret"):
        enqueue(core.runtime, "default", core.fields(callback_url=url), asks=core.asks._replace(signs=False))
    inside = ("http://127.0.0.2:80/", "http://169.254.169.254/", "http://[::1]:1/")
    for bad in (*inside, "https://example.org/", "ftp://x"):
        with pytest.raises(Invalid) as refused:
            core.calling(bad)
        assert list(refused.value.errors) == ["callback_url"]
    with pytest.raises(Invalid) as refused:
        enqueue_batch(core.runtime, "default", [core.fields(), core.fields(callback_url="ftp://x")], asks=core.asks)
    assert list(refused.value.errors) == ["jobs.1.callback_url"]
    with pytest.raises(Invalid, match="outcome"):
        enqueue_batch(core.runtime, "default", [core.fields()], callback_url=url, asks=core.asks)
    of_key = core.asks._replace(callback_url=url)
    default = enqueue(core.runtime, "default", core.fields(), asks=of_key).job_id
    own = enqueue(core.runtime, "default", core.fields(callback_url=f"{url}2"), asks=of_key).job_id
    nobody = enqueue(core.runtime, "default", core.fields(), asks=core.asks).job_id
    assert [core.row(one).callback_url for one in (default, own, nobody)] == [url, f"{url}2", None]
    assert core.row(nobody).callback_key is None


def test_what_is_refused_is_tried_again_later_under_the_same_id_and_given_up(core: Calling, there: Receiver) -> None:
    there.answers = answer(500, "<b>broken\x1b[0m</b>")
    job_id = core.ended(there.url)
    waits = []
    for tried in range(1, 7):
        core.due()
        core.send()
        (row,) = core.hooks(job_id)
        assert (row.tries, row.state) == (tried, "failing" if tried >= 5 else "waiting")
        waits.append(round(row.due_in))
    assert waits == [5, 10, 20, 40, 80, 160]
    assert (row.last_error, row.response_status) == ("The receiver answered 500.", 500)
    assert row.response_excerpt == "<b>broken [0m</b>"
    assert {(one.body, one.headers["webhook-id"]) for one in there.got} == {(there.got[0].body, f"continue-{job_id}-1")}
    core.sql("UPDATE webhooks SET since = since - interval '4 days'")
    core.due()
    core.send()
    (row,) = core.hooks(job_id)
    assert (row.state, row.next_at) == ("failed", None)
    there.answers = answer(200)
    assert webhooks.resend_all(core.runtime, "other", WebhookState.FAILED) == 0
    assert webhooks.resend_all(core.runtime, "default", WebhookState.FAILED, batch=1) == 1
    core.send()
    assert core.hooks(job_id)[0].state == "delivered"


def test_a_receiver_says_when_to_come_again_or_never(core: Calling, there: Receiver) -> None:
    there.answers = answer(503, Retry_After="120")
    patient = core.ended(there.url)
    core.send()
    there.answers = answer(410)
    gone = core.ended(there.url)
    core.send()
    assert round(core.hooks(patient)[0].due_in) == 120
    assert core.hooks(gone)[0].state == "failed"


def test_who_has_died_in_between_is_followed_by_the_same_again(core: Calling, there: Receiver) -> None:
    """At least once: taken and not sent, or sent and not noted, it is due again, the same."""
    job_id = core.ended(there.url)
    with core.engine.begin() as connection:
        params = {"tenant": "default", "receiver": f"127.0.0.1:{there.port}"}
        taken = connection.execute(webhooks.TAKE, {**params, "visibility": webhooks.VISIBILITY_SECONDS}).one()
    core.send()
    assert not there.got
    assert 100 < core.hooks(job_id)[0].due_in <= 120
    core.due()
    core.send()
    assert len(there.got) == 1
    with core.engine.begin() as connection:  # the one that was slow notes its own end: it is not its any more
        named = {"job_id": taken.job_id, "n": taken.n, "tries": taken.tries, "error": "late", "status": None}
        gave_up = {"excerpt": None, "final": True, "wait": 0, "jitter": 0, "give_up": 1}
        assert connection.execute(webhooks.NOT_DELIVERED, {**named, **gave_up}).rowcount == 0
    assert core.hooks(job_id)[0].state == "delivered"


def test_secrets_change_without_a_gap_and_end_with_their_key(core: Calling, there: Receiver) -> None:
    with core.engine.begin() as connection:
        secret = keys.change_webhook_secret(connection, core.prefix)
    assert secret is not None
    core.ended(there.url)
    core.send()
    for one in (core.secret, shown(secret)):
        Webhook(one).verify(there.got[0].body, there.got[0].headers)
    core.sql("UPDATE api_keys SET webhook_secret_at = webhook_secret_at - interval '25 h'")
    core.ended(there.url)
    core.send()
    with pytest.raises(WebhookVerificationError):
        Webhook(core.secret).verify(there.got[1].body, there.got[1].headers)
    with core.engine.begin() as connection:
        keys.revoke_key(connection, core.prefix)
        assert keys.change_webhook_secret(connection, core.prefix) is None
    job_id = core.ended(there.url)
    core.send()
    (row,) = core.hooks(job_id)
    assert (row.state, row.last_error, len(there.got)) == ("failed", "The key that asked for it is revoked.", 2)
    assert len(base64.b64decode(core.secret.removeprefix("whsec_"))) == 32
