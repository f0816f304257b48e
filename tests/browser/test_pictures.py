"""The pictures of the documents (docs/images), made anew by `make screenshots`: dashboard, Flower and `top`."""

import io
import os
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from bridge import names
from bridge.embedded.ports import free_port
from tests.browser.test_browser import CHROMIUM, Looking, chromium, playwright  # noqa: F401  (a fixture)
from tests.support.client import ok
from tests.support.command import Terminal, starting
from tests.support.waiting import wait_until

IMAGES = os.environ.get("DOCS_PICTURES")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None or not IMAGES, reason="only make screenshots writes pictures"),
]
WIDTH = 1280


@pytest.fixture(scope="module")
def tenant(bridge):
    """Return a tenant with a day's work as it may look."""
    client = bridge.client("acme")
    for number in range(24):
        kind = ("document", "document", "audio")[number % 3]
        client.create(kind, ingestion_task_id=f"{'call' if kind == 'audio' else 'report'}-{4100 + number}")
        job = client.claim(kind, worker_id=f"{'whisper' if kind == 'audio' else 'ocr'}-{number % 2 + 1}")
        if number % 8 == 7:
            ok(client.result(job, success=False, error_message=f"{kind}: out of memory", retryable=False))
        else:
            ok(client.result(job, content="The text of a report.\n" * 40, metadata={"pages": 3}))
    for number in range(5):
        client.create("document", ingestion_task_id=f"report-{4200 + number}")
    client.create("audio", priority="high", ingestion_task_id="call-4301")
    ok(client.heartbeat(client.claim("audio", worker_id="whisper-1", lease=3600), progress=0.4, message="12 of 30 min"))
    ok(client.post("/api/v1/workers/ocr-2/pause", {"reason": "New driver"}))
    done = "SELECT sum(completed) FROM history WHERE tenant = 'acme' AND step = (SELECT min(step) FROM history)"
    wait_until(lambda: (bridge.sql(done)[0][0] or 0) >= 21, "history", 90)
    return client


def kept(page, name):
    assert IMAGES is not None
    Path(IMAGES).mkdir(parents=True, exist_ok=True)
    place = Path(IMAGES) / f"{name}.png"
    page.screenshot(path=place)
    assert 5_000 < place.stat().st_size < 300_000, "a picture of something, and no burden for a clone"


def test_the_dashboard(chromium, bridge, tenant):  # noqa: F811
    looking = Looking(chromium, bridge.url, "light", WIDTH)
    looking.sign_in(tenant.key)
    failed = ok(tenant.get("", params={"status": "failed"}))["jobs"][0]["job_id"]
    pages = {"overview": ("/ui/", 950), "job": (f"/ui/jobs/{failed}", 515), "workers": ("/ui/workers", 580)}
    for name, (path, height) in pages.items():
        looking.page.set_viewport_size({"width": WIDTH, "height": height})
        looking.goto(path)
        kept(looking.page, f"dashboard-{name}")


def test_flower(chromium, bridge, tenant, tmp_path):  # noqa: F811
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    around = {name: value for name, value in bridge.stack.environment.items() if name.startswith("BRIDGE_")}
    page = chromium.new_context(
        viewport={"width": WIDTH, "height": 640}, http_credentials={"username": "me", "password": "and-mine"}
    ).new_page()

    def answers():
        try:
            return page.goto(f"{url}/broker").status == 200
        except playwright.Error:  # not yet
            return False

    with starting(tmp_path, **around, FLOWER_BASIC_AUTH="me:and-mine") as begin:
        begin("flower", "--port", str(port))
        wait_until(answers, "Flower", 90)
        (bridge.files / "call.wav").write_bytes(b"RIFF")
        for number in range(6):
            body = {"source_file_path": str(bridge.files / "call.wav"), "content_type": "audio"}
            task = {**body, "ingestion_task_id": f"call-{4400 + number}"}
            bridge.celery.send_task(names.ENQUEUE, kwargs=task, queue=names.QUEUE, ignore_result=True)
        page.goto(f"{url}/broker")
        page.wait_for_selector("text=nobody")
        kept(page, "flower-broker")
        page.goto(f"{url}/tasks")
        page.wait_for_selector(f"text={names.ENQUEUE}", timeout=60_000)
        kept(page, "flower-tasks")


def test_top(chromium, bridge, tenant, tmp_path):  # noqa: F811
    shown = Terminal("top", "--once", cwd=tmp_path, width=100, BRIDGE_URL=bridge.url, BRIDGE_KEY=tenant.key)
    assert shown.ends() == 0
    shown.close()
    paper = Console(record=True, width=100, file=io.StringIO())
    paper.print(Text.from_ansi(shown.raw.replace("\r\n", "\n")))
    page = chromium.new_context(viewport={"width": 820, "height": 225}, color_scheme="dark").new_page()
    html = paper.export_html(inline_styles=True)
    page.set_content(re.sub(r"<body>", '<body style="background:#111;color:#ddd;font-size:13px">', html))
    kept(page, "top")
