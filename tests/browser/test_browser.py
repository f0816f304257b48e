"""The dashboard in Debian's chromium: nothing that strangers wrote runs or breaks a page, and all of it is accessible.

`make browser`; needs chromium (apt-get install chromium) and npm. `make screenshots` keeps a picture of each page.
"""

import os
import shutil
from pathlib import Path

import pytest

from bridge import names
from bridge.cli.local.checkout import ROOT
from bridge.embedded.ports import free_port
from tests.support.client import ok, status_of
from tests.support.command import starting
from tests.support.waiting import wait_until

playwright = pytest.importorskip("playwright.sync_api", reason="make browser installs it")
CHROMIUM = shutil.which("chromium")
AXE = ROOT / "tests" / "browser" / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None or not AXE.exists(), reason="chromium or axe-core is missing: make browser"),
]
PICTURES = os.environ.get("BROWSER_PICTURES")  # where pictures of pages are kept
LOOKS = {"light": ("light", 1280), "dark": ("dark", 1280), "phone": ("light", 390), "phone-dark": ("dark", 390)}
HOSTILE = (
    "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">\u202egpj.exe\u2067 {{7*7}} "
)
LONG = HOSTILE + "W" * 10_000

# One in each state; the receivers answered as they liked.
WEBHOOKS = """
INSERT INTO webhooks (job_id, n, tenant, key_id, url, kwargs, created_at, since, next_at, tries, delivered_at,
  last_error, response_status, response_excerpt)
SELECT id, 1, tenant, id, CASE WHEN i = 0 THEN :url ELSE 'https://hooks.example.org/x' END,
  json_build_object('status', status), now(), now(), CASE WHEN i IN (0, 1) THEN now() + interval '1 day' END,
  CASE i WHEN 0 THEN 7 WHEN 1 THEN 0 ELSE 2 END, CASE WHEN i = 2 THEN now() END,
  CASE i WHEN 0 THEN :error WHEN 3 THEN 'The receiver answered 410.' END,
  CASE i WHEN 0 THEN 503 WHEN 2 THEN 204 WHEN 3 THEN 410 END, CASE WHEN i = 0 THEN :excerpt END
FROM (SELECT *, row_number() OVER (ORDER BY id) - 1 AS i FROM remote_jobs
      WHERE tenant = :t AND content_type = 'document' AND completed_at IS NOT NULL LIMIT 4) j
"""


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tenant(bridge):
    """Return a client of a tenant with jobs in each state, and strings of somebody who means no good in each field."""
    client = bridge.client()
    bridge.sql("UPDATE api_keys SET name = :n WHERE tenant = :t", n=HOSTILE[:100], t=client.tenant)
    for number in range(12):
        client.create("document", ingestion_task_id=f"report-{number}")
    for number in range(8):
        job = client.claim("document", worker_id=f"gpu-{number % 3}")
        if number % 4 == 3:
            ok(client.result(job, success=False, error_message="OCR ran out of memory", retryable=False))
        else:
            ok(client.result(job, content="The text of a report.\n" * 40, metadata={"pages": 3}))
    client.create("hostile", ingestion_task_id=HOSTILE[:255], task_options={"note": LONG, HOSTILE: [LONG]})
    ok(client.result(client.claim("hostile", worker_id=HOSTILE[:255]), content=LONG, metadata={"note": LONG}))
    client.create("hostile", ingestion_task_id=("W" * 255))
    wide = client.claim("hostile", worker_id="W" * 255)
    ok(client.result(wide, success=False, error_message=LONG[:9000], retryable=False))
    client.create("audio", priority="high", task_options={"language": "en"})
    ok(client.heartbeat(client.claim("audio", worker_id="whisper-1", lease=3600), progress=0.4, message=HOSTILE))
    client.create("video")
    files = [client.fields("web", ingestion_task_id=f"{HOSTILE[:200]}{number}") for number in range(5)]
    client.batch = ok(client.post("batch", {"jobs": files, "outcome": True}))["batch_id"]
    ok(client.result(client.claim("web"), success=False, error_message=LONG[:5000], retryable=False))
    bridge.sql("UPDATE remote_jobs SET created_at = created_at - interval '10 min', queued_at = queued_at - interval"
               " '10 min' WHERE tenant = :t AND content_type = 'video'", t=client.tenant)  # fmt: skip
    bridge.sql("UPDATE remote_jobs SET source_file_path = :url WHERE tenant = :t AND content_type = 'video'",
               url=f"https://files.example.org/{'W' * 1900}?key=secret", t=client.tenant)  # fmt: skip
    bridge.sql(WEBHOOKS, t=client.tenant, url=f"https://{'w' * 60}.{'w' * 60}.example.org/x", error=LONG[:2000],
               excerpt=LONG[:500])  # fmt: skip
    bridge.sql("INSERT INTO upload_usage (tenant, key_id, bytes) SELECT tenant, id, 107000000000 FROM api_keys"
               " WHERE tenant = :t LIMIT 1", t=client.tenant)  # fmt: skip
    ok(client.post("/api/v1/workers/gpu-1/pause", {"reason": HOSTILE}))
    wait_until(lambda: bridge.sql("SELECT FROM history WHERE tenant = :t", t=client.tenant), "history", 60)
    return client


