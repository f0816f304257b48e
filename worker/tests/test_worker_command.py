"""The command as a real process: signals, exit statuses, arguments."""

from __future__ import annotations

import contextlib
import functools
import re
import signal
import sys
import types

import psutil
import pytest
from crowd import Crowd
from scripted_bridge import JOB_ID, claim, jobs
from waiting import until

from bridge_worker import cli, platforms
from bridge_worker.loading import BadHandler, Loaded, choose
from bridge_worker.options import check, parser

GIVEN = ["--content-types", "audio", "--handler", "conversions:held", "--lease", "10"]


@pytest.fixture
def command(command, tmp_path):
    return functools.partial(command, *GIVEN, "--option", f"dir={tmp_path}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_finishes_what_has_begun(bridge, command, tmp_path, number):
    bridge.script("poll", jobs(claim()))
    process, log = command("--concurrency", "2", "--wait", "60")
    bridge.next("heartbeat")  # the handler runs
    bridge.next("poll"), bridge.next("poll")  # the second is parked for the free slot
    bridge.script("poll", jobs(claim("late")))
    process.send_signal(number)
    assert bridge.next("release").headers["x-lease-token"] == "secret-token-late"
    assert process.poll() is None
    (tmp_path / "go").touch()
    assert bridge.next("result").body["content"] == f"{JOB_ID} 1"
    assert process.wait(60) == 0
    assert "the-key" not in log.read_text()
    assert "secret-token" not in log.read_text()


@pytest.mark.skipif(not platforms.LINUX, reason="elsewhere nobody adopts what a crash leaves behind")
def test_what_a_crash_leaves_behind_is_ended_whatever_it_did_to_hide(bridge, command, tmp_path):
    crowd = Crowd(bridge, {"a": b"orphan without an environment", "b": b"good"})
    process, _ = command("--handler", "conversions:by_file")
    crowd.wait(60)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int((tmp_path / "orphan").read_text())).wait(60)
    assert process.poll() is None


def test_second_signal_ends_at_once(bridge, command):
    bridge.script("poll", jobs(claim()))
    process, log = command()
    bridge.next("heartbeat")
    process.send_signal(signal.SIGTERM)
    until(lambda: "a second signal" in log.read_text(), "the first signal to be heard")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert bridge.calls_left("result") == 0


WRONG = [
    (["--handler", "conversions"], {}, "expected package.module:function"),
    (["--lease", "5"], {}, "--lease: 10 to 3600"),
    (["--wait", "61"], {}, "--wait: 0 to 60"),
    (["--concurrency", "0"], {}, "--concurrency: at least 1"),
    (["--content-types", "Audio"], {}, "content type 'Audio'"),
    ([], {"BRIDGE_URL": ""}, "--url or BRIDGE_URL is missing"),
    ([], {"BRIDGE_URL": "localhost:8000"}, "--url: expected http"),
    ([], {"BRIDGE_KEY": "two words"}, "--key: only visible"),
    (["--url", "http://bridge.example"], {}, "the key would go to bridge.example unencrypted; use https://"),
    (["--url", "http://192.0.2.1:8000"], {}, "the key would go to 192.0.2.1 unencrypted"),
    (["--url", "http://127.0.0.1.example"], {}, "unencrypted"),
    (["--url", "http://127.0.0.1@192.0.2.1"], {}, "the key would go to 192.0.2.1 unencrypted"),
    (["--url", "http://0.0.0.0:8000"], {}, "unencrypted"),
    (["--url", "http://x.localhost"], {}, "unencrypted"),
    (["--max-memory", "1M"], {}, "--max-memory: at least 64M"),
    (["--max-memory", "much"], {}, "--max-memory 'much': expected a size such as 500M"),
    (["--max-jobs-per-process", "-1"], {}, "--max-jobs-per-process: not below 0"),
    (["--max-download", "-1"], {}, "--max-download '-1': expected a size"),
    (["--health-port", "65536"], {}, "--health-port: 0 to 65535"),
    (["--url", "http://[::1"], {}, "--url: Invalid IPv6 URL"),
    (["--worker-id", ""], {}, "--worker-id: 1 to 255 characters"),
    (["--source-networks", "everywhere"], {}, "--source-networks: "),
    (["--drain-seconds", "-1"], {}, "--drain-seconds: not below 0"),
    (["--content-types", ",".join(f"t{n}" for n in range(33))], {}, "--content-types: at most 32"),
]


