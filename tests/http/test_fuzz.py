"""schemathesis over the whole OpenAPI document: no server error, nothing wrong is accepted, every answer is as it says.

`make fuzz` goes on for an hour (FUZZ_SECONDS); without that setting, or with 0, it is bounded by its cases and not by
time, as in .ci/run. Half of it goes to jobs that exist, half to any.
"""

import os
import re
import subprocess
import sys

import pytest

from bridge.admission.keys import prefix_of
from bridge.cli.local.checkout import ROOT

HOOKS = ROOT / "tests/support/fuzz_hooks.py"
SECONDS = int(os.environ.get("FUZZ_SECONDS", "0"))
BOUND = ["--max-time", str(SECONDS // 2)] if SECONDS else ["--max-examples", "3"]
CHECKS = [
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection", "unsupported_method", "allow_header_conformance",
    "ignored_auth",
]  # fmt: skip
# tus has 412 for a protocol that is not named; each of the results of POST /results is refused in its place of a 200.
REFUSED = "[400, 401, 403, 404, 405, 406, 409, 412, 415, 422, 428, 429"
CONFIGURATION = f"""
[checks.negative_data_rejection]
expected-statuses = {REFUSED}]

[[operations]]
include-name = "POST /api/v1/results"

[operations.checks.negative_data_rejection]
expected-statuses = {REFUSED}, 200]

[parameters]
"query.wait" = 0
"""


@pytest.mark.timeout(SECONDS + 400)
@pytest.mark.fuzz
@pytest.mark.parametrize("known", [True, False], ids=["a job that exists", "any job"])
def test_the_whole_document_holds_under_fuzzing(own_bridge, tmp_path, known):
    bridge = own_bridge(limits="failures=1000000", celery=False)
    client = bridge.client()
    job_id = client.held("fuzzed", task_options={"a": [1, 2.5, "x"]})["job_id"]
    pinned = f'"path.job_id" = "{job_id}"\n' if known else ""
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION + pinned)
    arguments = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{bridge.url}/openapi.json",
        "--header", f"Authorization: Bearer {client.key}", "--checks", ",".join(CHECKS),
        *BOUND, "--request-timeout", "60", "--no-color", "--continue-on-failure",
        "--warnings", "off",
    ]  # fmt: skip
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS), "FUZZ_OWN_PREFIX": prefix_of(client.key)}
    done = subprocess.run(
        arguments, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=SECONDS + 300, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated is not None, done.stdout[-2000:]
    assert int(generated[1]) > 100
    assert client.get("").status_code == 200, "the key that all this was done with counts no more"
    for row in client.get("", params={"limit": 500}).json()["jobs"]:
        assert client.get(row["job_id"]).status_code == 200, "a row that cannot be read back"