def jobs_of(tenant):
    """One job of each kind worth a look."""
    listed = ok(tenant.get("", params={"limit": 100}))["jobs"]
    kinds = {(job["content_type"], job["status"]): job["job_id"] for job in listed}
    return {f"job-{kind}-{status}": f"/ui/jobs/{job_id}" for (kind, status), job_id in kinds.items()}


def pages_of(tenant):
    plain = {"overview": "/ui/", "jobs": "/ui/jobs", "bulk": "/ui/jobs/bulk?asked=cancel&status=pending"}
    more = {name: f"/ui/{name}" for name in ("batches", "workers", "continuations", "webhooks", "keys", "sweeps")}
    more["batch"] = f"/ui/batches/{tenant.batch}"
    more["webhooks-delivered"] = "/ui/webhooks?state=delivered"
    return {**plain, **more, "sent": "/ui/continuations?state=sent", "error": "/ui/jobs/none", **jobs_of(tenant)}


class Looking:
    """A page of the browser, signed in, that notes what should not happen."""

    def __init__(self, chromium, url, theme, width, credentials=None):
        self.url = url
        self.wrong = []
        context = chromium.new_context(
            color_scheme=theme, viewport={"width": width, "height": 900}, bypass_csp=False,
            http_credentials=credentials,
        )  # fmt: skip
        self.page = context.new_page()
        self.page.on("request", lambda one: self.note(not one.url.startswith((url, "data:")), f"asks {one.url}"))
        self.page.on("pageerror", lambda error: self.note(True, f"error {error}"))
        self.page.on("dialog", lambda dialog: self.note(True, "a dialog"))
        self.page.on("console", lambda said: self.note("Content Security Policy" in said.text, said.text))

    def note(self, wrong, what):
        if wrong:
            self.wrong.append(what)

    def sign_in(self, key):
        self.page.goto(f"{self.url}/")
        self.page.fill("#key", key)
        self.page.press("#key", "Enter")
        self.page.wait_for_url("**/ui/")

    def goto(self, path):
        self.page.goto(self.url + path)
        self.page.wait_for_load_state("networkidle")

    def serious(self):
        """Return what axe-core finds of the page. It runs beside the page's own policy, in the tool's world."""
        source = AXE.read_text()
        self.page.evaluate(f"() => {{ {source}\n; window.axe = window.axe || axe; }}")
        found = self.page.evaluate("() => axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")
        return [
            (one["id"], [node["html"][:150] for node in one["nodes"][:3]])
            for one in found["violations"] if one["impact"] in ("serious", "critical")
        ]  # fmt: skip


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_stands_whatever_is_in_it(chromium, bridge, tenant, look):
    theme, width = LOOKS[look]
    looking = Looking(chromium, bridge.url, theme, width)
    looking.page.goto(f"{bridge.url}/ui/login")
    assert looking.serious() == []
    looking.sign_in(tenant.key)
    for name, path in pages_of(tenant).items():
        looking.goto(path)
        if name == "overview":
            wait_until(lambda: looking.page.locator(".plot canvas").count() == 4, "the plots")
        assert looking.page.title() != "ran", name
        assert looking.page.evaluate("document.documentElement.scrollWidth") <= width, (
            f"{name} is wider than the screen"
        )
        if PICTURES:
            Path(PICTURES).mkdir(parents=True, exist_ok=True)
            looking.page.screenshot(path=Path(PICTURES) / f"{name}-{look}.png", full_page=True)
        assert looking.serious() == [], name
    assert looking.wrong == []


