"""A create over Celery is acknowledged when it is decided, and not before; whatever hangs, holds up no other task."""

import errno
import os
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Reject
from sqlalchemy.exc import DataError, OperationalError, ProgrammingError

from bridge import names
from bridge.admission.keys import create_key
from bridge.cli.local import command_lines
from bridge.errors import Invalid, Unavailable
from bridge.jobs.source_files import check_source, open_source
from tests.celery.test_celery_intake import count
from tests.celery.test_upkeep import ran
from tests.support.client import ok
from tests.support.waiting import LATEST, wait_until


@pytest.fixture(scope="module")
def hanging(start_bridge):
    """Return a bridge whose Celery worker reads a mount that hangs while the file `hanging` exists."""
    bridge = start_bridge(celery=False)
    arguments = [
        "tests.support.hanging" if part == "tasks.app" else part for part in command_lines.celery_worker(["-c", "2"])
    ]
    environment = command_lines.celery_environment(bridge.stack.environment)
    bridge.stack.family.start("celery", arguments, environment)
    return bridge


@pytest.fixture
def mount(hanging):
    """Yield the file that says so."""
    place = hanging.files / "hanging"
    place.touch()
    yield place
    place.unlink(missing_ok=True)


def send(bridge, client, name, **options):
    fields = {**client.fields(source_file_path=client.source(name=name)), "tenant": client.tenant}
    return bridge.celery.send_task(names.ENQUEUE, kwargs=fields, queue=names.QUEUE, **options)


@pytest.mark.slow
def test_creates_before_a_mount_that_hangs_wait_for_it_and_nothing_else_does(hanging, mount):
    client = hanging.client()
    slow = [send(hanging, client, f"slow-{n}") for n in range(8)]
    wait_until(lambda: all(one.state == "RETRY" for one in slow), "all to be put off")
    before = wait_until(lambda: ran(hanging, names.EXPIRE), "a sweep")
    wait_until(lambda: ran(hanging, names.EXPIRE) > before, "the next one")
    healthy = send(hanging, client, "healthy")
    assert count(hanging, client) <= 1
    mount.unlink()
    ids = {one.get(timeout=LATEST)["job_id"] for one in [*slow, healthy]}
    assert len(ids) == 9 == count(hanging, client)


@pytest.mark.slow
def test_one_that_is_killed_at_the_time_limit_goes_back_to_its_queue(hanging, mount):
    client = hanging.client()
    # Its own message's limits: those before the mount that hangs would reach them on a busy machine, too.
    stuck = send(hanging, client, "stuck", soft_time_limit=1, time_limit=2)
    # A process that is stopped hears no soft limit; the hard one kills it, and that is told as a failure.
    wait_until(lambda: stuck.state == "FAILURE", "the time limit")
    mount.unlink()
    wait_until(lambda: count(hanging, client) == 1, "its job")
    ok(client.get("", params={"limit": 1}))


def test_where_nothing_can_be_sent_for_later_the_message_goes_back():
    from tasks.intake import _later

    def retry(**options):
        assert options["countdown"] == 8
        raise Reject("OOM command not allowed", requeue=False)

    task: Any = SimpleNamespace(request=SimpleNamespace(retries=3), retry=retry)
    put_off = _later(task, ValueError("undecided"))
    assert isinstance(put_off, Reject)
    assert put_off.requeue  # type: ignore[attr-defined]


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENOTCONN])
def test_an_error_that_says_nothing_about_the_file_passes(tmp_path, monkeypatch, code):
    place = tmp_path / "file"
    place.write_bytes(b"x")
    check_source(str(place), [tmp_path])

    def ill(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", ill)
    for look in (check_source, open_source):
        with pytest.raises(Unavailable, match=errno.errorcode[code]):
            look(str(place), [tmp_path])


def test_a_tenant_beyond_those_that_are_remembered_is_looked_up_each_time(runtime, monkeypatch):
    from tasks import intake

    monkeypatch.setattr(intake, "runtime", lambda: runtime)
    monkeypatch.setattr(intake, "_tenants", {names.DEFAULT_TENANT})
    monkeypatch.setattr(intake, "MOST_TENANTS", 2)
    with runtime.engine.begin() as connection:
        for tenant in ("t1", "t2"):
            create_key(connection, "test", ["work"], tenant)
    for tenant in ("t1", "t2", "t2"):
        intake._refuse_unknown(tenant)
    assert intake._tenants == {names.DEFAULT_TENANT, "t1"}
    with pytest.raises(Invalid, match="never had a key"):
        intake._refuse_unknown("t3")


@pytest.mark.parametrize(("sqlstate", "becomes"), [("22023", "Refused"), ("54000", "Refused"), ("42703", "DataError")])
def test_what_postgresql_refuses_is_refused_and_a_mistake_of_ours_is_none(runtime, monkeypatch, sqlstate, becomes):
    from tasks import intake

    def refuses(*_, **__):
        raise DataError("INSERT", {}, SimpleNamespace(pgcode=sqlstate))  # type: ignore[arg-type]

    monkeypatch.setattr(intake, "runtime", lambda: runtime)
    monkeypatch.setattr(intake, "enqueue", refuses)
    fields = {"source_file_path": "/x", "content_type": "audio", "ingestion_task_id": "x", "idempotency_key": "k"}
    with pytest.raises(Exception, match=r"refused|INSERT") as told:
        intake.enqueue_remote_job(**fields)
    assert type(told.value).__name__ == becomes


def test_a_sweep_that_is_wrong_is_no_sweep_without_a_server():
    from tasks.sweep import left_to_the_next

    with left_to_the_next("repair"):
        raise OperationalError("SELECT", {}, SimpleNamespace(pgcode="57P01"))  # type: ignore[arg-type]
    with pytest.raises(ProgrammingError), left_to_the_next("repair"):
        raise ProgrammingError("SELECT", {}, SimpleNamespace(pgcode="42703"))
