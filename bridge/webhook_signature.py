"""Signatures of webhooks, as Standard Webhooks 1.0 defines them, and the envelope, CloudEvents 1.0.

jobbridge_client/webhooks.py verifies them.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Any

import orjson

from bridge.names import API_BASE

SECRET_BYTES = 32
BOTH_SECONDS = 86400  # for which the secret before a change signs too
PREFIX = "whsec_"


def new_secret() -> bytes:
    """Make a secret of 256 random bits."""
    return secrets.token_bytes(SECRET_BYTES)


def shown(secret: bytes) -> str:
    """Format a secret as its receiver is given it."""
    return PREFIX + base64.b64encode(secret).decode()


def envelope(event_id: str, tenant: str, data: dict[str, Any]) -> bytes:
    """Build the body: an outcome as a CloudEvent in structured JSON. Equal bytes for equal data."""
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": API_BASE,
            "type": f"jobbridge.outcome.{data['status']}",
            "subject": data["job_id"],
            "time": data["recorded_at"],
            "datacontenttype": "application/json",
            "tenant": tenant,
            "data": data,
        }
    )


def headers(event_id: str, seconds: int, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    """Build the headers of a body that is sent at this second of the epoch; one signature for each secret."""
    signed = b"%s.%d.%s" % (event_id.encode(), seconds, body)
    signatures = (base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)
    return {
        "Content-Type": "application/cloudevents+json",
        "webhook-id": event_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(f"v1,{one}" for one in signatures),
        "User-Agent": "jobbridge",
    }
