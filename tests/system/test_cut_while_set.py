"""A connection that is cut before its isolation level is set back: what was done stands, the pool keeps its places."""

import os
import subprocess
import sys

from bridge.cli.local.checkout import ROOT

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
