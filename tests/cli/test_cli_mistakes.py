"""What the client commands say of a wrong address, key, setting or option: one line and an exit status."""

import re
import subprocess
import sys

import pytest

from bridge.embedded.ports import free_port
from tests.support.client_commands import document, lines, said
from tests.support.command import environment, jobbridge, refusal
from tests.support.scripted_answers import answer, scripted

UNKNOWN = "00000000-0000-0000-0000-000000000000"
SOME = [
    ("jobs", "list"),
    ("jobs", "submit", "/x", "--type", "web"),
    ("jobs", "cancel", "--type", "web", "--yes"),
    ("jobs", "watch", UNKNOWN),
    ("jobs", "watch"),
    ("workers",),
    ("continuations", "resend", UNKNOWN),
]


@pytest.mark.slow
def test_a_bridge_that_cannot_be_reached_is_one_line_and_status_3(run):
    url = f"http://127.0.0.1:{free_port()}"
    for arguments in SOME:
        line = refusal(run(*arguments, BRIDGE_URL=url), 3)
        assert line == f"jobbridge: {url} cannot be reached: Connection refused"
    assert "http://nosuch.invalid cannot be reached" in refusal(run("queues", "--url", "http://nosuch.invalid"), 3)


def test_somebody_else_at_the_address_is_not_taken_for_the_bridge_and_hears_no_key_of_a_netrc(run, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password other\n")
    for status, kind, body in [
        ("200 OK", "text/html", b"<h1>Welcome</h1>"),
        ("200 OK", "application/json", b'{"jobs": 1}'),
        ("200 OK", "application/json", b"[]"),
        ("200 OK", "application/json", b"{"),
        ("502 Bad Gateway", "text/html", b"<h1>Bad Gateway</h1>"),
        ("301 Moved Permanently", "text/html", b""),
    ]:
        with scripted(answer(status, body, "Location: /elsewhere", kind=kind)) as somebody:
            around = {"BRIDGE_URL": somebody.url, "BRIDGE_KEY": "the-key", "NETRC": str(tmp_path / "netrc")}
            line = refusal(run("jobs", "list", **around), 3)
        assert f"what answers at {somebody.url} is not the bridge ({status[:3]} " in line
        (head,) = somebody.heads
        assert re.findall(r"(?im)^authorization: (.*?)\r?$", head) == ["Bearer the-key"]


def test_a_key_that_does_not_count_or_may_not_is_status_1(run, bridge, client):
    assert "jb_nosuch" not in refusal(run("queues", BRIDGE_KEY="jb_nosuch"), 1)
    assert "(BRIDGE_KEY is not set)" in refusal(run("queues", BRIDGE_KEY=""), 1)
    reader = bridge.key(client.tenant, ("read",))
    assert "scope" in refusal(run("jobs", "cancel", UNKNOWN, BRIDGE_KEY=reader), 1)


@pytest.mark.parametrize(
    ("arguments", "changes", "words"),
    [
        (["queues"], {"BRIDGE_URL": ""}, "BRIDGE_URL is not set"),
        (["queues"], {"BRIDGE_URL": "bridge.example.org"}, "must look like https://bridge.example.org"),
        (["queues"], {"BRIDGE_URL": "https://me:secret@bridge.example.org"}, "must look like"),
        (["queues", "--url", "http://[::1"], {}, "must look like"),
        (["queues", "--url", "http://a:99999"], {}, "must look like"),
        (["queues"], {"BRIDGE_KEY": "two words"}, "BRIDGE_KEY contains an invalid character"),
        (["queues"], {"BRIDGE_KEY": "a\nX-Evil: 1"}, "BRIDGE_KEY contains an invalid character"),
        (["queues"], {"BRIDGE_KEY": "schlüssel"}, "BRIDGE_KEY contains an invalid character"),
        (["jobs", "show", "../statistics"], {}, "../statistics is not a job ID"),
        (["jobs", "cancel", ""], {}, "is not a job ID"),
        (["jobs", "list", "--created-after", "yesterday"], {}, "--created-after yesterday: write 2027-01-31"),
    ],
)
def test_wrong_settings_and_usage_are_one_line_and_status_2(run, arguments, changes, words):
    line = refusal(run(*arguments, **changes))
    assert words in line
    assert "secret" not in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["jobs", "list", "--status", "nosuch"],
        ["jobs", "list", "--limit", "501"],
        ["jobs", "submit"],
        ["jobs", "submit", "x"],
        ["jobs", "list", "--key", "jb_x"],
        ["workers", "nosuch"],
        ["workers", "pause", "w"],
        ["continuations", "resend", "--state", "sent"],
    ],
)
def test_usage_that_makes_no_sense_is_status_2(run, arguments):
    assert lines(run(*arguments), 2)


def test_what_the_bridge_says_about_filters_is_told_field_by_field(run):
    done = run("jobs", "list", "--type", "A B", "--worker-id", "w" * 256)
    assert lines(done, 1) == [
        "jobbridge: The request was refused.",
        "content_type: Not a content type: use a-z 0-9 . _ and -.",
        "worker_id: Length must be between 1 and 255.",
    ]


def test_the_option_wins_over_the_setting_and_python_m_bridge_is_the_same(client, settings, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "queues", "--url", f"{client.url}/", "--json"],
        cwd=tmp_path,
        env=environment(**{**settings, "BRIDGE_URL": "http://127.0.0.1:1"}),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert document(done)["by_status"] == {}


def test_a_terminal_that_knows_ascii_only_gets_question_marks(client, settings, tmp_path):
    client.create(ingestion_task_id="Bericht für Zürich")
    done = jobbridge("jobs", "list", cwd=tmp_path, **settings, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert "Bericht f?r Z?rich" in said(done)


def test_the_help_tells_the_exit_status(run):
    for group in ("jobs", "workers", "continuations", "queues"):
        text = " ".join(said(run(group, "--help")).split())
        assert "0 done; 1 the bridge refused" in text
        assert "3 the bridge cannot be reached" in text
    assert "4 failed; 5 timeout; 6 cancelled" in " ".join(said(run("jobs", "watch", "--help")).split())
