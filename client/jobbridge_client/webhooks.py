"""Verifies that a webhook is the bridge's: Standard Webhooks 1.0, symmetric signatures (`v1`)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from jobbridge_client.errors import BadSetting, BadSignature

PREFIX = "whsec_"
MOST_SIGNATURES = 20  # of one message: a stranger can cause a comparison with each


def verify(secret: str | Iterable[str], headers: Mapping[str, str], body: bytes, *, tolerance: float = 300.0) -> Any:
    """Return the JSON of a webhook, or raise BadSignature.

    `secret` is `whsec_…`, or several of them while one is replaced; `headers` and `body` are as they came (the body as
    bytes: JSON that was read and written again has another signature); `tolerance` is in seconds, both ways. The same
    `webhook-id` may come again: deduplicate by it. Raises BadSetting for an invalid secret.
    """
    found = {name.lower(): value for name, value in headers.items()}
    number, moment = found.get("webhook-id", ""), found.get("webhook-timestamp", "")
    if not number or not (moment.isascii() and moment.isdigit() and len(moment) <= 15):
        raise BadSignature("webhook-id or webhook-timestamp is missing or malformed")
    if abs(time.time() - int(moment)) > tolerance:
        raise BadSignature(f"webhook-timestamp is more than {tolerance:.0f} s away from this machine's time")
    signed = f"{number}.{moment}.".encode(errors="replace") + body
    given = [
        one[3:].encode(errors="replace")
        for one in found.get("webhook-signature", "").split(" ")
        if one.startswith("v1,")
    ]
    secrets = [secret] if isinstance(secret, str) else list(secret)
    wanted = [base64.b64encode(hmac.digest(_key(one), signed, hashlib.sha256)) for one in secrets]
    if not any(hmac.compare_digest(one, other) for one in wanted for other in given[:MOST_SIGNATURES]):
        raise BadSignature("no signature of webhook-signature is that of this body under this secret")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise BadSignature("the body is signed and no JSON") from None


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise BadSetting("secret: must be whsec_ and the key in base64")
    return key
