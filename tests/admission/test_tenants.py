"""The tenant stands in every statement: what the service sends to PostgreSQL is read from PostgreSQL's own log."""

import inspect
import re

import pytest
import redis as redis_py

from bridge import names
from bridge.names import API_ROOT
from tests.support.client import ok, refused
from tests.support.of_an_attempt import sent
from tests.support.tus import announce, append
from tests.support.waiting import LATEST, wait_until


def logged(path, start):
    """Return the statements in PostgreSQL's log from a place on, each on a line; prepared ones in full, with values."""
    prepared: dict[str, str] = {}
    found = []
    log = path.read_bytes()
    for statement in _statements(log[:start]) + (here := _statements(log[start:])):
        prepared.update(PREPARE.findall(statement))
    for statement in here:
        if not statement.startswith("PREPARE "):
            in_full = EXECUTE.sub(lambda name: prepared[name[1]] + " -- ", statement)
            found.append(re.sub(r"^(SET LOCAL [^;]*; )+", "", in_full))
    return found


PREPARE = re.compile(r"PREPARE (\w+)(?:\([^()]*\))? AS (.*?)(?=; PREPARE |$)")
EXECUTE = re.compile(r"\bEXECUTE (\w+_[0-9a-f]{16})")


def _statements(log):
    text = re.sub(r"\n\t", " ", log.decode(errors="replace"))
    found = re.findall(r"^[^\n]*?LOG:  (?:statement|execute [^:]*): (.*)$", text, re.MULTILINE)
    return [re.sub(r"\s+", " ", statement).strip() for statement in found]


def exercise(bridge, client):
    """Everything that a client and a pipeline can do, each at least once."""
    for n in range(3):
        client.create("audio", headers={"Idempotency-Key": f"k{n}"})
    client.create("audio", headers={"Idempotency-Key": "again"})
    job = client.claim("audio,video", claim_id="c1")
    ok(client.poll("audio", claim_id="c1"))
    client.get("poll", params={"worker_id": "w9", "content_types": "none"}, timeout=30)
    client.download(job)
    ok(client.heartbeat(job, progress=0.5))
    client.put(f"{job['job_id']}/progress", {"percentage": 50}, headers={"X-Lease-Token": job["lease_token"]})
    client.status(job["job_id"])
    client.result({**job, "lease_token": "stale"})
    ok(client.result(job))
    ok(client.result(job))
    client.job(job["job_id"])
    ok(client.get(f"{job['job_id']}/result"))
    failed = client.claim()
    ok(client.result(failed, success=False, retryable=False))
    ok(client.post(f"{failed['job_id']}/retry"))
    released = client.claim()
    ok(client.post(f"{released['job_id']}/release", {"lease_token": released["lease_token"]}))
    ok(client.post(f"{released['job_id']}/cancel"))
    ok(client.get("", params={"status": "pending", "limit": 1}))
    place = announce(client, 4)
    assert append(client, place, 0, b"text").status_code == 204
    ok(client.get(place))
    uploaded = {**client.fields("audio"), "source_upload": place.rpartition("/")[2]}
    del uploaded["source_file_path"]
    batch = ok(client.post("batch", {"jobs": [{**uploaded, "unserved_after_seconds": 60}], "outcome": True}))
    named = batch["jobs"][0]["job_id"]
    mine = ok(client.post(f"{named}/claim", {"worker_id": "pipeline"}))
    token = {"lease_token": mine["lease_token"]}
    ok(client.post(f"{named}/log", {"lines": ["begun"], **token}))
    ok(client.get(f"{named}/log"))
    ok(client.put(f"{named}/checkpoint", {"checkpoint": "page 7", **token}))
    ok(client.put(f"{named}/checkpoint", {"checkpoint_upload": sent(client, mine, b"page 8"), **token}))
    assert client.get(f"{named}/checkpoint", headers={"X-Lease-Token": mine["lease_token"]}).content == b"page 8"
    ok(client.post(f"{API_ROOT}/results", {"results": [{"job_id": named, "success": True, "content": "x", **token}]}))
    ok(client.get(f"{API_ROOT}/batches/{batch['batch_id']}"))
    fields = {**client.fields("audio"), "tenant": client.tenant}
    bridge.celery.send_task(names.ENQUEUE, kwargs=fields, queue=names.QUEUE).get(timeout=LATEST)
    outcome = {"job_id": job["job_id"], "n": 1}
    for task, done, asked in (
        (names.CONTINUE, "sent_at", {"job_id": job["job_id"]}),
        (names.CONFIRM, "confirmed_at", outcome),
    ):
        bridge.celery.send_task(task, kwargs=asked, queue=names.QUEUE)
        seen = f"SELECT FROM continuations WHERE job_id = :job_id AND n = :n AND {done} IS NOT NULL"
        wait_until(lambda: bridge.sql(seen, **outcome), task)  # noqa: B023  (waited for here)


