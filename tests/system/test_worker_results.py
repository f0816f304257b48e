"""What the worker's client reads of a real bridge's answer to results that were sent together."""

import json
from typing import Any

from bridge_worker.answers import Answer, CallFailed
from bridge_worker.client import BridgeClient
from tests.support.client import ok


def encoded(token: str | None, success: Any = True) -> bytes:
    return json.dumps({"success": success, "content": "text", "lease_token": token}).encode()


def test_the_worker_hears_what_each_result_came_to(bridge, client):
    worker = BridgeClient(bridge.url, bridge.key(client.tenant, ("work",)), "w1")
    for _ in range(3):
        client.create()
    done, lost, broken = worker.poll("c1", ["audio"], 3, 20, 60)
    sent = [(done, encoded(done.lease_token)), (lost, encoded("x" * 43)), (broken, encoded(broken.lease_token, 1))]
    told = worker.submit_many(sent)
    kinds = [(type(one), one.job_status) for one in told]
    assert kinds == [(Answer, "completed"), (CallFailed, "processing"), (CallFailed, "pending")]
    refusals = [one for one in told if isinstance(one, CallFailed)]
    assert [(one.status, one.code) for one in refusals] == [(409, "lease_lost"), (422, "validation")]
    assert ok(client.get(f"{done.job_id}/result"))["content"] == "text"
