"""The settings: the contract's defaults, one line for each bad value, and every spelling of an address."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge import settings as settings_module
from bridge.blobs.bucket import Bucket
from bridge.cli.local import command_lines
from bridge.cli.local.checkout import ROOT
from bridge.redis_url import for_celery, service
from bridge.settings import SettingsError, known_names, load_settings, read_environment, unknown_names
from tests.support.command import environment, jobbridge


def load(**given):
    return load_settings({f"BRIDGE_{name.upper()}": value for name, value in given.items()})


def test_without_any_setting_the_contracts_defaults_hold():
    settings = load()
    assert (settings.database_url, settings.redis_url, settings.broker_url) == (None, None, None)
    assert settings.data_dir == Path(".bridge").absolute()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.api_processes == os.cpu_count()
    assert settings.trusted_proxies == ()
    assert (settings.auth, settings.auth_off_anywhere, settings.bootstrap_key) == (True, False, None)
    assert settings.source_roots == (settings.data_dir / "files",)
    assert settings.timeout_seconds == {
        "audio": 3600, "video": 7200, "document": 900, "image": 300, "web": 600, "youtube": 3600, "*": 3600,
    }  # fmt: skip
    assert settings.queue_timeout_seconds == 86400
    assert settings.ack_seconds == 60
    backoff = settings.retry_backoff
    assert (backoff.base, backoff.factor, backoff.max, backoff.jitter) == (10, 2, 3600, 0.1)
    assert settings.max_body_bytes == 16777216
    assert (settings.continuation_task, settings.continuation_queue) == (None, "celery")
    assert settings.continuation_confirm_seconds is None
    assert settings.retention_days == 30
    assert settings.redis_prefix == "bridge"
    assert (settings.log_level, settings.log_format) == ("info", None)
    assert (settings.url, settings.key) == (None, None)


def test_an_empty_value_is_the_same_as_none():
    assert load(port="", retry_backoff="", auth="") == load()


def test_what_is_set_is_what_counts():
    settings = load(
        port="0",
        api_processes="3",
        trusted_proxies="10.0.0.1, 10.0.0.2",
        auth="OFF",
        auth_off_anywhere="1",
        source_roots="/a:/b c",
        timeout_seconds="audio=60,*=5",
        retry_backoff="base=0,jitter=0.5",
        retention_days="0.5",
        data_dir="relative",
        flower_url="https://flower.example.org/x",
    )
    assert (settings.port, settings.api_processes) == (0, 3)
    assert settings.trusted_proxies == ("10.0.0.1", "10.0.0.2")
    assert (settings.auth, settings.auth_off_anywhere) == (False, True)
    assert settings.flower_url == "https://flower.example.org/x"
    assert settings.source_roots == (Path("/a"), Path("/b c"))
    assert (settings.deadline_for("audio"), settings.deadline_for("video")) == (60, 5)
    backoff = settings.retry_backoff
    assert (backoff.base, backoff.factor, backoff.max, backoff.jitter) == (0, 2, 3600, 0.5)
    assert settings.retention_days == 0.5
    assert settings.data_dir == Path("relative").absolute()


def test_a_deadline_for_the_rest_is_always_there():
    assert load(timeout_seconds="audio=60").deadline_for("anything") == 3600


@pytest.mark.parametrize("spelling", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_every_spelling_of_postgresql_means_psycopg2(spelling):
    assert load(database_url=f"{spelling}://u:p@h/d?x=1").database_url == "postgresql+psycopg2://u:p@h/d?x=1"


@pytest.mark.parametrize(
    ("redis", "broker"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("rediss://h:6380/0", "rediss://h:6380/0?ssl_cert_reqs=required"),
        ("rediss://h:6380/0?ssl_cert_reqs=none", "rediss://h:6380/0?ssl_cert_reqs=none"),
        ("unix:///run/redis.sock?db=1", "redis+socket:///run/redis.sock?db=1"),
        ("sentinel://:pw@a:26379,b:26379/main", "sentinel://:pw@a:26379;sentinel://:pw@b:26379"),
    ],
)
def test_the_broker_is_made_from_the_redis_address_in_kombus_spelling(redis, broker):
    settings = load(redis_url=redis)
    assert settings.broker_url == settings.redis_url == redis
    assert for_celery(redis) == broker


def test_a_service_is_found_by_its_sentinels():
    assert service("sentinel://:p%40w@a:26379,b:26380/main") == ([("a", 26379), ("b", 26380)], "main", "p@w")


def test_a_broker_of_its_own_wins():
    assert load(redis_url="redis://a", broker_url="redis://b/1").broker_url == "redis://b/1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "mysql://h/d"),
        ("database_url", "postgresql+psycopg://h/d"),
        ("database_url", "h/d"),
        ("redis_url", "http://h"),
        ("redis_url", "h:6379"),
        ("redis_url", "sentinel://h:26379"),
        ("redis_url", "sentinel://h/main"),
        ("trusted_proxies", "10.0.0.1,proxy.example.org"),
        ("flower_url", "flower.example.org"),
        ("flower_url", "https://flower.example.org/<x>"),
        ("port", "http"),
        ("port", "65536"),
        ("port", "-1"),
        ("port", "80.5"),
        ("api_processes", "0"),
        ("api_processes", "257"),
        ("auth", "maybe"),
        ("auth_off_anywhere", "sure"),
        ("bootstrap_key", "x" * 31),
        ("timeout_seconds", "audio"),
        ("timeout_seconds", "audio=0"),
        ("timeout_seconds", "audio=x"),
        ("timeout_seconds", "audio=604801"),
        ("queue_timeout_seconds", "0"),
        ("ack_seconds", "0"),
        ("ack_seconds", "3601"),
        ("retry_backoff", "10"),
        ("retry_backoff", "base=-1"),
        ("retry_backoff", "bas=1"),
        ("retry_backoff", "factor=0.5"),
        ("max_body_bytes", "1023"),
        ("continuation_confirm_seconds", "0"),
        ("retention_days", "0"),
        ("redis_prefix", "a b"),
        ("redis_prefix", "a{b}"),
        ("log_level", "loud"),
        ("log_format", "xml"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_setting(name, value):
    with pytest.raises(SettingsError) as refused:
        load(**{name: value})
    assert f"BRIDGE_{name.upper()}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_an_extra_is_needed_for_names_the_extra(monkeypatch):
    monkeypatch.setattr(settings_module, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"BRIDGE_SOURCE_ALLOW: s3:// needs obstore: install jobbridge\[s3\]"):
        load(source_allow="s3://scans")
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(SettingsError, match=r"BRIDGE_STORE: s3://files/x needs obstore: install jobbridge\[s3\]"):
        Bucket("s3://files/x")


def test_a_bad_key_is_not_shown():
    with pytest.raises(SettingsError) as refused:
        load(bootstrap_key="a-secret-too-short")
    assert "a-secret" not in str(refused.value)


def test_a_port_that_kubernetes_injected_is_explained():
    with pytest.raises(SettingsError, match=r"BRIDGE_PORT.*enableServiceLinks"):
        load(port="tcp://10.0.0.1:8000")


def test_what_is_required_is_missed_by_name():
    with pytest.raises(SettingsError, match="BRIDGE_DATABASE_URL is not set"):
        load().require("database_url")
    assert load(redis_url="redis://h").require("redis_url") == "redis://h"


def test_an_unknown_name_is_warned_of_with_the_nearest_known_one():
    around = {"BRIDGE_ACK_SECOND": "5", "BRIDGE_PORT": "1", "OTHER": "x", "bridge_port": "1", "BRIDGE_QQQQQQQQQ": "x"}
    assert unknown_names(around) == [
        "BRIDGE_ACK_SECOND is not a known setting; did you mean BRIDGE_ACK_SECONDS?",
        "BRIDGE_QQQQQQQQQ is not a known setting",
    ]


def test_what_kubernetes_injects_for_a_service_named_bridge_is_left_alone():
    injected = {"BRIDGE_SERVICE_HOST": "10.0.0.1", "BRIDGE_SERVICE_PORT": "80", "BRIDGE_PORT_80_TCP_ADDR": "10.0.0.1"}
    assert unknown_names(injected) == []


def test_a_dotenv_file_lies_beneath_the_environment(tmp_path, monkeypatch):
    file = tmp_path / ".env"
    file.write_text("BRIDGE_PORT=1\nBRIDGE_HOST='::1'  # a comment\nSOMEBODY_ELSES=line\nEMPTY\n")
    monkeypatch.setenv("BRIDGE_PORT", "2")
    around = read_environment(file)
    assert (around["BRIDGE_HOST"], around["BRIDGE_PORT"], around["SOMEBODY_ELSES"]) == ("::1", "2", "line")
    assert "EMPTY" not in around
    assert load_settings(around).port == 2


def test_settings_do_not_change():
    with pytest.raises(Exception, match="frozen"):
        load().port = 5


CONTRACT = """
DATABASE_URL REDIS_URL BROKER_URL DATA_DIR HOST PORT API_PROCESSES TRUSTED_PROXIES AUTH AUTH_OFF_ANYWHERE BOOTSTRAP_KEY
SOURCE_ROOTS TIMEOUT_SECONDS QUEUE_TIMEOUT_SECONDS ACK_SECONDS RETRY_BACKOFF MAX_BODY_BYTES CONTINUATION_TASK
CONTINUATION_QUEUE CONTINUATION_CONFIRM_SECONDS RETENTION_DAYS REDIS_PREFIX LOG_LEVEL LOG_FORMAT URL KEY
"""


def test_the_known_names_are_those_of_the_contract():
    assert known_names() >= {f"BRIDGE_{name}" for name in CONTRACT.split()}


@pytest.mark.parametrize("command", ["api", "celery", "beat", "db current"])
def test_a_bad_value_stops_every_command_with_that_one_line(command):
    done = jobbridge(*command.split(), cwd=ROOT, BRIDGE_ACK_SECONDS="soon")
    assert done.returncode not in (0, -6, -11)
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert len(lines) == 1
    assert "BRIDGE_ACK_SECONDS" in lines[0]


def test_gunicorn_itself_is_stopped_by_the_same_line_and_warns_of_unknown_names(tmp_path):
    data = {"BRIDGE_DATA_DIR": str(tmp_path)}
    run: dict[str, Any] = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 60}
    bad = subprocess.run(command_lines.api(), env=environment(**data, BRIDGE_PORT="x"), **run)
    assert bad.returncode != 0
    assert len(bad.stderr.strip().splitlines()) == 1
    assert "BRIDGE_PORT" in bad.stderr
    missing = subprocess.run(command_lines.api(), env=environment(**data), **run)
    assert missing.returncode != 0
    assert missing.stderr.startswith("BRIDGE_DATABASE_URL is not set")
