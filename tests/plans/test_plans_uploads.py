"""Sweeps over uploads read what they change or look at, of 100 000 uploads and jobs, whatever the statistics say."""

import pytest
from sqlalchemy import text

from bridge.blobs import collect, join
from tests.plans.test_plans_stale import load
from tests.support.big_table import BigTable
from tests.support.core import KEY

pytestmark = [pytest.mark.scale, pytest.mark.timeout(300)]

MANY = 100_000
# A producer's and an attempt's in turns, each of several objects; one of ten is named.
UPLOADS = """
INSERT INTO uploads (id, tenant, key_id, job_id, attempt, length, received, segments, sha256, expires_at, kept)
SELECT gen_random_uuid(), 'default', :key, CASE WHEN n % 2 = 0 THEN id END, CASE WHEN n % 2 = 0 THEN attempt END,
  100, 100, 2, sha256(''), CASE WHEN n % 10 > 0 THEN now() + interval '1 day' END, true
FROM (SELECT id, attempt, row_number() OVER (ORDER BY id) AS n FROM remote_jobs) j
"""


@pytest.fixture(params=["analyzed", "not analyzed"])
def table(core, request):
    mine = BigTable(core.engine, core.runtime)
    for name in ("remote_jobs", "uploads"):
        mine.sql(f"ALTER TABLE {name} SET (autovacuum_enabled = false)")
    mine.sql("ANALYZE remote_jobs, uploads")
    load(mine, "processing", MANY, 0)
    mine.sql(UPLOADS, key=KEY.key_id)
    if request.param == "analyzed":
        mine.sql("ANALYZE remote_jobs, uploads")
    yield mine
    for name in ("remote_jobs", "uploads"):
        mine.sql(f"ALTER TABLE {name} RESET (autovacuum_enabled)")


def test_the_uploads_of_attempts_are_looked_at_a_page_at_a_time(table):
    mine = "SELECT job_id FROM uploads WHERE job_id IS NOT NULL AND expires_at IS NOT NULL ORDER BY job_id LIMIT 30"
    table.sql(f"UPDATE remote_jobs SET attempt = attempt + 1 WHERE id IN ({mine})")
    plans = table.plans(lambda: collect._let_go(table.runtime, 1000, 2))
    assert len(plans) == 2
    for plan in plans:
        assert plan.rows_read <= 1000 * 2 + 30
        assert not plan.scans & {"uploads", "remote_jobs"}
    assert table.sql("SELECT count(*) FROM uploads WHERE expires_at <= now()")[0].count == 30


def test_the_upload_that_is_joined_next_is_the_first_of_an_index(table):
    taken = []

    def take():
        with table.engine.begin() as connection:
            taken.append(connection.execute(join.TAKE, {"new": KEY.key_id, "place": "/x"}).one())

    [plan] = table.plans(take)
    assert plan.rows_read <= 10
    assert not plan.scans & {"uploads", "remote_jobs"}
    with table.engine.connect() as connection:
        asked = text("SELECT expires_at FROM uploads WHERE id = :id")
        assert connection.scalar(asked, {"id": taken[0].id}) is None
