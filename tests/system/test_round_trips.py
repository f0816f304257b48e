"""A statement that commits itself asks the server nothing else, even if it is cut; the others are READ COMMITTED."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from sqlalchemy import text

from bridge.cli.local.checkout import ROOT
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


# In a process of its own, as the API's are: under gevent the driver asks the server there.
SCRIPT = """
from gevent import monkey
monkey.patch_all()
import os
from sqlalchemy import text
from bridge.db import make_cooperative, make_engine
from bridge.settings import load_settings

make_cooperative()
settings = load_settings({"BRIDGE_DATABASE_URL": os.environ["DATABASE"]})
engine, other = make_engine(settings, pool_size=2), make_engine(settings, pool_size=1)
single = engine.execution_options(isolation_level="AUTOCOMMIT")
for _ in range(4):
    with single.connect() as connection, other.connect() as killer:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        killer.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
held = [single.connect() for _ in range(2)]
print([one.execute(text("SELECT 1")).scalar_one() for one in held])
"""


def test_a_connection_that_is_cut_after_its_statement_costs_neither_an_error_nor_a_place(core):
    database = core.engine.url.render_as_string(hide_password=False)
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env={**os.environ, "DATABASE": database},
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.stdout == "[1, 1]\n", done.stderr[-2000:]