# Statements of the service itself, about no request: they look at all tenants.
OF_THE_SERVICE = [
    r"SELECT id, prefix, secret_hash, tenant, scopes, .* FROM api_keys WHERE prefix = ANY",  # whose key is this?
    r"UPDATE api_keys SET last_used_at = now\(\) WHERE prefix = ANY",
    r"SELECT key_id, count\(\*\) FROM remote_jobs WHERE status = 'processing' AND .*key_id = ANY",  # the limits of keys
    r"SELECT EXISTS \(SELECT FROM remote_jobs WHERE completed_at .* timeout_at <=",  # is any clock overdue?
    r"WITH late AS MATERIALIZED \( SELECT job_id, n, sooner FROM continuations",  # the pipeline confirms: sooner, all
]
# Tasks that somebody asks for: about one job, named by its tenant or by the ID that was found or made with it. Who may
# send tasks is inside: `confirm_continuation` is the pipeline's answer to an outcome that it was handed.
ASKED_FOR = {names.ENQUEUE, names.CONTINUE, names.CONFIRM}
# Wakes the threads that send webhooks: each goes where its own row says, signed by a key of its row's tenant, which is
# named in every statement (tests/outbox/test_webhooks_in_turns.py).
WAKES = {names.SEND_WEBHOOKS}
# Tasks that nobody asks for. They have no tenant, because they do to every tenant's jobs what the clocks say, and take
# nothing from anybody that could aim them; what they write, they write with the tenant of the row they found.
SWEEPS = {
    names.EXPIRE: "the clocks run for the jobs of all tenants alike",
    names.RELEASE_DUE: "each job goes into the list of its own tenant",
    names.REPEAT: "each outcome goes where it went before, with the tenant of its own row",
    names.RECONCILE: "likewise; it compares the whole mirror with all jobs",
    names.PURGE: "BRIDGE_RETENTION_DAYS is one setting for all",
    names.WATCH: "a pause carries the tenant of the jobs that it is for",
    names.PROMOTE: "BRIDGE_PRIORITY_AGING_SECONDS is one setting for all, and each tenant's queues are their own",
    names.FOLD: "the counters are kept by tenant",
    names.CHECK: "likewise",
    names.MEDIANS: "the medians are kept by tenant",
    names.HISTORY: "each line of the history carries its tenant",
    names.COLLECT: "an upload ends by its own clock, and a file goes once no row of any tenant names it",
    names.JOIN: "the objects of an upload stay below the prefix of its tenant, and only how it is stored changes",
    names.UNSERVED: "each outcome is recorded with the tenant of the job that nobody asked for",
    names.CALL_BACK: "it asks whether anybody's webhook is due, and sends the task below",
    names.BATCHES: "a batch ends with its own jobs, and its outcome goes to the tenant of the one that bears it",
}
TABLES = re.compile(r"\b(remote_jobs|job_\w+|continuations|webhooks|api_keys|batches|uploads|upload_\w+|queue_asks)\b")
ID = re.compile(r"'([0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})'")


@pytest.fixture(scope="module")
def watched(start_bridge):
    """Return a bridge without beat whose statements, of the API and of Celery's tasks, are in PostgreSQL's log."""
    pipeline = {"continuation_task": "pipeline.receive", "continuation_queue": "nobody"}
    bridge = start_bridge(beat=False, api_processes="1", continuation_confirm_seconds="3600", **pipeline)
    name = bridge.settings.database_url.rpartition("/")[2]
    bridge.sql(f"ALTER DATABASE {name} SET log_statement = 'all'")
    bridge.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    bridge.engine.dispose()
    asking = bridge.client()
    answers = lambda: [asking.poll("none"), asking.get("")]  # noqa: E731  (each has connections of its own)
    wait_until(lambda: all(one.status_code == 200 for _ in range(20) for one in answers()), "new connections")
    return bridge


@pytest.fixture
def statements(servers):
    """Return a function that gives what was logged since the test began about tables that belong to tenants."""
    log = servers.postgres.log
    start = log.stat().st_size

    def read():
        found = [statement for statement in logged(log, start) if TABLES.search(statement)]
        return [one for one in found if not any(re.match(known, one) for known in OF_THE_SERVICE)]

    return read


COUNTED = re.compile(
    r"SELECT count\(\*\) FROM \( SELECT FROM remote_jobs WHERE tenant = 't-[0-9a-f]{12}' AND status = '\w+'"
    r"( AND completed_at IS NULL)? LIMIT [0-9]+ \) counted"
)


@pytest.mark.slow
def test_every_statement_names_the_tenant_or_what_was_found_by_it(watched, statements):
    """By the tenant itself, by the caller's key, or by the ID of a job that was found or created with the tenant."""
    client = watched.client()
    key_id = str(watched.sql("SELECT id FROM api_keys WHERE tenant = :tenant", tenant=client.tenant)[0].id)
    exercise(watched, client)
    seen = statements()
    assert len(seen) > 50
    for table in ("batches", "uploads", "upload_segments", "job_log_pieces", "job_checkpoints"):
        assert any(re.search(rf"\b{table}\b", statement) for statement in seen), f"no statement about {table}"
    for task in ("INSERT INTO remote_jobs", "WITH due AS", "UPDATE continuations SET confirmed_at"):
        assert any(statement.startswith(task) for statement in seen), f"Celery's statements are not here: {task}"
    found = {key_id}
    for statement in seen:
        if COUNTED.fullmatch(statement):  # in the background, of each tenant that has asked lately
            continue
        if f"'{client.tenant}'" in statement or f"'tenant-{client.tenant}/" in statement:  # or an object of it
            found |= set(ID.findall(statement))
        else:
            ids = set(ID.findall(statement))
            assert ids, f"names neither a tenant nor a job: {statement}"
            assert ids <= found, f"a job that was not found with its tenant: {statement}"


