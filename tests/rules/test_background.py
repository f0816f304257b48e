"""Background work of a process outlives whatever becomes of one run, and says what went wrong once."""

import gevent
import redis as redis_py
from gevent.event import Event
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from bridge.background import Supervised, every


class Unforeseen(Exception):
    """An error that nobody thought of."""


def test_work_that_raises_whatever_is_done_again():
    runs, third = [], Event()

    def work():
        runs.append(1)
        if len(runs) == 3:
            third.set()
        raise Unforeseen

    with capture_logs() as logs:
        greenlet = every(0.001, "try", work)
        assert third.wait(30)
        gevent.kill(greenlet)
    assert [line["event"] for line in logs] == ["background_work_failed"]


def test_an_outage_is_told_once_for_each_kind_of_error_and_once_more_when_it_is_over():
    away, failed = redis_py.ConnectionError("host-name"), OperationalError("SELECT secret", {}, Exception())
    errors = iter([away, away, away, Unforeseen(), away, None, None, failed])

    def work():
        if (error := next(errors)) is not None:
            raise error

    supervised = Supervised("try")
    with capture_logs() as logs:
        for _ in range(8):
            supervised(work)
    assert [(line["event"], line.get("error")) for line in logs] == [
        ("background_work_failed", "ConnectionError"),
        ("background_work_failed", "Unforeseen"),
        ("background_work_recovered", None),
        ("background_work_failed", "OperationalError"),
    ]
    assert {line["work"] for line in logs} == {"try"}
    assert isinstance(logs[1]["exc_info"], Unforeseen), "what nobody thought of has its trace"
    assert "host-name" not in str(logs[0])
    assert "secret" not in str(logs[3])


def test_a_failure_of_postgresql_is_told_with_its_code(runtime):
    def work():
        with runtime.engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1/0")

    with capture_logs() as logs:
        Supervised("try")(work)
    assert logs[0]["sqlstate"] == "22012"
