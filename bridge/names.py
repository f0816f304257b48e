"""The strings that the outside depends on: task names, queue names."""

QUEUE = "bridge"  # the Celery queue of the bridge's own tasks

ENQUEUE = "bridge.enqueue_remote_job"
CONTINUE = "bridge.continue_ingestion"
CONFIRM = "bridge.confirm_continuation"
EXPIRE = "bridge.expire_jobs"
RELEASE_DUE = "bridge.release_due_jobs"
RECONCILE = "bridge.reconcile_mirror"
PURGE = "bridge.purge_jobs"

API_BASE = "/api/v1/remote-jobs"
KEYS_BASE = "/api/v1/keys"
DEFAULT_TENANT = "default"
TENANT_PATTERN = CONTENT_TYPE_PATTERN = r"[a-z0-9._-]{1,50}"


def download_path(job_id: object) -> str:
    """The relative address of a job's source file."""
    return f"{API_BASE}/{job_id}/download"
