"""The life of a job by a client that openapi-python-client generates: python life.py URL KEY SOURCE."""

import sys
import uuid

from generated import AuthenticatedClient
from generated.api.jobs import cancel_job, create_job, show_job, show_result
from generated.api.work import download, heartbeat, poll, submit_result
from generated.models import CreateJob, Heartbeat, HeartbeatAnswer, Problem, Result

url, key, source = sys.argv[1:]
api = AuthenticatedClient(base_url=url, token=key, raise_on_unexpected_status=True)


def create(task: str) -> str:
    made = create_job.sync(
        client=api, body=CreateJob(source_file_path=source, content_type="py-document", ingestion_task_id=task)
    )
    return str(made.job_id)


def claim():
    given = poll.sync(
        client=api, worker_id="py", content_types="py-document", wait=10, lease=60, claim_id=uuid.uuid4().hex
    )
    return given.jobs[0]


# From file to text, the download cut after 100 bytes and resumed.
first = create("py-1")
job = claim()
job_id = str(job.job_id)
assert job_id == first
begun = download.sync_detailed(job_id, client=api, x_lease_token=job.lease_token, range_="bytes=0-99")
assert begun.status_code == 206
rest = download.sync_detailed(
    job_id, client=api, x_lease_token=job.lease_token, range_="bytes=100-", if_range=begun.headers["ETag"]
)
assert rest.status_code == 206
with open(source, "rb") as file:
    assert begun.parsed.payload.read() + rest.parsed.payload.read() == file.read()
alive = heartbeat.sync(job_id, client=api, x_lease_token=job.lease_token, body=Heartbeat(progress=0.5))
assert isinstance(alive, HeartbeatAnswer)
assert alive.status == "processing"
done = submit_result.sync(job_id, client=api, x_lease_token=job.lease_token, body=Result(success=True, content="text"))
assert done.status == "completed"
assert show_result.sync(job_id, client=api).content == "text"
assert show_job.sync(job_id, client=api).attempts[0].how == "completed"

# A cancel is heard.
create("py-2")
job = claim()
job_id = str(job.job_id)
cancel_job.sync(job_id, client=api)
heard = heartbeat.sync_detailed(job_id, client=api, x_lease_token=job.lease_token, body=Heartbeat())
assert heard.parsed.cancel_requested is True
assert heard.headers["X-Job-Status"] == "cancelled"
late = submit_result.sync_detailed(job_id, client=api, x_lease_token=job.lease_token, body=Result(success=True))
assert late.status_code == 409
assert isinstance(late.parsed, Problem)
assert late.parsed.code == "already_finished"
print("lived")
