"""What the command says of code that is not its own, of servers that are unfit, and of a defect; where secrets go."""

import importlib.util
import sys

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from bridge import cli
from bridge.cli.errors import Refused, refusal_of
from bridge.cli.local import checkout, command_lines
from bridge.cli.local.database import refuse_unfit
from bridge.cli.secret import shown_or_kept
from bridge.embedded import EmbeddedError


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (Refused("no"), "no"),
        (EmbeddedError("PostgreSQL ended"), "PostgreSQL ended"),
        (OperationalError("SELECT 1", {}, Exception("")), "PostgreSQL cannot be used: it gave no reason"),
        (IntegrityError("SELECT 1", {}, Exception("a row is there already")), None),
        (ZeroDivisionError("division by zero"), None),
    ],
)
def test_what_a_person_can_act_on_is_a_line_and_a_defect_is_none(problem, line):
    refused = refusal_of(problem)
    assert (None if refused is None else str(refused)) == line


def test_a_defect_keeps_its_trace(monkeypatch):
    def broken() -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("bridge.cli.app.app", broken)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_anothers_models_are_not_taken_for_ours(tmp_path, monkeypatch):
    place = tmp_path / "models" / "__init__.py"
    place.parent.mkdir()
    place.touch()
    spec = importlib.util.spec_from_file_location("models", place)
    assert spec is not None
    monkeypatch.setitem(sys.modules, "models", importlib.util.module_from_spec(spec))
    with pytest.raises(
        checkout.CheckoutError, match=r"is .*__init__\.py, not the one in .*: use an environment of its"
    ):
        checkout.check()


@pytest.mark.parametrize("whole", [True, False])
def test_an_installed_file_that_another_package_has_replaced_is_named(tmp_path, monkeypatch, whole):
    installed = tmp_path / "jobbridge-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: jobbridge\nVersion: 1\n")
    nothing = "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
    (installed / "RECORD").write_text(f"tasks.py,{nothing},0\njobbridge-1.dist-info/RECORD,,\n")
    (tmp_path / "tasks.py").write_text("" if whole else "raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    if whole:
        checkout.check()
        return
    with pytest.raises(checkout.CheckoutError, match=r"tasks\.py is not what jobbridge has installed; another package"):
        checkout.check()


def test_a_server_that_is_less_than_good_is_told_and_does_not_stop_the_start(place):
    place.redis.config_set("maxmemory-policy", "allkeys-lru")
    (line,) = refuse_unfit(None, place.settings["BRIDGE_REDIS_URL"])
    assert "maxmemory-policy" in line


def test_a_terminal_shows_a_secret_and_other_output_gets_the_name_of_a_private_file(tmp_path, monkeypatch):
    place = tmp_path / "data" / "secrets" / "login"
    assert shown_or_kept("a-secret", tmp_path / "data", "login") == str(place)
    assert place.read_text() == "a-secret\n"
    assert place.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert shown_or_kept("another", tmp_path / "data", "login") == "another"
    assert place.read_text() == "a-secret\n"


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ([], "bridge@%h"),
        (["-Q", "bridge.webhooks"], "bridge.webhooks@%h"),
        (["-Qbridge,bridge.webhooks"], "bridge+bridge.webhooks@%h"),
        (["--concurrency=2", "--queues=bridge"], "bridge@%h"),
        (["-Q", "bridge", "-n", "mine@%h"], "mine@%h"),
    ],
)
def test_celerys_workers_of_different_queues_have_different_names(extra, named):
    line = command_lines.celery_worker(extra)
    assert line[line.index("-n") + 1] == named
    assert line.count("-Q") == (1 if "-Q" in extra or not extra else 0)  # without a choice: all of the bridge's
