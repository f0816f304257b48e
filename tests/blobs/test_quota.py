"""What uploads take of the quotas: those that no job names of their key's, those that jobs name of their tenant's."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from bridge.blobs import append_to_upload, collect, uploads
from bridge.errors import TooMany
from bridge.jobs.enqueue import enqueue
from bridge.jobs.fields import CreateFields
from tests.support.core import KEY, OTHER_KEY, Core

MIB = 1024 * 1024
KIB = 1024
LIMITS = f"upload_bytes={3 * MIB},tenant_upload_bytes={4 * MIB},tenant_kept_bytes={MIB + 40 * KIB}"


@pytest.fixture
def small(make_runtime):
    """Return a core with room for three uploads per key, and per tenant four, and 40 KiB of files that jobs name."""
    return Core(make_runtime(limits=LIMITS))


def announced(core, length=1, key=KEY, **of_attempt):
    return uploads.announce(core.runtime, key, uploads.Announced(length, **of_attempt))


def whole(core, length=1, key=KEY, **of_attempt):
    """Create a complete upload and return its ID."""
    upload = announced(core, length, key, **of_attempt)
    return str(append_to_upload.append(core.runtime, upload, iter([b"x" * length])).id)


def job_of(core, upload):
    """Create a job whose source is this upload and return its ID."""
    said = {"source_upload": upload, "content_type": "audio", "ingestion_task_id": "x"}
    return str(enqueue(core.runtime, core.tenant, CreateFields().load(said)).job_id)


def source(core, length=1, key=KEY):
    """Return a new job with a new upload; its ID."""
    return job_of(core, whole(core, length, key))


def accounts(core):
    rows = core.sql("SELECT tenant, key_id, bytes / 1048576 AS mib, kept / 1024 AS kib FROM upload_usage")
    return {(row.tenant, row.key_id.int): (int(row.mib), int(row.kib)) for row in rows}


def test_what_jobs_name_fills_no_quota_of_its_key(small):
    for _ in range(9):
        source(small)
    for _ in range(3):
        announced(small)
    assert accounts(small) == {("default", 1): (3, 36)}
    with pytest.raises(TooMany, match="this key take"):
        announced(small)


def test_nor_does_what_results_name(small):
    for _ in range(4):
        job = small.held()
        of = {"job_id": job.job_id, "attempt": job.attempt}
        artifacts = [{"name": name, "upload": whole(small, **of)} for name in ("a", "b")]
        small.result(job, artifacts=artifacts)
    assert [row.named for row in small.sql("SELECT count(*) AS named FROM job_files")] == [8]


def test_what_one_key_has_named_leaves_its_tenant_room_for_another(small):
    for _ in range(3):
        source(small)
    announced(small, key=OTHER_KEY)
    announced(small, key=OTHER_KEY)
    assert accounts(small) == {("default", 1): (0, 12), ("default", 2): (2, 0)}


def test_what_jobs_name_counts_at_its_size_until_the_last_of_them_is_gone(small):
    upload = whole(small, 30 * KIB)
    first, second = (job_of(small, upload) for _ in range(2))
    for _ in range(2):
        source(small)
    announced(small, 2 * KIB)
    source(small)
    announced(small)
    with pytest.raises(TooMany, match="jobs of this key's tenant name"):
        announced(small)
    announced(small, key=KEY._replace(tenant="elsewhere"))
    small.sql("DELETE FROM remote_jobs WHERE id = :id", id=first)
    collect.collect(small.runtime)
    with pytest.raises(TooMany):
        announced(small)
    small.sql("DELETE FROM remote_jobs WHERE id = :id", id=second)
    assert accounts(small)["default", 1] == (2, 42), "as long as it lies there"
    collect.collect(small.runtime)
    announced(small)
    assert accounts(small) == {("default", 1): (3, 12), ("elsewhere", 1): (1, 0)}


def test_what_is_named_again_after_its_job_went_is_still_the_tenants(small):
    upload = whole(small)
    job = job_of(small, upload)
    for _ in range(3):
        announced(small)
    small.sql("DELETE FROM remote_jobs WHERE id = :id", id=job)
    again = job_of(small, upload)
    collect.collect(small.runtime)
    assert accounts(small) == {("default", 1): (3, 4)}
    small.sql("DELETE FROM remote_jobs WHERE id = :id", id=again)
    collect.collect(small.runtime)
    assert accounts(small) == {("default", 1): (3, 0)}


def test_a_sweep_keeps_the_accounts_of_all_tenants_in_order(small):
    for key in (KEY, OTHER_KEY, OTHER_KEY):
        source(small, key=key)
    small.tenant = "elsewhere"
    source(small, key=KEY._replace(tenant="elsewhere"))
    announced(small)
    collect.collect(small.runtime)
    assert accounts(small) == {("default", 1): (1, 4), ("default", 2): (0, 8), ("elsewhere", 1): (0, 4)}


def test_more_than_one_request_moves_is_moved_by_the_next_ones(small, monkeypatch):
    monkeypatch.setattr(uploads, "MOVE_BATCH", 1)
    monkeypatch.setattr(uploads, "MOVE_BATCHES", 1)
    for key in (OTHER_KEY, KEY, KEY, KEY):
        source(small, key=key)
    refused = 0
    while refused < 9:
        try:
            announced(small)
            break
        except TooMany:
            refused += 1
    assert refused < 4


def test_accounts_are_right_after_many_have_announced_named_and_deleted_at_once(make_runtime):
    core = Core(make_runtime(limits=f"upload_bytes={4 * MIB},tenant_upload_bytes={7 * MIB}"))
    done = []

    def live(number):
        key = (KEY, OTHER_KEY)[number % 2]
        try:
            job = source(core, 5 * KIB, key)
            uploads.give_up(core.runtime, key, str(announced(core, key=key).id))
        except TooMany:  # others have announced what they name in a moment
            return
        if number % 3 == 0:
            core.sql("DELETE FROM remote_jobs WHERE id = :id", id=job)
            collect.collect(core.runtime)
        done.append(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(live, range(60)))
    assert len(done) > 2 * 4, "more than there is room for at a time"
    counted = core.sql(
        "SELECT key_id, sum(CASE WHEN kept THEN 0 ELSE greatest(length, 1048576) END) AS bytes,"
        " sum(CASE WHEN kept THEN greatest(length, 4096) ELSE 0 END) AS kept"
        " FROM uploads GROUP BY key_id ORDER BY key_id"
    )
    assert core.sql("SELECT key_id, bytes, kept FROM upload_usage ORDER BY key_id") == counted
    assert sum(row.kept for row in counted) > 0


def test_what_has_expired_makes_room_before_a_sweep_comes(small):
    for _ in range(3):
        announced(small)
    small.sql("UPDATE uploads SET expires_at = now() - interval '1 s'")
    for _ in range(3):
        announced(small)
    with pytest.raises(TooMany, match="this key take"):
        announced(small)
