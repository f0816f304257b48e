"""Who gets onto the dashboard, and what another site can make a browser do there: nothing."""

import re
import time
from typing import Any

import pytest
import requests
from itsdangerous import TimestampSigner, URLSafeTimedSerializer

from api.create_app import create_app
from api.ui import dashboard
from api.ui.session import COOKIE
from bridge.admission import keys
from bridge.admission.session_secret import session_secret
from bridge.errors import TooMany
from tests.support.browser import Browser, shown
from tests.support.client import refused
from tests.support.waiting import wait_until


@pytest.fixture
def browser(bridge, client):
    return Browser(bridge.url, client.key)


def rules(runtime):
    """Yield (method, path) of each page and action, and the scopes it requires."""
    app = create_app(runtime, runtime)
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("ui.") and (scopes := getattr(app.view_functions[rule.endpoint], "scopes", ())):
            path = re.sub(r"<[^>]*>", "00000000-0000-7000-8000-000000000000", rule.rule)
            yield ("POST" if "POST" in (rule.methods or ()) else "GET"), path, scopes


def test_a_browser_is_led_to_the_dashboard_and_others_are_told_that_there_is_nothing(bridge):
    led = requests.get(f"{bridge.url}/", headers={"Accept": "text/html"}, timeout=30)
    assert led.url == f"{bridge.url}/ui/login"
    assert "Sign in" in led.text
    refused(requests.get(f"{bridge.url}/", timeout=30), 404)


def test_a_wrong_key_gets_no_session_and_a_right_one_a_cookie_that_scripts_cannot_read(bridge, client):
    browser = Browser(bridge.url)
    for key in ("", "wrong", "jb_00000000_" + "x" * 43, client.key[:-1] + "!"):
        answer = browser.send("/ui/login", key=key)
        assert answer.status_code == 401
        assert "is not valid" in answer.text
        assert COOKIE not in browser.session.cookies
    answer = browser.send("/ui/login", follow=False, key=client.key)
    cookie = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "Path=/ui", "SameSite=Lax"} <= set(cookie.split("; "))
    assert client.key.split("_", 2)[2] not in cookie  # the secret, which may have underscores itself
    assert browser.get("/ui/").status_code == 200


def test_every_page_asks_for_a_session_and_for_its_scope(bridge, client, runtime):
    nobody = Browser(bridge.url)
    narrow = {
        scopes: Browser(bridge.url, bridge.client(client.tenant, scopes).key)
        for scopes in (("read", "submit"), ("read",))
    }
    tokens = {scopes: one.token() for scopes, one in narrow.items()}
    found = list(rules(runtime))
    assert len(found) >= 18
    for method, path, scopes in found:
        answer = nobody.session.request(method, bridge.url + path, timeout=60, allow_redirects=False)
        assert answer.status_code == 303, (method, path)
        assert answer.headers["Location"].startswith("/ui/login")
        for mine, one in narrow.items():
            if set(mine) & set(scopes):
                continue
            sent = {"csrf": tokens[mine]} if method == "POST" else None
            answer = one.session.request(method, bridge.url + path, data=sent, timeout=60, allow_redirects=False)
            assert answer.status_code == 403, (mine, method, path)
    blind = Browser(bridge.url).send("/ui/login", key=bridge.client(client.tenant, ("work", "submit")).key)
    assert (blind.status_code, COOKIE in blind.cookies) == (403, False)


def test_an_action_needs_the_token_of_its_session_and_a_page_of_ours(bridge, client, browser, runtime):
    job_id = client.create()
    other = Browser(bridge.url, bridge.key(client.tenant))
    path = f"/ui/jobs/{job_id}/cancel"
    token = browser.token()
    assert browser.send(path, other="").status_code == 403
    assert browser.send(path, csrf="").status_code == 403
    assert browser.send(path, csrf=other.token()).status_code == 403
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        assert browser.send(path, headers=headers, csrf=token).status_code == 403
    old = {"Sec-Fetch-Site": None, "Origin": "https://evil.example"}  # a browser that does not tell the site
    assert browser.send(path, headers=old, csrf=token).status_code == 403
    foreign = Browser(bridge.url).send("/ui/login", headers={"Sec-Fetch-Site": "cross-site"}, key=client.key)
    assert foreign.status_code == 403
    assert client.status(job_id) == "pending"
    for method, where, _ in rules(runtime):
        if method == "POST":
            assert browser.send(where, other="").status_code == 403, where
    assert browser.send(path, csrf=token).status_code == 200
    assert client.status(job_id) == "cancelled"


