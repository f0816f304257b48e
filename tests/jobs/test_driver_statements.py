"""What the driver runs by itself ends as it does with SQLAlchemy: rows, errors, and what becomes of the connection."""

import os
import re
import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DataError, OperationalError

from bridge.cli.local.checkout import ROOT
from bridge.db import is_of_a_row, is_unavailable, make_engine
from bridge.driver_statements import DriverStatements
from bridge.settings import load_settings

PID = text("SELECT pg_backend_pid() AS pid, CAST(:n AS int) AS n, '5%' AS share")
CUT = text("SELECT pg_terminate_backend(pg_backend_pid(), CAST(:n AS bigint))")


@pytest.fixture
def engine(core):
    engine = make_engine(load_settings({"BRIDGE_DATABASE_URL": core.engine.url.render_as_string(False)}), pool_size=1)
    yield engine
    engine.dispose()


@pytest.fixture
def driver(engine):
    return DriverStatements(engine)


def test_a_statement_is_the_only_thing_that_is_sent_and_transactions_are_again(engine, driver, core):
    for n in range(3):
        (row,) = driver.execute(PID, {"n": n})
        assert (row.n, row.share) == (n, "5%")
        seen = core.sql(f"SELECT query, state FROM pg_stat_activity WHERE pid = {row.pid}")
        assert [one.state for one in seen] == ["idle"]
        assert re.fullmatch(rf"SET LOCAL .*; EXECUTE unnamed_\w+\(CAST\({n} AS int\)\)", seen[0].query)
        with engine.connect() as connection:
            connection.execute(text("SELECT set_config('bridge.in_transaction', 'yes', true)"))
            assert connection.scalar(text("SELECT current_setting('bridge.in_transaction')")) == "yes"


def test_what_a_row_is_to_blame_for_costs_no_connection_and_tells_no_row(driver):
    (before,) = driver.execute(PID, {"n": 1})
    with pytest.raises(DataError) as refused:
        driver.execute(text("SELECT CAST(CAST(:secret AS text) AS int)"), {"secret": "document"})
    assert is_of_a_row(refused.value)
    assert refused.value.connection_invalidated is False
    with pytest.raises(DataError) as divided:
        driver.execute(text("SELECT 1 / CAST(:n AS int)"), {"n": 0})
    assert str(divided.value.orig) == "division by zero"
    with pytest.raises(ValueError, match="NUL") as unwritten:
        driver.execute(text("SELECT CAST(:n AS text)"), {"n": "\0"})
    assert is_of_a_row(unwritten.value)
    with pytest.raises(KeyError):
        driver.execute(PID, {})
    assert driver.execute(PID, {"n": 1}) == [before]


def test_a_lost_connection_is_replaced_with_all_that_are_as_old(driver, engine):
    (before,) = driver.execute(PID, {"n": 1})
    with pytest.raises(OperationalError) as lost:
        driver.execute(CUT, {"n": 5000})
    assert is_unavailable(lost.value)
    assert not is_of_a_row(lost.value)
    assert lost.value.connection_invalidated
    (after,) = driver.execute(PID, {"n": 1})
    assert after.pid != before.pid
    with engine.connect() as connection:
        assert connection.connection.dbapi_connection.autocommit is False


def test_a_server_that_is_not_there_is_told_as_by_sqlalchemy(core):
    nowhere = core.engine.url.set(host="127.0.0.1", port=1).render_as_string(False)
    with pytest.raises(OperationalError) as refused:
        DriverStatements(make_engine(load_settings({"BRIDGE_DATABASE_URL": nowhere}))).execute(PID, {"n": 1})
    assert is_unavailable(refused.value)


@pytest.mark.parametrize(
    "meanwhile",
    ["DEALLOCATE ALL", "ALTER TABLE kept ALTER n TYPE bigint"],
    ids=["the connection was another one's", "a column has another type"],
)
def test_what_is_not_as_it_was_prepared_is_sent_as_text(driver, engine, meanwhile):
    kept = text("INSERT INTO kept (n, why) SELECT n, :why FROM unnest(CAST(:given AS int[])) AS n RETURNING n, why")
    with engine.begin() as connection:
        connection.execute(text("CREATE TEMP TABLE kept (n int, why text)"))
    rows = driver.execute(kept, {"given": [1, 2], "why": "50%"})
    assert [(row.n, row.why) for row in rows] == [(1, "50%"), (2, "50%")]
    with engine.begin() as connection:
        connection.execute(text(meanwhile))
    for n in (3, 4):
        assert [(row.n, row.why) for row in driver.execute(kept, {"given": [n], "why": None})] == [(n, None)]
    with engine.connect() as connection:
        assert connection.scalars(text("SELECT n FROM kept ORDER BY n")).all() == [1, 2, 3, 4]


def test_a_statement_that_others_have_prepared_on_the_connection_is_sent_as_text(driver, engine):
    (before,) = driver.execute(PID, {"n": 1})
    others = DriverStatements(engine)
    with engine.connect() as connection:
        connection.connection.info.clear()
    assert others.execute(PID, {"n": 1}) == [before]


# In a process of its own, as the API's are: under gevent a statement can be left while it runs.
LEFT = """
from gevent import monkey
monkey.patch_all()
import os
import gevent
from sqlalchemy import text
from bridge.db import make_cooperative, make_engine
from bridge.driver_statements import DriverStatements
from bridge.settings import load_settings

make_cooperative()
engine = make_engine(load_settings({"BRIDGE_DATABASE_URL": os.environ["DATABASE"]}), pool_size=1)
driver = DriverStatements(engine)
for _ in range(3):
    try:
        with gevent.Timeout(0.2):
            driver.execute(text("SELECT pg_sleep(CAST(:n AS int))"), {"n": 30})
    except gevent.Timeout:
        print("left", end=" ")
    print(driver.execute(text("SELECT CAST(:n AS int) AS n"), {"n": 7})[0].n, end=" ")
"""


def test_a_statement_that_is_left_takes_its_connection_with_it(core):
    database = core.engine.url.render_as_string(hide_password=False)
    done = subprocess.run([sys.executable, "-c", LEFT], cwd=ROOT, env={**os.environ, "DATABASE": database},
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.stdout == "left 7 " * 3, done.stderr[-2000:]


def test_what_was_written_is_told_though_its_connection_breaks_on_its_way_back(driver, engine, monkeypatch):
    connections: list[Any] = []
    named = driver._name

    def break_it(*given):
        connections[-1].close()
        return named(*given)

    event.listen(engine, "checkout", lambda connection, *_: connections.append(connection))
    monkeypatch.setattr(driver, "_name", break_it)
    (row,) = driver.execute(PID, {"n": 1})
    (after,) = driver.execute(PID, {"n": 2})
    assert (row.n, after.n) == (1, 2)
    assert row.pid != after.pid
