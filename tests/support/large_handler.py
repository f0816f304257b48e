"""A handler whose result is as large as `--option mib=N` says, with 500 artifacts."""

import hashlib
from pathlib import Path

from bridge_worker import Job, Result

PIECE = "".join(f"Größe {number} ✓\n" for number in range(50_000)).encode()
ARTIFACTS = 500


def pieces(mib: int) -> int:
    """Return how many times PIECE the text is."""
    return mib * 2**20 // len(PIECE)


def page(number: int) -> tuple[str, bytes]:
    """Return an artifact's name and content."""
    return f"page-{number:04}.png", hashlib.shake_256(str(number).encode()).digest(20_000)


def handle(job: Job, path: Path) -> Result:
    """Write the text and the artifacts; return them as files."""
    with (path.parent / "text").open("wb") as text:
        for _ in range(pieces(int(job.options["mib"]))):
            text.write(PIECE)
    artifacts: dict[str, str | bytes] = {}
    for number in range(ARTIFACTS):
        name, content = page(number)
        if number % 2:
            artifacts[name] = content
        else:
            (path.parent / name).write_bytes(content)
            artifacts[name] = str(path.parent / name)
    return Result(path=str(path.parent / "text"), artifacts=artifacts)