def test_a_session_ends_with_its_key_within_a_second_and_at_sign_out(bridge, client, browser):
    assert browser.get("/ui/").url.endswith("/ui/")
    other = Browser(bridge.url, client.key)
    other.act("/ui/logout")
    assert other.get("/ui/").url.endswith("/ui/login")
    bridge.sql("UPDATE api_keys SET revoked_at = now() WHERE prefix = :p", p=keys.prefix_of(client.key))
    felt = time.monotonic() + 1.5  # both processes remember a key for at most a second
    wait_until(lambda: "login" in browser.get("/ui/").url and time.monotonic() > felt, "the end of the session")
    part = browser.session.get(f"{bridge.url}/ui/", headers={"HX-Request": "true"}, timeout=30)
    assert (part.status_code, part.headers["HX-Redirect"]) == (401, "/ui/login")


def test_a_cookie_that_the_bridge_did_not_sign_or_that_is_old_counts_for_nothing(bridge, client, browser):
    prefix = keys.prefix_of(client.key)
    options: dict[str, Any] = {
        "salt": "bridge session",
        "signer_kwargs": {"digest_method": "sha256", "key_derivation": "hmac"},
    }
    secret = session_secret(bridge.engine, bridge.settings)
    assert secret == session_secret(bridge.engine, bridge.settings)

    def signed(ago: int) -> Any:
        class Earlier(URLSafeTimedSerializer):
            class default_signer(TimestampSigner):
                def get_timestamp(self):
                    return int(time.time()) - ago

        return Earlier(secret, **options).dumps([prefix, now])

    now = int(time.time())
    own = browser.session.cookies[COOKIE]
    for cookie in (
        URLSafeTimedSerializer(b"x" * 32, **options).dumps([prefix, now]),
        URLSafeTimedSerializer(secret, **{**options, "salt": "bridge said"}).dumps([prefix, now]),
        signed(3700),
        URLSafeTimedSerializer(secret, **options).dumps([prefix, now - 13 * 3600]),
        URLSafeTimedSerializer(secret, **options).dumps(["jb_00000000", now]),
        own[:-1],
        "",
        "é",
    ):
        answer = requests.get(f"{bridge.url}/ui/", headers={"Cookie": f"{COOKIE}={cookie}".encode()}, timeout=30)
        assert answer.url.endswith("/ui/login"), cookie
    for ago, renewed in ((0, False), (400, True)):
        answer = requests.get(f"{bridge.url}/ui/", headers={"Cookie": f"{COOKIE}={signed(ago)}"}, timeout=30)
        assert answer.url.endswith("/ui/")
        assert (COOKIE in answer.cookies) == renewed, "one that is used lasts on"


@pytest.mark.parametrize(
    "target",
    ["https://evil.example/", "//evil.example", "/ui//evil.example", "/ui/\\evil", "javascript:x", "/docs", ""],
)
def test_signing_in_leads_to_no_other_place(bridge, client, target):
    answer = Browser(bridge.url).session.post(
        f"{bridge.url}/ui/login", params={"next": target}, data={"key": client.key}, timeout=30, allow_redirects=False
    )
    assert (answer.status_code, answer.headers["Location"]) == (303, "/ui/")


def test_signing_in_leads_back_to_where_the_browser_wanted_to_go(bridge, client):
    browser = Browser(bridge.url)
    asked = browser.get("/ui/jobs?status=failed")
    where = asked.url.removeprefix(bridge.url)
    assert where == "/ui/login?next=%2Fui%2Fjobs%3Fstatus%3Dfailed"
    assert browser.send(where, key=client.key).url == f"{bridge.url}/ui/jobs?status=failed"


