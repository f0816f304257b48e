"""`jobbridge doctor` finds each of these broken set-ups on real servers, and says what to do. (A good one: test_up.)"""

import json
import os
import uuid

import pytest
from sqlalchemy import create_engine, text

from bridge import names
from bridge.cli.local.doctor import postgresql
from bridge.cli.local.doctor.finding import skewed
from bridge.cli.local.doctor.machine import data_directory, packages
from bridge.settings import load_settings
from tests.support.installation import GOOD
from tests.support.own_database import own_database
from tests.support.quick_command import quick_jobbridge as jobbridge
from tests.support.scripted_answers import answer, scripted

MISSING = "/nowhere/at/all"


def no_beat(place):
    place.sql("UPDATE sweeps SET ran_at = now() - interval '1 day'")


def no_celery(place):
    no_beat(place)
    place.redis.lpush(names.SWEEPS, "message")


def rebuilding(place):
    place.redis.delete("bridge:epoch")
    place.job()


def outcome(ago, tries, error):
    """Return what inserts one, tried so often."""
    insert = ("INSERT INTO continuations (job_id, n, tenant, kwargs, created_at, next_at, tries, last_error) VALUES"
              " (:id, 1, 'default', '{}', now() - CAST(:ago AS interval), now(), :tries, :error)")  # fmt: skip
    return lambda place: place.sql(insert, id=place.job(mirrored=False), ago=ago, tries=tries, error=error)


def full_redis(place):
    used = place.redis.info("memory")["used_memory"]
    place.redis.config_set("maxmemory", int(used * 1.08))


def unacknowledged(place):
    for number in range(10):
        place.sql("INSERT INTO job_attempts (job_id, attempt, worker_id, key_id, lease_token, claimed_at, ended_at,"
                  " how) VALUES (:id, :n, 'w', :key, :token, now(), now(), 'unacknowledged')",
                  id=place.job(mirrored=False), n=number + 1, key=str(uuid.uuid4()),
                  token=str(uuid.uuid4()))  # fmt: skip


def database_with(setting):
    return lambda place: place.sql(f"ALTER DATABASE {place.database()} SET {setting}")


def open_secret(place):
    (place.data_dir / "secrets" / "admin-key").touch(mode=0o644)
    (place.data_dir / "secrets" / "admin-key").chmod(0o644)


def flooded(queue):
    return lambda place: place.redis.lpush(queue, *["message"] * 1001)


PIPELINE = {"BRIDGE_CONTINUATION_TASK": "pipeline.receive", "BRIDGE_CONTINUATION_QUEUE": "ingestion"}
BROKEN = [
    ("database_away", "error", None, {"BRIDGE_DATABASE_URL": "postgresql://u:a-password@127.0.0.1:1/x"}),
    ("database", "error", None, {"BRIDGE_DATABASE_URL": ""}),
    ("schema", "error", lambda place: place.sql("DROP TABLE alembic_version"), {}),
    ("schema", "error", lambda place: place.sql("UPDATE alembic_version SET version_num = '0001'"), {}),
    ("schema", "error", lambda place: place.sql("UPDATE alembic_version SET version_num = '9999'"), {}),
    ("postgresql_read_only", "error", database_with("default_transaction_read_only = on"), {}),
    ("postgresql", "warning", database_with("log_statement = 'all'"), {}),
    ("postgresql_connections", "warning", None, {"BRIDGE_API_PROCESSES": "200"}),
    ("redis_away", "error", None, {"BRIDGE_REDIS_URL": "redis://127.0.0.1:1"}),
    ("redis", "error", None, {"BRIDGE_REDIS_URL": ""}),
    ("redis", "warning", lambda place: place.redis.config_set("maxmemory-policy", "allkeys-lru"), {}),
    ("redis_persistence", "warning", lambda place: place.redis.config_set("appendonly", "no"), {}),
    ("redis_writes", "error", lambda place: place.redis.config_set("min-replicas-to-write", 3), {}),
    ("redis_away", "error", None, {"BRIDGE_BROKER_URL": "redis://127.0.0.1:1"}),
    ("beat", "error", no_beat, {}),
    ("celery", "error", no_celery, {}),
    ("celery_queue", "warning", flooded(names.QUEUE), {}),
    ("celery_queue", "warning", flooded(names.WEBHOOKS), {}),
    ("continuation_queue", "warning", lambda place: place.redis.lpush("ingestion", "one", "two"), PIPELINE),
    ("mirror", "warning", lambda place: place.job(), {}),  # the mirror has nothing
    ("mirror", "warning", rebuilding, {}),
    ("outbox", "warning", outcome("0 s", 9, "Connection refused"), {}),
    ("outbox", "warning", outcome("1 hour", 0, None), {}),
    ("webhooks", "warning", lambda place: place.sql("ALTER TABLE webhooks RENAME TO others"), {}),  # not to be checked
    ("redis_memory", "warning", full_redis, {}),
    ("never_acknowledged", "warning", unacknowledged, {}),
    ("source_roots", "error", None, {"BRIDGE_SOURCE_ROOTS": MISSING}),
    ("data_directory", "warning", lambda place: place.data_dir.chmod(0o755), {}),
    ("secrets", "error", open_secret, {}),
    ("unknown_setting", "warning", None, {"BRIDGE_PROT": "8000"}),
    ("api", "error", None, {"BRIDGE_URL": "http://127.0.0.1:1"}),
]


