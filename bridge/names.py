"""The strings that the outside depends on: task names, queue names, addresses."""

from urllib.parse import quote

# The Celery queues of the bridge's own tasks. A burst in one delays no other.
QUEUE = "bridge"  # the intake
OUTCOMES = "bridge.outcomes"  # nudges to hand over, and the pipeline's confirmations
SWEEPS = "bridge.sweeps"  # what beat sends
WEBHOOKS = "bridge.webhooks"  # asks to send what is due to the receivers' addresses
QUEUES = (QUEUE, OUTCOMES, SWEEPS, WEBHOOKS)

ENQUEUE = "bridge.enqueue_remote_job"
CONTINUE = "bridge.continue_ingestion"
REPEAT = "bridge.repeat_outcomes"
CONFIRM = "bridge.confirm_continuation"
EXPIRE = "bridge.expire_jobs"
RELEASE_DUE = "bridge.release_due_jobs"
RECONCILE = "bridge.reconcile_mirror"
PURGE = "bridge.purge_jobs"
FOLD = "bridge.fold_counts"
CHECK = "bridge.check_counts"
MEDIANS = "bridge.refresh_medians"
WATCH = "bridge.watch_workers"
PROMOTE = "bridge.promote_jobs"
HISTORY = "bridge.record_history"
COLLECT = "bridge.collect_uploads"
JOIN = "bridge.join_uploads"
UNSERVED = "bridge.tell_unserved"
BATCHES = "bridge.end_batches"
CALL_BACK = "bridge.call_back"
SEND_WEBHOOKS = "bridge.send_webhooks"

API_ROOT = "/api/v1"
API_BASE = f"{API_ROOT}/remote-jobs"
BATCHES_BASE = f"{API_ROOT}/batches"
KEYS_BASE = f"{API_ROOT}/keys"
UPLOADS_BASE = f"{API_ROOT}/uploads"
WEBHOOKS_BASE = f"{API_ROOT}/webhooks"
DEFAULT_TENANT = "default"
TENANT_PATTERN = CONTENT_TYPE_PATTERN = r"[a-z0-9._-]{1,50}"


def job_path(job_id: object, below: str) -> str:
    """Return the relative address of what belongs to a job: its `download`, `result`, `checkpoint`."""
    return f"{API_BASE}/{job_id}/{below}"


def artifact_path(job_id: object, name: str) -> str:
    """Return the relative address of a file of a job's result."""
    return job_path(job_id, f"artifacts/{quote(name, safe='')}")