def test_a_page_lives_while_it_is_looked_at_and_asks_nothing_when_it_is_hidden_or_off(chromium, bridge, tenant):
    looking = Looking(chromium, bridge.url, "light", 1280)
    looking.sign_in(tenant.key)
    looking.goto("/ui/jobs?content_type=living")
    job_id = tenant.create("living")
    looking.page.wait_for_selector(f"text={job_id}", timeout=60_000)
    asked = []
    looking.page.on("request", lambda one: asked.append(one.url))
    looking.page.click("#live-switch")
    assert looking.page.get_attribute("#live-switch", "aria-pressed") == "false"
    looking.page.wait_for_timeout(7000)
    assert asked == []
    looking.page.click("#live-switch")
    looking.page.wait_for_event("request", timeout=60_000)
    looking.page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true})")
    looking.page.wait_for_load_state("networkidle")
    asked.clear()
    looking.page.wait_for_timeout(7000)
    assert asked == []


def test_flower_is_a_click_away_and_has_every_queue(chromium, own_bridge, tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    bridge = own_bridge(api_processes="1", continuation_task="pipeline.receive", flower_url=url)
    around = {name: value for name, value in bridge.stack.environment.items() if name.startswith("BRIDGE_")}
    looking = Looking(chromium, bridge.url, "light", 1280, {"username": "me", "password": "and-mine"})
    with starting(tmp_path, **around, FLOWER_BASIC_AUTH="me:and-mine") as begin:
        begin("flower", "--port", str(port))
        wait_until(lambda: status_of(url) == 401, "Flower", 90)
        looking.sign_in(bridge.client("default").key)
        with looking.page.expect_popup() as opened:
            looking.page.click("text=Flower")
        opened.value.wait_for_selector("text=bridge@", timeout=60_000)
        if PICTURES:
            opened.value.screenshot(path=Path(PICTURES) / "flower.png")
        opened.value.goto(f"{url}/broker")
        for queue in (*names.QUEUES, "celery"):  # the pipeline's among them
            opened.value.wait_for_selector(f"text={queue}", timeout=60_000)
        assert looking.page.url == f"{bridge.url}/ui/"
        assert looking.wrong == []


def test_the_pages_are_used_by_keyboard_alone(chromium, bridge, tenant):
    looking = Looking(chromium, bridge.url, "light", 1280)
    looking.sign_in(tenant.key)
    job_id = tenant.create("keyboard")
    looking.goto(f"/ui/jobs/{job_id}")
    looking.page.keyboard.press("Tab")
    assert looking.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    for _ in range(30):
        looking.page.keyboard.press("Tab")
        if looking.page.evaluate("document.activeElement.textContent") == "Cancel":
            break
    looking.page.keyboard.press("Enter")
    looking.page.wait_for_selector("text=The job is cancelled.")
    assert tenant.status(job_id) == "cancelled"
    assert looking.wrong == []
