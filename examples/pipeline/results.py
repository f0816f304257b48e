"""Fetches the text and the files of a result that an outcome only names, resuming where a connection broke.

`text_of(outcome)`, `artifacts_of(outcome)`, `keep(url, sha256, directory)`, `save(url, sha256, path)`. This module is
meant to be copied; standard library alone.

Environment: PIPELINE_BRIDGE_URL, PIPELINE_BRIDGE_KEY (a key with scope read or submit).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO

TIMEOUT = 60  # seconds without a byte
TRIES = 5  # without a byte of progress
PIECE = 256 * 1024


class Broken(OSError):
    """What came is not what the outcome names, or nothing came: try again later."""


def text_of(outcome: dict[str, Any]) -> str | None:
    """Return the text of an outcome, wherever it is; in memory, so use `keep` for one of gigabytes.

    Raises OSError (such as urllib's and Broken) if the bridge does not send it.
    """
    if not outcome.get("result_url"):
        text: str | None = outcome.get("content")
        return text
    with tempfile.TemporaryFile() as file:
        fetch(outcome["result_url"], outcome["result_sha256"], file)
        file.seek(0)
        return file.read().decode()


def artifacts_of(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    """Return `name`, `url`, `size`, `media_type` and `sha256` of each artifact: an outcome names the first 100.

    Raises OSError.
    """
    named: list[dict[str, Any]] = list(outcome.get("artifacts") or ())
    if len(named) >= (outcome.get("artifacts_count") or 0):
        return named
    place, cursor = f"/api/v1/remote-jobs/{outcome['job_id']}/artifacts", None
    named = []
    while cursor or not named:
        query = {"limit": "500", **({"cursor": cursor} if cursor else {})}
        with _asked(f"{place}?{urllib.parse.urlencode(query)}", {}) as answer:
            page = json.load(answer)
        named += [{**one, "url": f"{place}/{urllib.parse.quote(one['name'], safe='')}"} for one in page["items"]]
        cursor = page["next_cursor"]
        if not page["items"]:
            break
    return named


def keep(url: str, sha256: str, directory: Path) -> Path:
    """Fetch `result_url`, or the `url` of an artifact, into a directory unless it is there; its digest is its name.

    Raises OSError; ValueError for what is no digest.
    """
    path = directory / bytes.fromhex(sha256).hex()
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        save(url, sha256, path)
    return path


def save(url: str, sha256: str, path: Path) -> None:
    """Fetch `result_url`, or the `url` of an artifact, into a file, atomically.

    Choose `path` yourself: an artifact's name comes from a worker. Raises OSError.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w+b") as file:
            fetch(url, sha256, file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def fetch(url: str, sha256: str, file: BinaryIO) -> None:
    """Write what is at a path of the bridge to an empty file. Raises OSError."""
    left, digest, why = TRIES, hashlib.sha256(), ""
    while True:
        at, whole = file.tell(), False
        try:
            whole = _go_on(url, file, digest)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise
        except (http.client.HTTPException, OSError) as error:
            why = str(error) or type(error).__name__  # the bytes that came are kept
        if whole:
            break
        left = TRIES if file.tell() > at else left - 1
        if not left:
            raise Broken(f"{url} does not come: {why}")
        time.sleep(1)
    if digest.hexdigest() != sha256:
        raise Broken(f"{url}: other bytes came than were named")


def _go_on(url: str, file: BinaryIO, digest: Any) -> bool:
    """Append the missing bytes; return whether the file is complete."""
    at = file.tell()
    headers = {"Accept": "text/plain", **({"Range": f"bytes={at}-"} if at else {})}
    with _asked(url, headers) as answer:
        if at and answer.status != 206:
            raise Broken(f"{url}: it cannot be gone on with")
        size = at + int(answer.headers["Content-Length"])
        while piece := answer.read(PIECE):
            file.write(piece)
            digest.update(piece)
    return file.tell() == size


def _asked(url: str, headers: dict[str, str]) -> Any:
    """Return the bridge's answer to a GET of one of its paths."""
    base, key = os.environ.get("PIPELINE_BRIDGE_URL"), os.environ.get("PIPELINE_BRIDGE_KEY")
    if not base or not key:
        raise Broken("set PIPELINE_BRIDGE_URL and PIPELINE_BRIDGE_KEY: the outcome names a text that is there")
    headers = {"Authorization": f"Bearer {key}", **headers}
    return urllib.request.urlopen(urllib.request.Request(base.rstrip("/") + url, headers=headers), timeout=TIMEOUT)
