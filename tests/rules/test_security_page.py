"""docs/security.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()


def test_each_test_that_the_page_names_exists():
    there = {path.name for folder in ("tests", "worker/tests") for path in (ROOT / folder).rglob("test_*.py")}
    named = set(re.findall(r"[\w/]*\b(?:test_\w+|bench/\w+)\.py|\btests/\w+/(?=[ ,|:;])", PAGE))
    assert len(named) > 50
    missing = {one for one in named if not (one in there if "/" not in one else (ROOT / one).exists())}
    assert not missing
