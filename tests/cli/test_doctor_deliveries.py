"""`jobbridge doctor` finds webhooks that do not arrive, stores that cannot be used and addresses that lead nowhere."""

import os
import ssl
import uuid

import pytest

from bridge import names
from bridge.cli.local.doctor import deliveries, uploads
from tests.support.installation import GOOD

MISSING = "/nowhere/at/all"
WELL = {
    "BRIDGE_WEBHOOK_ALLOW": "https://*,http://10.1.2.3:8080/hooks,https://*.example.org",
    "BRIDGE_WEBHOOK_NETWORKS": "10.1.2.0/24",
    "BRIDGE_SOURCE_ALLOW": "https://127.0.0.1,https://localhost",
    "BRIDGE_SOURCE_NETWORKS": "127.0.0.0/8,::1/128",
}


def webhook(place, **columns):
    """Insert a webhook of an ended job; by default tried nine times, to be tried again."""
    ago = columns.pop("ago", "2 hours")
    given = {"job_id": place.job(mirrored=False), "n": 1, "tenant": "default", "key_id": str(uuid.uuid4()),
             "url": "https://hooks.example.org/a", "kwargs": "{}", "tries": 9,
             "last_error": "The receiver answered 503.", **columns}  # fmt: skip
    later = given.pop("later", "1 hour")
    marks = ", ".join(f":{name}" for name in given)
    place.sql(f"INSERT INTO webhooks ({', '.join(given)}, created_at, since, next_at) VALUES ({marks},"
              " now() - CAST(:ago AS interval), now() - CAST(:ago AS interval), now() + CAST(:later AS interval))",
              **given, ago=ago, later=later)  # fmt: skip


def untried(place):
    webhook(place, tries=0, last_error=None, later="-5 minutes")


def upload(place, length=10):
    """Return the name of the object that a new upload consists of."""
    upload_id, key = str(uuid.uuid4()), str(uuid.uuid4())
    place.sql("INSERT INTO uploads (id, tenant, key_id, length, received, sha256) VALUES"
              " (:id, 'acme', :key, :length, :length, sha256('x'))",
              id=upload_id, key=key, length=length)  # fmt: skip
    place.sql("INSERT INTO upload_usage (tenant, key_id, bytes) VALUES ('acme', :key, :length)",
              key=key, length=length)  # fmt: skip
    place.sql("INSERT INTO upload_segments (id, object, upload_id, start, size) VALUES (:id, :object, :of, 0, 10)",
              id=str(uuid.uuid4()), object=f"acme/{upload_id}", of=upload_id)  # fmt: skip
    return f"acme/{upload_id}"


def stored(place, *names):
    for name in names:
        file = place.data_dir / "uploads" / name
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_bytes(b"0123456789")


def open_store(place):
    (place.data_dir.parent / "open").mkdir(mode=0o755)


def not_emptied(place):
    place.sql("UPDATE sweeps SET ran_at = now() - interval '1 hour' WHERE name = 'collect_uploads'")


def unreadable(place):
    """Where an object should be there is a directory."""
    (place.data_dir / "uploads" / upload(place)).mkdir(mode=0o700, parents=True)


BROKEN = [
    ("webhooks", "warning", webhook, {}),
    ("webhooks", "warning", lambda place: webhook(place, later=None), {}),  # given up
    ("webhooks", "warning", untried, {}),
    ("store", "error", lambda place: (place.data_dir / "uploads").write_text("a file"), {}),
    ("store", "error", None, {"BRIDGE_STORE": "s3://a-bucket"}),
    ("store", "warning", open_store, {"BRIDGE_STORE": "file:{place}/open"}),
    ("store", "warning", not_emptied, {}),
    ("store_content", "error", upload, {}),
    ("store", "error", unreadable, {}),
    ("upload_quota", "warning", lambda place: stored(place, upload(place, 95)), {"BRIDGE_LIMITS": "upload_bytes=100"}),
    ("source_addresses", "warning", None, {"BRIDGE_SOURCE_NETWORKS": "10.0.0.0/8"}),
    ("source_addresses", "warning", None, {"BRIDGE_SOURCE_ALLOW": "https://localhost"}),
    ("source_addresses", "warning", None, {"BRIDGE_SOURCE_ALLOW": "https://nowhere.invalid/files"}),
    ("webhook_addresses", "warning", None, {"BRIDGE_WEBHOOK_ALLOW": "http://10.1.2.3:8080/hooks"}),
    ("webhook_addresses", "warning", None, {"BRIDGE_WEBHOOK_NETWORKS": "10.1.2.0/24"}),
    ("authorities", "warning", None, {"SSL_CERT_FILE": MISSING}),
]


@pytest.fixture(autouse=True)
def no_bucket(monkeypatch):
    """Where a bucket is asked for, nobody is there."""
    for name, value in {"ENDPOINT_URL": "http://127.0.0.1:1", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)


@pytest.mark.parametrize(("check", "level", "breaks", "changes"), BROKEN, ids=[
    f"{number}-{case[0]}" for number, case in enumerate(BROKEN)
])  # fmt: skip
def test_each_broken_set_up_is_found_and_nothing_else(place, check, level, breaks, changes):
    if breaks is not None:
        breaks(place)
    changed = {name: value.format(place=place.data_dir.parent) for name, value in changes.items()}
    assert place.found(**changed) - GOOD == {(check, level)}


def test_a_set_up_that_is_well_has_no_finding(place):
    stored(place, upload(place), upload(place, 0))
    webhook(place, tries=1)
    webhook(place, tries=0, last_error=None, later="-5 seconds")
    webhook(place, later=None, ago="9 days")
    assert place.found(**WELL) == GOOD


def test_what_is_found_names_the_receivers_and_says_whose_fault_it_is(place):
    for number in range(5):
        webhook(place, url=f"https://h{number}.example.org/secret-path")
    untried(place)
    place.redis.lpush(names.WEBHOOKS, "message")
    failing, due = (one for one in place.report().findings if one.check == "webhooks")
    assert failing.what.startswith("5 webhooks tried often and not delivered, the oldest for 2 h: h")
    assert "(The receiver answered 503)" in failing.what
    assert failing.what.endswith(" and 2 more receivers.")
    assert "secret-path" not in failing.what
    assert "messages wait in bridge.webhooks and nobody takes them" in due.what
    assert "jobbridge celery" in due.do


def test_a_store_on_a_full_disk_or_of_another_user_is_found(place, monkeypatch):
    monkeypatch.setattr(uploads, "LEAST_FREE", 1.1)
    stored(place, upload(place))
    expected = {("store_space", "warning")}
    if os.geteuid() == 0:
        os.chown(place.data_dir / "uploads", 54321, -1)
        expected.add(("store", "warning"))
    assert place.found() - GOOD == expected


def test_a_machine_without_certificates_is_found(tmp_path, monkeypatch):
    paths = ssl.get_default_verify_paths()._replace(capath=str(tmp_path))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    monkeypatch.setattr(ssl, "create_default_context", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    assert [one.check for one in deliveries.authorities({})] == ["authorities"]
    (tmp_path / "one.pem").touch()
    assert list(deliveries.authorities({})) == []


def test_the_doctor_looks_and_changes_nothing(place):
    place.found()
    assert sorted(one.name for one in place.data_dir.iterdir()) == ["files", "secrets"]
