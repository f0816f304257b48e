"""The API with a claim as it must not be: SELECT, then UPDATE, with no lock and no guard. For the checker to catch.

`python -m tests.chaos --wsgi tests.chaos.unguarded:app` runs it.
"""

import secrets
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, text

from bridge.jobs.claim import Claimant, Claimed, Fates, InLine
from bridge.long_poll import assign, dispatcher
from bridge.queues import RANKS, Entry, Queue

COLUMNS = """id, content_type, CAST(task_options AS text), attempt, retry_count, priority, timeout_at, lease_token,
  lease_expires_at, ack_by, source_file_path, source_size, source_sha256, 0.0, checkpoint_bytes, traceparent,
  checkpoint_upload"""
FREE = text("SELECT 1 FROM remote_jobs WHERE id = :id AND status = 'pending' AND available_at <= now()")
TAKE = text(f"""
UPDATE remote_jobs SET status = 'processing', attempt = attempt + 1, worker_id = :worker_id, key_id = :key_id,
  lease_token = :token, lease_seconds = :lease, claim_id = :claim_id, started_at = now(),
  timeout_at = now() + make_interval(secs => timeout_seconds), ack_by = now() + make_interval(secs => :ack_seconds),
  lease_expires_at = now() + make_interval(secs => :ack_seconds), acknowledged_at = NULL, attempt_end = NULL,
  attempt_ended_at = NULL, progress = NULL, message = NULL
WHERE id = :id RETURNING {COLUMNS}
""")
HEADS = text("""
SELECT id, priority FROM remote_jobs WHERE tenant = :tenant AND content_type = :content_type AND status = 'pending'
  AND available_at <= now() AND now() < timeout_at ORDER BY priority, queued_at, id LIMIT :count
""")


def claim(connection: Connection, offers: Sequence[tuple[str, Claimant]], ack_seconds: int) -> Fates:
    """In the place of bridge.jobs.claim.claim."""
    fates = Fates({}, {}, set(), set())
    for index, (job_id, who) in enumerate(offers):
        if not list(connection.execute(FREE, {"id": job_id})):
            continue
        said = {"id": job_id, "worker_id": who.worker_id, "key_id": who.key_id, "token": secrets.token_urlsafe(32),
                "lease": who.lease_seconds, "claim_id": who.claim_id, "ack_seconds": ack_seconds}  # fmt: skip
        (taken,) = connection.execute(TAKE, said)
        fates.claimed[index] = Claimed(*taken)
    return fates


def next_in_line(connection: Connection, wanted: Mapping[Queue, int]) -> InLine:
    """In the place of bridge.jobs.claim.next_in_line."""
    found: dict[Queue, list[Entry]] = {}
    for queue, count in wanted.items():
        rows = connection.execute(HEADS, {**queue._asdict(), "count": count})
        found[queue] = [Entry(queue, RANKS[row.priority], str(row.id)) for row in rows]
    return InLine(found, set())


def __getattr__(name: str) -> object:
    """`app`, made when gunicorn asks for it, with the claim replaced."""
    if name != "app":
        raise AttributeError(name)
    for module, in_its_place in ((assign, claim), (dispatcher, next_in_line)):
        setattr(module, in_its_place.__name__, in_its_place)
    from api.wsgi import app

    return app
