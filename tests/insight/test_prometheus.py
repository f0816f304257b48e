"""The alert rules and the Grafana dashboard of deploy/, in a real Prometheus that scrapes a running bridge."""

import json
import re
import shutil
import subprocess
from contextlib import suppress

import pytest
import requests

from bridge.cli.local.checkout import ROOT
from bridge.embedded.ports import free_port
from tests.support.client import ok, refused
from tests.support.waiting import wait_until

RULES = ROOT / "deploy" / "prometheus" / "bridge.rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "bridge.json"
pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="apt-get install -y prometheus"
)


def expressions():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.fixture
def prometheus(bridge, tmp_path):
    """Yield the address of a Prometheus with our rules that scrapes the shared bridge once a second."""
    target = bridge.url.removeprefix("http://")
    (tmp_path / "prometheus.yml").write_text(
        f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{RULES}']\n"
        f"scrape_configs: [{{job_name: bridge, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    port = free_port()
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], cwd=tmp_path, stdout=log, stderr=log
        )
    yield f"http://127.0.0.1:{port}"
    running.terminate()
    running.wait(60)


def asked(url, path, **query):
    try:
        answer = requests.get(f"{url}/api/v1/{path}", params=query, timeout=30)
    except requests.ConnectionError:
        return None
    return answer.json() if answer.status_code in (200, 400, 422) else None


def test_the_files_are_what_promtool_takes():
    done = subprocess.run(
        ["promtool", "check", "rules", RULES], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = RULES.read_text()
    assert len(re.findall(r"^ +- alert:", text, re.M)) == len(re.findall(r"^ +runbook: '.+'", text, re.M)) >= 10


@pytest.mark.slow
def test_a_prometheus_loads_the_alerts_and_finds_every_metric_that_is_named(bridge, client, prometheus):
    client.create("metered")
    ok(client.result(job := client.claim("metered")))
    refused(client.result(job, content="another"), 409)
    client.create("waits")  # what waits for nobody has no line

    def scraped():
        found = asked(prometheus, "query", query='up{job="bridge"}')
        return found and [one["value"][1] for one in found["data"]["result"]] == ["1"]

    wait_until(scraped, "the bridge to be scraped")
    (group,) = asked(prometheus, "rules")["data"]["groups"]
    wait_until(
        lambda: all(rule["health"] == "ok" for rule in asked(prometheus, "rules")["data"]["groups"][0]["rules"]),
        "every rule to be evaluated without an error",
        60,
    )
    assert {rule["type"] for rule in group["rules"]} == {"alerting"}
    exprs = [*expressions(), *(rule["query"] for rule in group["rules"])]
    named = {name for expr in exprs for name in re.findall(r"\bbridge_\w+", expr)}
    assert len(named) >= 10
    with suppress(AssertionError):  # the names of those that are missing say more
        wait_until(lambda: not named - set(asked(prometheus, "label/__name__/values")["data"]), "every metric")
    assert not named - set(asked(prometheus, "label/__name__/values")["data"])
    for expr in exprs:
        assert asked(prometheus, "query", query=expr)["status"] == "success", expr
