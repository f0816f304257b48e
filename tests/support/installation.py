"""An installation as `jobbridge doctor` meets it."""

import uuid
from pathlib import Path
from typing import Any

import redis as redis_py
from sqlalchemy import create_engine, text

from bridge.cli.local.doctor.examine import Report, examine
from bridge.periodic_work import SWEEP_PERIODS
from bridge.settings import load_settings

GOOD = {("postgresql_durability", "warning")}  # the tests' PostgreSQL has fsync off


class Installation:
    """Settings, a database of its own, a Redis to do anything to."""

    def __init__(self, database_url: str, redis_url: str, data_dir: Path) -> None:
        (data_dir / "secrets").mkdir(mode=0o700, parents=True)
        (data_dir / "files").mkdir()
        data_dir.chmod(0o700)
        self.data_dir = data_dir
        self.settings = {
            "BRIDGE_DATABASE_URL": database_url,
            "BRIDGE_REDIS_URL": redis_url,
            "BRIDGE_DATA_DIR": str(data_dir),
            "BRIDGE_API_PROCESSES": "1",
        }
        self.redis = redis_py.Redis.from_url(redis_url, decode_responses=True)
        self.redis.config_set("min-replicas-to-write", 0)
        self.redis.config_set("maxmemory", 0)
        self.redis.config_set("maxmemory-policy", "noeviction")
        self.redis.config_set("appendonly", "yes")
        self.redis.flushall()
        self.redis.set("bridge:epoch", "1")
        for task in SWEEP_PERIODS:
            self.sql("INSERT INTO sweeps (name, ran_at, seconds, changed, total) VALUES (:n, now(), 0, 0, 0)",
                     n=task.removeprefix("bridge."))  # fmt: skip

    def sql(self, statement: str, **parameters: Any) -> None:
        engine = create_engine(self.settings["BRIDGE_DATABASE_URL"], isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement), parameters)
        engine.dispose()

    def job(self, **columns: Any) -> str:
        """Return a job that has been claimable for ten minutes."""
        given = {"id": str(uuid.uuid4()), "tenant": "default", "ingestion_task_id": "x", "source_file_path": "/x",
                 "source_size": 1, "content_type": "audio", "task_options": "{}", "priority": 1, "max_retries": 0,
                 "timeout_seconds": 60, "queue_timeout_seconds": 9000, "status": "pending", "mirrored": True,
                 **columns}  # fmt: skip
        marks = ", ".join(f":{name}" for name in given)
        self.sql(f"INSERT INTO remote_jobs ({', '.join(given)}, created_at, queued_at, available_at, timeout_at) VALUES"
                 f" ({marks}, now(), now() - interval '10 min', now() - interval '10 min', now() + interval '1 h')",
                 **given)  # fmt: skip
        return str(given["id"])

    def database(self) -> str:
        return self.settings["BRIDGE_DATABASE_URL"].rpartition("/")[2]

    def report(self, **changes: str) -> Report:
        around = {**self.settings, **changes}
        return examine(load_settings(around), around)

    def found(self, **changes: str) -> set[tuple[str, str]]:
        """(check, level) of all findings."""
        return {(one.check, str(one.level)) for one in self.report(**changes).findings}
