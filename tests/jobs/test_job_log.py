"""A job's log and its checkpoint: who may write, what is kept, and who is given it."""

import pytest

from bridge.errors import Conflict, Invalid, NotFound
from bridge.jobs import job_log
from tests.jobs.test_waits import lapsed
from tests.support.client import ok, refused
from tests.support.core import KEY, OTHER_KEY
from tests.support.racing import at_once, meanwhile


def append(core, job, *lines, key=KEY, token=None):
    return job_log.append(core.runtime, core.of(key), str(job.job_id), lines, token or job.lease_token)


def save(core, job, checkpoint, *, key=KEY, token=None):
    return job_log.save(core.runtime, core.of(key), str(job.job_id), checkpoint, token or job.lease_token)


def log_of(core, job, after=0):
    return [(piece.attempt, piece.lines) for piece in job_log.pieces(core.runtime, core.tenant, str(job.job_id), after)]


def test_lines_are_kept_in_their_order_and_read_from_where_one_was(core):
    job = core.held(acknowledge=False)
    alive = append(core, job, "first", "second")
    assert (alive.status, core.row(job.job_id).acknowledged_at is not None) == ("processing", True)
    append(core, job, "third\x1b[31m\nand\x00 more\tü")
    assert log_of(core, job) == [(1, "first\nsecond\n"), (1, "third [31m and  more\tü\n")]
    assert log_of(core, job, after=1) == [(1, "third [31m and  more\tü\n")]
    assert log_of(core, job, after=2) == []
    with pytest.raises(NotFound):
        job_log.pieces(core.runtime, "elsewhere", str(job.job_id))


def test_requests_of_one_moment_get_numbers_of_their_own(core):
    job = core.held()
    at_once(*(lambda n=n: append(core, job, f"line {n}") for n in range(6)))
    found = job_log.pieces(core.runtime, core.tenant, str(job.job_id))
    assert [piece.n for piece in found] == [1, 2, 3, 4, 5, 6]


def test_only_the_holder_of_the_latest_attempt_writes(core):
    job = core.held()
    save(core, job, "mine")

    def refused_both(job, line, **said):
        for write in (append, save):
            with pytest.raises(Conflict):
                write(core, job, line, **said)

    refused_both(job, "foreign", key=OTHER_KEY)
    refused_both(job, "guessed", token="guessed")
    core.release(job)
    again = core.claim(str(job.job_id), "w2")
    refused_both(job, "late")
    core.result(again)
    refused_both(again, "after its end")
    assert log_of(core, job) == []
    assert [row.checkpoint for row in core.sql("SELECT checkpoint FROM job_checkpoints")] == ["mine"]


@pytest.mark.parametrize("write", [append, save])
def test_an_attempt_that_ends_meanwhile_writes_nothing(core, write):
    job = core.held()
    with core.locked(job.job_id, lambda: write(core, job, "too late")) as (connection, done):
        lapsed(connection, job)
    assert done.result(60) == "lease_lost"
    assert core.sql("SELECT FROM job_log_pieces") == core.sql("SELECT FROM job_checkpoints") == []


@pytest.mark.parametrize("write", [append, save])
def test_an_attempt_that_ends_just_before_the_write_writes_nothing(core, write):
    job = core.held()
    with meanwhile(core.engine, "FOR NO KEY UPDATE", lambda: core.release(job)), pytest.raises(Conflict):
        write(core, job, "too late")
    assert core.sql("SELECT FROM job_log_pieces") == core.sql("SELECT FROM job_checkpoints") == []


def test_who_holds_a_cancelled_job_is_told_so(core):
    job = core.held()
    core.cancel(job.job_id)
    assert append(core, job, "x").cancel_requested
    assert save(core, job, "x").cancel_requested
    assert log_of(core, job) == []


