"""What an autoscaler is told."""

import re

import pytest

from bridge.cli.local.checkout import ROOT
from bridge.insight.scaling import workers_wanted
from tests.support.client import ok, refused


@pytest.mark.parametrize(
    ("jobs", "seconds", "within", "wanted"),
    [
        (0, 100, 600, 0),
        (1, 1, 600, 1),
        (12, 100, 600, 2),
        (13, 100, 600, 3),
        (3, 5000, 600, 3),
        (10**6, 60, 600, 10**5),
    ],
)
def test_workers_are_wanted_for_the_time_that_the_jobs_take_and_never_more_than_jobs(jobs, seconds, within, wanted):
    assert workers_wanted(jobs, seconds, within) == wanted


def test_a_queue_tells_what_may_be_claimed_and_zeros_where_there_is_nothing(client):
    for _ in range(3):
        client.create("scale")
    client.create("scale", available_at="2999-01-01T00:00:00Z", queue_timeout_seconds=2592000)
    ok(client.heartbeat(client.claim("scale")))
    told = ok(client.get("/api/v1/scaling/scale", params={"clear_within": 600}))
    assert (told["claimable"], told["processing"], told["workers_wanted"], told["workers_busy"]) == (2, 1, 3, 1)
    assert told["oldest_seconds"] > 0
    assert told in [
        {**queue, "oldest_seconds": told["oldest_seconds"], "workers_waiting": told["workers_waiting"]}
        for queue in ok(client.get("/api/v1/scaling"))["queues"]
    ]
    nothing = ok(client.get("/api/v1/scaling/nothing"))
    assert (nothing["claimable"], nothing["processing"], nothing["oldest_seconds"], nothing["workers_wanted"]) == (
        0,
    ) * 4
    refused(client.get("/api/v1/scaling/NOT A TYPE"), 422)
    refused(client.get("/api/v1/scaling", params={"clear_within": 0}), 422)


def test_the_example_in_the_docs_asks_for_a_path_and_a_field_that_there_are(client):
    page = (ROOT / "docs" / "operations.md").read_text()
    (path,) = re.findall(r"url: https://bridge\.example\.org(/\S+)", page)
    (field,) = re.findall(r"valueLocation: (\w+)", page)
    assert ok(client.get(path))[field] == 0