def test_no_sweep_can_be_aimed_at_a_tenant_or_a_job():
    """The reason why the statements of a sweep name no tenant; a new task has to say which of the two it is."""
    from tasks.app import app

    app.loader.import_default_modules()
    assert {name for name in app.tasks if name.startswith("bridge.")} == ASKED_FOR | WAKES | set(SWEEPS)
    for name in SWEEPS:
        assert not inspect.signature(app.tasks[name].run).parameters, name


def test_what_the_sweeps_do_stays_with_the_tenant_of_each_job(watched, statements):
    """All of them run on the jobs of two tenants, with the same content type and the same worker's name."""
    clients = [watched.client(), watched.client()]
    expired, due, lost = ([client.create("shared") for client in clients] for _ in range(3))
    watched.sql("UPDATE remote_jobs SET timeout_at = now() WHERE id = ANY(CAST(:ids AS uuid[]))", ids=expired)
    watched.sql("UPDATE remote_jobs SET mirrored = false WHERE id = ANY(CAST(:ids AS uuid[]))", ids=due)
    prefix = watched.settings.redis_prefix
    with redis_py.Redis.from_url(watched.settings.redis_url, decode_responses=True) as mirror:
        for client in clients:
            mirror.delete(f"{prefix}:{{{client.tenant}:shared}}:pending:normal")
        mirror.delete(f"{prefix}:epoch")
        before = len(statements())
        for task in SWEEPS:
            watched.celery.send_task(task, queue=names.QUEUE)
            ran = "SELECT FROM sweeps WHERE name = :name AND ran_at > now() - interval '1 minute'"
            wait_until(lambda: watched.sql(ran, name=task.removeprefix("bridge.")), task)  # noqa: B023
        assert len(statements()) > before
        for n, client in enumerate(clients):
            listed = mirror.lrange(f"{prefix}:{{{client.tenant}:shared}}:pending:normal", 0, -1)
            assert sorted(set(listed)) == sorted([due[n], lost[n]])
            assert client.status(expired[n]) == "timeout"
    told = watched.sql(
        "SELECT job_id, c.tenant, j.tenant AS owner FROM continuations c JOIN remote_jobs j ON j.id = c.job_id"
        " WHERE job_id = ANY(CAST(:ids AS uuid[]))",
        ids=expired,
    )
    assert {(str(row.job_id), row.tenant, row.owner) for row in told} == {
        (expired[n], client.tenant, client.tenant) for n, client in enumerate(clients)
    }


def test_of_a_job_of_another_tenant_nothing_is_asked_but_whether_it_is_there(watched, statements):
    mine, other = watched.client(), watched.client()
    job = mine.held("mine")
    job_id, token = job["job_id"], {"X-Lease-Token": job["lease_token"]}
    before = len(statements())
    for method, path, body in (
        ("GET", "", None), ("GET", "/status", None), ("GET", "/result", None), ("GET", "/download", None),
        ("PUT", "/result", {"success": True}), ("POST", "/heartbeat", {}), ("PUT", "/progress", {"percentage": 1}),
        ("POST", "/release", {}), ("POST", "/cancel", None), ("POST", "/retry", None),
    ):  # fmt: skip
        refused(other.request(method, f"{job_id}{path}", json=body, headers=token), 404, "not_found")
    about = [statement for statement in statements()[before:] if job_id in statement]
    # A success is tried at once, by an UPDATE of a job of this tenant alone; the rest are questions.
    assert [statement.split()[0] for statement in about].count("SELECT") == 10
    assert len(about) == 11
    for statement in about:
        assert f"'{other.tenant}'" in statement
        assert re.search(r"remote_jobs\.tenant( \|\| '')? = ", statement)
    assert mine.status(job_id) == "processing"


def test_a_job_of_another_tenant_in_the_mirror_is_not_handed_out(bridge, client):
    """Who can write into Redis can delay jobs, not steal them."""
    other = bridge.client()
    stolen = other.create("stolen")
    prefix = bridge.settings.redis_prefix
    with redis_py.Redis.from_url(bridge.settings.redis_url) as mirror:
        mirror.rpush(
            f"{prefix}:{{{client.tenant}:stolen}}:pending:high",
            stolen,
            "nonsense",
            "00000000-0000-7000-8000-000000000000",
        )
    mine = client.create("stolen")
    assert client.claim("stolen")["job_id"] == mine
    assert ok(client.poll("stolen"))["jobs"] == []
    assert other.claim("stolen")["job_id"] == stolen