def test_answers_let_nothing_run_but_our_files_and_are_kept_nowhere(bridge, browser):
    for path in ("/ui/", "/ui/jobs", "/ui/login", "/ui/jobs/none", "/ui/history?span=1h"):
        headers = browser.get(path).headers
        policy = dict(part.partition(" ")[::2] for part in headers["Content-Security-Policy"].split("; "))
        assert (
            policy["default-src"] == policy["object-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        )
        assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
    page = browser.get("/ui/").text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|https?://", page)
    assert re.findall(r"<script(?! src=\"/ui/static/)", page) == []
    for address in re.findall(r'(?:src|href)="(/ui/static/[^"]*)"', page):
        answer = requests.get(bridge.url + address, timeout=30)
        assert (answer.status_code, "immutable" in answer.headers["Cache-Control"]) == (200, True)
    refused_file = requests.get(f"{bridge.url}/ui/static/..%2f..%2fwsgi.py", timeout=30)
    assert refused_file.status_code == 404


def test_forms_are_bounded_and_hardly_forms_are_refused(bridge, client, browser):
    url, token = f"{bridge.url}/ui/workers/pause", browser.token()
    form = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    head = f"csrf={token}&worker_id=w&reason=r".encode()

    def status(data, **headers):
        return browser.session.post(url, data=data, headers={**form, **headers}, timeout=60).status_code

    assert status(head + b"&x=" + b"y" * 70_000) == 413
    assert status(iter([head])) == 400  # in chunks, without a length
    assert status(b'{"csrf": 1}', **{"Content-Type": "application/json"}) == 415
    assert status(head, **{"Content-Encoding": "gzip"}) == 415
    assert status(head + b"&x=%ff") == 400
    assert status(head + b"&x=%00") == 422
    assert status(head + b"&x=1" * 100) == 400
    answer = browser.act("/ui/workers/pause", worker_id="w", reason="r" * 600)
    assert answer.status_code == 422
    assert "reason" in shown(answer)
    assert bridge.sql("SELECT count(*) FROM worker_pauses WHERE tenant = :t", t=client.tenant)[0][0] == 0


def test_the_dashboard_can_be_left_out(runtime):
    settings = runtime.settings.model_copy(update={"ui": False})
    object.__setattr__(runtime, "settings", settings)
    app = create_app(runtime, runtime)
    assert not [rule.rule for rule in app.url_map.iter_rules() if rule.rule == "/" or rule.rule.startswith("/ui")]


def test_overviews_are_kept_within_bounds_and_a_refusal_says_when_to_come_again(make_runtime, monkeypatch):
    runtime = make_runtime(auth="off")
    app = create_app(runtime, runtime)
    monkeypatch.setattr(dashboard, "MOST_KEPT", 1)
    app.extensions["ui_overview"] = {"another": (0.0, None)}
    asks = app.test_client()
    assert asks.get("/ui/", headers={"Host": "localhost"}).status_code == 200
    assert list(app.extensions["ui_overview"]) == ["default"]

    def refuse(*_):
        raise TooMany("Too many at once.", retry_after=7)

    monkeypatch.setattr(dashboard, "overview", refuse)
    answer = asks.get("/ui/", headers={"Host": "localhost"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert "Too many at once." in answer.text


def test_without_keys_only_pages_of_ours_act(own_bridge):
    bridge = own_bridge(auth="off", celery=False, beat=False)
    browser = Browser(bridge.url)
    assert "keys are off" in browser.get("/ui/").text
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert requests.get(f"{bridge.url}/ui/", headers=foreign, timeout=30).status_code == 403
    assert browser.send("/ui/workers/pause", worker_id="w", reason="r").status_code == 403
    assert "is paused" in browser.act("/ui/workers/pause", worker_id="w", reason="r").text