def test_the_log_keeps_the_newest_within_its_bounds(core):
    job = core.held()
    with pytest.raises(Invalid):
        append(core, job, "ü" * (job_log.PIECE_BYTES // 2))
    with pytest.raises(Invalid):
        append(core, job, "x" * job_log.PIECE_BYTES)
    largest = "x" * (job_log.PIECE_BYTES - 1)
    for _ in range(18):
        append(core, job, largest)
    [row] = core.sql("SELECT sum(bytes) AS bytes, min(n) AS first, max(n) AS last FROM job_log_pieces")
    assert (row.bytes, row.first, row.last) == (job_log.LOG_BYTES, 3, 18)
    core.sql(
        "INSERT INTO job_log_pieces SELECT :id, n, 1, now(), 'x', 1 FROM generate_series(19, 1100) AS n",
        id=str(job.job_id),
    )
    append(core, job, "last")
    [row] = core.sql("SELECT count(*) AS pieces, max(n) AS last FROM job_log_pieces")
    assert (row.pieces, row.last) == (job_log.MOST_PIECES, 1101)
    newest = job_log.pieces(core.runtime, core.tenant, str(job.job_id))
    assert (len(newest), newest[-1].lines) == (job_log.SHOWN_PIECES, "last\n")


def test_the_next_attempt_is_given_the_last_checkpoint_however_the_first_ended(core):
    job = core.held()
    assert job.checkpoint_bytes is None
    save(core, job, "first")
    save(core, job, "second ü")
    core.expire_after(job.job_id)
    core.age(job.job_id, 61)
    again = core.claim(str(job.job_id), "w2", acknowledge=True)
    assert again.checkpoint_bytes == len("second ü".encode())
    with pytest.raises(Invalid):
        save(core, again, "x" * (job_log.CHECKPOINT_BYTES + 1))
    save(core, again, "x" * job_log.CHECKPOINT_BYTES)
    core.result(again)


def test_both_go_with_the_job(core):
    job = core.held()
    append(core, job, "line")
    save(core, job, "checkpoint")
    core.result(job)
    assert core.purge_after(job.job_id) == 1
    assert core.sql("SELECT FROM job_log_pieces") == core.sql("SELECT FROM job_checkpoints") == []


def test_over_http_and_in_the_claim(client):
    job_id = client.create()
    job = client.claim()
    assert job["checkpoint"] is None
    token = {"X-Lease-Token": job["lease_token"]}
    refused(client.put(f"{job_id}/checkpoint", {"checkpoint": "x"}), 409, "lease_lost")
    refused(client.put(f"{job_id}/checkpoint", {"checkpoint": 5}, headers=token), 422, "validation")
    refused(client.put(f"{job_id}/checkpoint", {"checkpoint": "x" * (2**20 + 1)}, headers=token), 422, "validation")
    kept = '"quoted"\n' + "ü" * 100_000
    assert ok(client.put(f"{job_id}/checkpoint", {"checkpoint": kept}, headers=token))["status"] == "processing"
    refused(client.post(f"{job_id}/log", {"lines": ["x"] * 1001}, headers=token), 422, "validation")
    answer = client.post(f"{job_id}/log", {"lines": ["one", "two"], "lease_token": job["lease_token"]})
    assert ok(answer)["cancel_requested"] is False
    ok(client.post(f"{job_id}/release", {"lease_token": job["lease_token"]}))
    again = client.claim(worker_id="w2")
    assert again["checkpoint"] == kept
    assert ok(client.poll(worker_id="nobody"))["jobs"] == []
    [piece] = ok(client.get(f"{job_id}/log"))["pieces"]
    assert (piece["n"], piece["attempt"], piece["lines"]) == (1, 1, "one\ntwo\n")
    assert ok(client.get(f"{job_id}/log", params={"after": 1})) == {"pieces": []}


def test_what_is_written_is_written_to_this_attempt_of_this_job_alone(core):
    """By the statements themselves, as where the attempt ends between the look and the write."""
    job, other, ended = core.held(), core.held(), core.held()
    append(core, other, "theirs")
    core.result(ended)

    def writes(statement, job_id, attempt):
        with core.engine.begin() as connection:
            its = {"job_id": str(job_id), "attempt": attempt, "lines": "x\n", "checkpoint": "x"}
            return connection.execute(statement, its).scalars().all()

    for statement in (job_log.APPEND, job_log.SAVE):
        for late in ((job.job_id, 2), (ended.job_id, 1), (KEY.key_id, 1)):
            assert writes(statement, *late) == []
    assert writes(job_log.APPEND, job.job_id, 1) == [1], "each job counts by itself"
    assert writes(job_log.SAVE, job.job_id, 1) == [job.job_id]
    for _ in range(job_log.LOG_BYTES // job_log.PIECE_BYTES + 1):
        append(core, job, "y" * (job_log.PIECE_BYTES - 1))
    assert log_of(core, other) == [(1, "theirs\n")]
    assert core.row(other.job_id).checkpoint_bytes is None
