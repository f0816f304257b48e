"""Webhooks verified by the client, signed by the library of those who wrote the standard."""

import base64
import os
import time
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook

from jobbridge_client import BadSetting, BadSignature, verify

SECRET = "whsec_" + base64.b64encode(os.urandom(24)).decode()
BODY = '{"type": "job.completed", "data": {"name": "ä"}}'.encode()


def signed(secret=SECRET, body=BODY, age=0):
    moment = datetime.fromtimestamp(int(time.time()) - age, UTC)
    signature = Webhook(secret).sign("msg_1", moment, body.decode())
    return {"Webhook-Id": "msg_1", "webhook-timestamp": str(int(moment.timestamp())), "WEBHOOK-SIGNATURE": signature}


def test_what_the_bridge_signed_is_believed():
    assert verify(SECRET, signed(), BODY)["data"] == {"name": "ä"}
    other = "whsec_" + base64.b64encode(os.urandom(24)).decode()
    assert verify([other, SECRET], signed(), BODY)
    headers = signed()
    headers["WEBHOOK-SIGNATURE"] = f"v1a,abc v1,no {headers['WEBHOOK-SIGNATURE']}"
    assert verify(SECRET, headers, BODY)


@pytest.mark.parametrize(
    "change",
    [
        {"Webhook-Id": "msg_2"},
        {"Webhook-Id": ""},
        {"webhook-timestamp": "1.5"},
        {"webhook-timestamp": "9" * 400},
        {"webhook-timestamp": "١٢٣"},
        {"WEBHOOK-SIGNATURE": ""},
        {"WEBHOOK-SIGNATURE": "v1"},
        {"WEBHOOK-SIGNATURE": "v1,\udcff,é"},
        {"WEBHOOK-SIGNATURE": "v1, " * 10_000},
    ],
)
def test_bent_headers_are_a_bad_signature_and_nothing_else(change):
    with pytest.raises(BadSignature):
        verify(SECRET, {**signed(), **change}, BODY)


def test_another_body_another_secret_and_an_old_message_are_not_believed():
    for secret, headers, body in [
        (SECRET, signed(), BODY + b" "),
        ("whsec_" + base64.b64encode(b"other").decode(), signed(), BODY),
        (SECRET, signed(age=400), BODY),
        (SECRET, signed(age=-400), BODY),
        (SECRET, signed(body=b"no json"), b"no json"),
        ([], signed(), BODY),
    ]:
        with pytest.raises(BadSignature):
            verify(secret, headers, body)
    assert verify(SECRET, signed(age=400), BODY, tolerance=600)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_%%", ""])
def test_a_secret_that_is_none_is_refused(secret):
    with pytest.raises(BadSetting):
        verify(secret, signed(), BODY)