@pytest.mark.parametrize(("arguments", "environment", "text"), WRONG, ids=str)
def test_wrong_argument_is_status_2_and_one_line(bridge, monkeypatch, capsys, arguments, environment, text):
    """It is refused before anything is started or listened for: called here, not as a process."""
    for name, value in {"BRIDGE_URL": bridge.url, "BRIDGE_KEY": "the-key", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cli, "listen_for_signals", lambda: pytest.fail("it was not refused"))
    assert cli.main([*GIVEN, *arguments]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") == 1


def test_a_work_directory_that_cannot_be_made_is_status_2(bridge, monkeypatch, capsys):
    monkeypatch.setattr(cli, "listen_for_signals", lambda: None)
    assert cli.main([*GIVEN, "--url", bridge.url, "--work-dir", "/dev/null/work"]) == 2
    assert "--work-dir: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bridge_worker.nosuch:handle", "pip install 'bridge-worker[handlers]'"),
        ("json:JSONDecodeError", "TypeError: "),
        ("os:sep", "neither a function nor a class"),
        ("conversions:nothing", "module 'conversions' has no attribute 'nothing'"),
    ],
)
def test_what_is_no_handler_is_said_with_what_to_do(name, words):
    with pytest.raises(BadHandler, match=re.escape(words)):
        Loaded(name)


def test_a_function_without_a_signature_or_readable_annotations_is_taken(monkeypatch):
    assert Loaded("builtins:max").function is max

    def handle(job, path) -> NoSuchType: ...  # noqa: F821

    monkeypatch.setitem(sys.modules, "odd_handler", types.SimpleNamespace(handle=handle))
    assert Loaded("odd_handler:handle").function is handle


def test_traces_that_are_asked_for_and_not_installed_are_status_2(bridge, monkeypatch, capsys):
    monkeypatch.setattr(cli, "listen_for_signals", lambda: None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert cli.main([*GIVEN, "--url", bridge.url]) == 2
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in (said := capsys.readouterr().err)
    assert "is set: pip install 'bridge-worker[traces]', or unset it" in said


def test_a_process_with_a_wrong_handler_ends_with_status_2(bridge, command):
    process, log = command("--handler", "nowhere:handle")
    assert process.wait(60) == 2
    assert "No module named 'nowhere'" in log.read_text()
    assert log.read_text().count("\n") == 1
    assert bridge.calls_left("poll") == 0


@pytest.mark.parametrize(
    "url",
    ["https://bridge.example", "http://127.0.0.1:8000", "http://127.8.9.1", "http://[::1]:8000/x", "http://localhost"],
)
def test_a_key_goes_over_tls_or_stays_on_this_machine(url):
    check(parser().parse_args(["--url", url, "--key", "k", "--handler", "audio=m:f"]))


def test_a_key_goes_over_plain_http_where_somebody_says_so(monkeypatch):
    given = ["--url", "http://bridge.example", "--handler", "audio=m:f"]
    check(parser().parse_args([*given, "--key", "k", "--allow-http"]))
    check(parser().parse_args([*given, "--key", ""]))  # nothing to be read by others
    monkeypatch.setenv("BRIDGE_ALLOW_HTTP", "1")
    check(parser().parse_args([*given, "--key", "k"]))


def test_handlers_by_type():
    chosen = choose(["posixpath:join", "video=posixpath:split"], ["audio", "video"])
    assert chosen == {"audio": "posixpath:join", "video": "posixpath:split"}
    assert list(choose(["video=posixpath:split"], [])) == ["video"]
    with pytest.raises(BadHandler, match="no --handler for content type audio"):
        choose(["video=posixpath:split"], ["audio"])
    with pytest.raises(BadHandler, match="--content-types is missing"):
        choose(["posixpath:join"], [])
