"""Code of the revision before lives with the newest schema: the new one is migrated while the old code runs."""

import io
import subprocess
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect

from bridge.cli.local import command_lines
from bridge.cli.local.checkout import ROOT
from bridge.cli.local.stack import Stack
from bridge.embedded.ports import free_port
from models import migrations
from tests.support.client import Client, ok
from tests.support.own_database import own_database
from tests.support.waiting import wait_until

FIRST = "0001"  # kept from here on
WIDER = {("INTEGER", "BIGINT")}  # which old code reads and writes as it did
SCRIPTS = Path(migrations.__file__).parent / "versions"


@pytest.fixture
def revisions(servers) -> list[str]:
    """All of them, the oldest first."""
    scripts = ScriptDirectory.from_config(migrations.config(servers.database_url))
    return [script.revision for script in scripts.walk_revisions()][::-1]


def columns(engine) -> dict[tuple[str, str], dict[str, Any]]:
    look = inspect(engine)
    return {
        (table, column["name"]): dict(column) for table in look.get_table_names() for column in look.get_columns(table)
    }


def test_a_migration_only_adds_what_code_of_the_revision_before_can_do_without(servers, revisions):
    with own_database(servers.database_url) as url:
        engine = create_engine(url)
        seen = []
        for revision in revisions[revisions.index(FIRST) :]:
            migrations.upgrade(engine, revision)
            seen.append((revision, columns(engine)))
        engine.dispose()
    for (_, before), (revision, after) in pairwise(seen):
        for name, column in before.items():
            assert name in after, f"{revision} drops or renames {name}: do it a release after the code that used it"
            types = str(column["type"]), str(after[name]["type"])
            assert types[0] == types[1] or types in WIDER, f"{revision} changes the type of {name}"
            assert after[name]["nullable"] or not column["nullable"], f"{revision} lets no NULL into {name} any more"
        tables = {table for table, _ in before}
        for name in after.keys() - before.keys():
            if name[0] in tables:
                optional = after[name]["nullable"] or after[name]["default"] is not None or after[name].get("computed")
                assert optional, f"{revision} adds {name}, which old code does not fill"


def earlier_code(revision: str, place: Path) -> str | None:
    """Unpack the code as it was before a revision came, from the history; its commit, None where that is cut off."""
    script = next(SCRIPTS.glob(f"{revision}_*.py")).relative_to(ROOT)
    git = ["git", "-C", str(ROOT)]
    log = subprocess.run(
        [*git, "log", "--format=%H %P", "--diff-filter=A", "--", str(script)], capture_output=True, text=True
    )
    commits = log.stdout.split()
    if log.returncode or len(commits) < 2:
        return None
    packed = subprocess.run([*git, "archive", commits[1]], capture_output=True)
    if packed.returncode:
        return None
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(place, filter="data")
    return commits[1]


@pytest.mark.slow
def test_code_of_the_revision_before_works_beside_the_new_one_on_the_new_schema(start_bridge, revisions, tmp_path):
    commit = earlier_code(revisions[-1], tmp_path / "old")
    if commit is None:
        pytest.skip("the history does not reach back to the code before the newest migration")
    new = start_bridge(beat=False, api_processes="1", continuation_task="pipeline.receive", continuation_queue="nobody")
    old = Stack({**new.stack.environment, "BRIDGE_PORT": str(free_port()), "BRIDGE_DATA_DIR": str(tmp_path / "data"),
                 "BRIDGE_SOURCE_ROOTS": str(new.files)}, throw_away=True)  # fmt: skip
    try:
        here = str(ROOT / "api" / "gunicorn_conf.py")
        there = str(tmp_path / "old" / "api" / "gunicorn_conf.py")
        api = [there if part == here else part for part in command_lines.api()]
        old.family.start("api", api, old.environment, cwd=tmp_path / "old")
        client = new.client()
        before = Client(old.url, client.key, client.files, client.tenant)

        def answers() -> bool:
            old.family.check()
            return old._api_answers()

        wait_until(answers, "the old code to answer")
        for creating, claiming, ending in [
            (before, before, before),
            (before, client, before),
            (client, before, client),
        ]:
            job_id = creating.create()
            job = claiming.claim(wait=30)
            assert job["job_id"] == job_id
            ok(ending.heartbeat(job, progress=0.5))
            assert ok(ending.result(job))["status"] == "completed"
            assert before.job(job_id)["status"] == client.job(job_id)["status"] == "completed"
        again = before.create()
        ok(before.post(f"{again}/cancel"))
        ok(client.post(f"{again}/retry"))
        ok(before.result(before.claim(wait=30)))
    finally:
        old.stop()