@pytest.mark.parametrize(("check", "level", "breaks", "changes"), BROKEN, ids=[
    f"{number}-{case[0]}" for number, case in enumerate(BROKEN)
])  # fmt: skip
def test_each_broken_set_up_is_found_and_nothing_else(place, check, level, breaks, changes):
    if breaks is not None:
        breaks(place)
    assert place.found(**changes) - GOOD == {(check, level)}


def test_a_set_up_that_is_well_has_no_finding(place):
    assert place.found(**PIPELINE) == GOOD


def test_an_empty_mirror_is_no_finding_while_no_job_waits(place):
    place.redis.delete("bridge:epoch")
    assert place.found() == GOOD


def test_a_superuser_and_a_transaction_that_lasts_are_found(place, servers, monkeypatch):
    monkeypatch.setattr(postgresql, "LONG_TRANSACTION_SECONDS", 0)
    engine = create_engine(place.settings["BRIDGE_DATABASE_URL"])
    with engine.begin() as lasting:
        lasting.execute(text("SELECT 1"))
        url = f"{servers.postgres.superuser_url.rpartition('/')[0]}/{place.database()}"
        found = place.found(BRIDGE_DATABASE_URL=url.replace("postgresql:", "postgresql+psycopg2:"))
    engine.dispose()
    assert found - GOOD == {("postgresql_role", "warning"), ("postgresql_transaction", "warning")}


def test_an_api_that_is_not_ready_is_found(place):
    with scripted(answer("503 Service Unavailable")) as server:
        assert place.found(BRIDGE_URL=server.url) - GOOD == {("api", "error")}


def test_data_that_are_another_users_or_no_directory_are_found(tmp_path):
    def told(place):
        return [one.what for one in data_directory(load_settings({"BRIDGE_DATA_DIR": str(place)}))]

    (tmp_path / "file").touch()
    assert told(tmp_path / "file") == [f"{tmp_path / 'file'} cannot be used."]
    (tmp_path / "data").mkdir(mode=0o700)
    assert told(tmp_path / "data") == []
    if os.geteuid() == 0:
        os.chown(tmp_path / "data", 54321, -1)
        assert told(tmp_path / "data") == [f"{tmp_path / 'data'} belongs to user 54321."]


def test_a_distribution_that_is_not_installed_is_found():
    assert [one.what for one in packages("nosuch-distribution")] == ["nosuch-distribution is not installed here."]


def test_an_encoding_that_cannot_hold_documents_is_found(place, servers):
    with own_database(servers.database_url, "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0") as url:
        assert {("postgresql", "error"), ("schema", "error")} <= place.found(BRIDGE_DATABASE_URL=url)


def test_a_package_that_is_missing_or_old_is_found(tmp_path, monkeypatch):
    made = tmp_path / "trial-1.dist-info"
    made.mkdir()
    (made / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: trial\nVersion: 1\nRequires-Dist: flask>=99\nRequires-Dist: nosuch-package\n"
        "Requires-Dist: neither; extra == 'up'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    told = [one.what for one in packages("trial")]
    assert [words.split()[0] for words in told] == ["flask", "nosuch-package"]


def test_clocks_that_differ_are_found():
    assert skewed("clock", "Redis'", 1.0) == []
    assert "60 s behind" in skewed("clock", "Redis'", -60.0)[0].what


def test_the_command_says_what_to_do_and_its_status_is_for_monitoring(place, tmp_path):
    warned = {**place.settings, "BRIDGE_PROT": "1"}
    done = jobbridge("doctor", cwd=tmp_path, **warned)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "did you mean BRIDGE_PORT?" in done.stdout
    assert "  → Correct or remove it" in done.stdout
    broken = jobbridge("doctor", "--json", cwd=tmp_path, **warned, BRIDGE_SOURCE_ROOTS=MISSING)
    report = json.loads(broken.stdout)
    assert broken.returncode == report["status"] == 2
    assert next(one["check"] for one in report["findings"]) == "source_roots"
    assert report["facts"]["PostgreSQL"]
    bad = jobbridge("doctor", "--json", cwd=tmp_path, BRIDGE_ACK_SECONDS="soon")
    assert [one["check"] for one in json.loads(bad.stdout)["findings"]] == ["settings"]
    nothing = jobbridge("doctor", "--json", cwd=tmp_path)
    assert {one["check"] for one in json.loads(nothing.stdout)["findings"]} >= {"database", "redis"}
    assert "a-password" not in jobbridge(
        "doctor", cwd=tmp_path, BRIDGE_DATABASE_URL="postgresql://u:a-password@127.0.0.1:1/x",
        BRIDGE_REDIS_URL="redis://:a-password@127.0.0.1:1",
    ).stdout  # fmt: skip
