"""A statement that commits itself asks the server nothing else, and every transaction is READ COMMITTED."""

from dataclasses import replace

import pytest
from sqlalchemy import text

from bridge.db import make_engine
from bridge.jobs.extend import extend
from bridge.jobs.listing import page
from bridge.jobs.read import find
from bridge.settings import load_settings
from tests.support.core import KEY
from tests.support.own_database import own_database

LAST = "SELECT query, state FROM pg_stat_activity WHERE pid = :pid"


def test_a_single_statement_is_the_only_thing_that_is_sent(core):
    engine = make_engine(load_settings({"BRIDGE_DATABASE_URL": core.engine.url.render_as_string(False)}), pool_size=1)
    single = engine.execution_options(isolation_level="AUTOCOMMIT")
    for n in range(3):
        with single.connect() as connection:
            pid = connection.execute(text(f"SELECT pg_backend_pid() + 0 * {n}")).scalar_one()
        assert core.sql(LAST, pid=pid) == [(f"SELECT pg_backend_pid() + 0 * {n}", "idle")]
        with engine.connect() as connection:
            connection.execute(text("SELECT set_config('bridge.in_transaction', 'yes', true)"))
            told = connection.scalar(text("SELECT current_setting('bridge.in_transaction')"))
            assert told == "yes", "a transaction again"
    engine.dispose()


@pytest.mark.parametrize(
    ("verb", "last"),
    [
        (lambda runtime, job: find(runtime, KEY.tenant, str(job.job_id)), "SELECT"),
        (lambda runtime, job: extend(runtime, KEY, str(job.job_id), token=job.lease_token), "WITH held"),
        (lambda runtime, job: page(runtime, KEY.tenant, {}, 10, None), "SELECT"),
    ],
)
def test_a_sign_of_life_and_a_look_are_no_transactions(core, verb, last):
    job = core.held(acknowledge=False)
    engine = make_engine(load_settings({"BRIDGE_DATABASE_URL": core.engine.url.render_as_string(False)}), pool_size=1)
    runtime = replace(core.runtime, engine=engine)
    with runtime.single.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
    verb(runtime, job)
    [(sent, state)] = core.sql(LAST, pid=pid)
    engine.dispose()
    assert (sent.strip().startswith(last), state) == (True, "idle"), sent


def test_what_the_database_says_of_isolation_does_not_count(servers):
    with own_database(servers.database_url) as url:
        engine = make_engine(load_settings({"BRIDGE_DATABASE_URL": url}), pool_size=1)
        name = url.rpartition("/")[2]
        with engine.begin() as connection:
            connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'"))
        engine.dispose()
        for options in ({}, {"isolation_level": "AUTOCOMMIT"}, {"isolation_level": "REPEATABLE READ"}, {}):
            with engine.execution_options(**options).connect() as connection:
                wanted = options.get("isolation_level", "READ COMMITTED").replace("AUTOCOMMIT", "READ COMMITTED")
                assert connection.scalar(text("SHOW transaction_isolation")) == wanted.lower()
        engine.dispose()
