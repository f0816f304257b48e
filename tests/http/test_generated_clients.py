"""Linters find no error in the OpenAPI document, and generated clients live the life of a job (`make clients`)."""

import os
import shutil
import subprocess

import pytest
import requests

from bridge.cli.local.checkout import ROOT

pytestmark = pytest.mark.clients

HERE = ROOT / "tests" / "generated_clients"
TOOLS = HERE / "node_modules" / ".bin"
PYTHON = ROOT / ".venv-clients" / "bin" / "python"

# What tus sends is bytes, whatever the generator thinks of the name of their type.
CONFIG = """
package_name_override: generated
post_hooks: []
content_type_overrides:
  application/offset+octet-stream: application/octet-stream
"""


@pytest.fixture(scope="module")
def made(bridge):
    """Return the directory that the clients are generated into, with the bridge's document in it."""
    place = HERE / "made"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / "openapi.json").write_text(requests.get(f"{bridge.url}/openapi.json", timeout=60).text)
    return place


def run(*command, cwd=HERE, **environment):
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def test_spectral_finds_nothing(made):
    run(TOOLS / "spectral", "lint", made / "openapi.json", "--ruleset", ".spectral.yaml", "--fail-severity=warn")


def test_redocly_finds_no_error(made):
    run(TOOLS / "redocly", "lint", made / "openapi.json")


def life(bridge, tmp_path):
    """URL, key and source file for a life."""
    source = bridge.files / f"life-{tmp_path.name}.bin"
    source.write_bytes(bytes(range(256)) * 40)
    return bridge.url, bridge.key(f"life-{tmp_path.name}"[:50].replace("_", "-")), source


def test_a_typescript_client_lives_the_life_of_a_job(made, bridge, tmp_path):
    run(TOOLS / "openapi-typescript", made / "openapi.json", "-o", made / "schema.ts")
    run(TOOLS / "tsc", "-p", "tsconfig.json")
    assert "lived" in run("node", made / "js" / "life.js", *life(bridge, tmp_path))


def test_a_python_client_lives_the_life_of_a_job(made, bridge, tmp_path):
    (made / "config.yaml").write_text(CONFIG)
    said = run(
        PYTHON, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning",
        "--path", made / "openapi.json", "--config", made / "config.yaml", "--output-path", made / "generated",
    )  # fmt: skip
    assert "Warning" not in said
    assert "lived" in run(PYTHON, HERE / "life.py", *life(bridge, tmp_path), PYTHONPATH=str(made))
