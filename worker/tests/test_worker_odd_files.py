"""Odd files through the reference handlers, in a handler's process with its sandbox: each has the expected outcome."""

from __future__ import annotations

import json
import os
import shutil
import time
from importlib.util import find_spec

import pytest
from converting_one import convert, job_of, ready
from odd_files import FILES
from odd_material import docx_with

from bridge_worker import platforms
from bridge_worker.process import Setup

pytestmark = pytest.mark.skipif(
    not all(find_spec(name) for name in ("markitdown", "pocketsphinx")), reason="needs the handlers' libraries"
)
OURS = "bridge_worker.handlers"
HANDLERS = {"document": f"{OURS}.documents:handle", "web": f"{OURS}.web:handle", "audio": f"{OURS}.speech:handle",
            "video": f"{OURS}.video:handle"}  # fmt: skip
SECONDS = 120  # a deadline that none of them may need


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    with ready(Setup(HANDLERS, sandbox=True, memory=3 << 30), tmp_path_factory.mktemp("odd") / "process") as started:
        yield started


@pytest.mark.parametrize("name", FILES)
def test_an_odd_file_has_the_outcome_its_owner_expects(process, name):
    kind, make, expected, part = FILES[name]
    if any(word in part for word in ("OCR", "Bridge closed", "picture cannot", "Scanned")) and not shutil.which(
        "tesseract"
    ):
        pytest.skip("needs tesseract")
    held = job_of(kind, name)
    held.deadline = time.monotonic() + SECONDS
    outcome, result = convert(process, make(), held)
    if expected == "refused":
        assert outcome.kind == "file", (outcome, result)  # never tried again
        assert part in outcome.text
        assert name in outcome.text  # the owner knows which
        return
    assert outcome.kind == "result", outcome
    assert "root:x:0" not in result["content"]  # /etc/passwd
    assert len(json.dumps(result)) < 16 << 20
    if expected == "text":
        assert part in result["content"]
    else:
        assert part in " ".join(result["metadata"]["warnings"])


def test_there_are_over_a_hundred():
    assert len(FILES) >= 100


def test_the_sandbox_lets_nothing_out(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("not for handlers")
    setup = Setup({"document": "conversions:escape"}, {"secret": f"at {secret}"}, sandbox=True)
    with ready(setup, tmp_path / "process") as process:
        outcome, result = convert(process, b"x", job_of("document", "x.txt"))
    assert outcome.kind == "result"
    reached = json.loads(result["content"])
    if os.uname().sysname != "Linux":
        pytest.skip("only Linux has a sandbox")
    assert reached.pop("network") in ("OSError", "PermissionError")
    if platforms._libc().syscall(444, None, 0, 1) < 6:  # Landlock's version: an older one lets signals out
        assert reached.pop("signal") == "ok"
    allowed = {name for name, came in reached.items() if came == "ok"}
    assert allowed == {"own file", "own temporary file"}
    assert {came for name, came in reached.items() if name not in allowed} == {"PermissionError"}


def test_a_small_document_that_takes_minutes_is_one_failure(tmp_path):
    words = b"<w:p><w:r><w:t>word </w:t></w:r></w:p>" * 50_000
    data = docx_with(lambda name, old: old.replace(b"<w:body>", b"<w:body>" + words) if "document.xml" in name else old)
    assert len(data) < 100_000
    setup = Setup({"document": HANDLERS["document"]}, sandbox=True, cpu_seconds=1)
    with ready(setup, tmp_path / "process") as process:
        outcome, _ = convert(process, data, job_of("document", "minutes.docx"))
    assert outcome.kind == "cpu"
    assert "of CPU time" in outcome.text
