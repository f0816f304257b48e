"""Answer pip-audit's OSV queries from a copy of the advisory database on this disk, where the network has none.

    python .ci/advisories.py COPY -- pip-audit …

COPY is a directory, or a zip file, of OSV records (JSON or YAML): a clone of pypa/advisory-database, or PyPI's
`all.zip` of osv.dev. pip-audit is started with `--vulnerability-service osv` and the address of a server on loopback
that lives as long as it does; the exit status is pip-audit's, or 2 where the copy holds no advisory and proves nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from packaging.version import InvalidVersion, Version


def canonical(name: str) -> str:
    """Return a distribution's name as PEP 503 normalizes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def records(copy: Path) -> Iterator[dict[str, Any]]:
    """Yield each record of the copy. Raises zipfile.BadZipFile or yaml.YAMLError for what is not one."""
    if copy.is_file():
        with zipfile.ZipFile(copy) as archive:
            for name in archive.namelist():
                if name.endswith((".json", ".yaml")):
                    yield parsed(name, archive.read(name))
        return
    for path in sorted(copy.rglob("*.*")):
        if path.suffix in (".json", ".yaml") and ".git" not in path.parts:
            yield parsed(path.name, path.read_bytes())


def parsed(name: str, raw: bytes) -> dict[str, Any]:
    """Return the record in a file; empty where the file holds something else."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as quick
    record = json.loads(raw) if name.endswith(".json") else yaml.load(raw, Loader=loader)
    return record if isinstance(record, dict) and "affected" in record else {}


def index(copy: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the records by the canonical name of the PyPI packages that they concern; withdrawn ones are left out."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records(copy):
        if record.get("withdrawn"):
            continue
        for affected in record.get("affected", []):
            package = affected.get("package", {})
            if package.get("ecosystem") == "PyPI" and record not in found[canonical(package["name"])]:
                found[canonical(package["name"])].append(record)
    return found


def concerns(record: dict[str, Any], name: str, version: Version) -> bool:
    """Return whether this version is affected: listed, or inside a range (https://ossf.github.io/osv-schema)."""
    for affected in record["affected"]:
        if canonical(affected.get("package", {}).get("name", "")) != name:
            continue
        if any(_same(listed, version) for listed in affected.get("versions", [])):
            return True
        if any(
            _inside(one.get("events", []), version) for one in affected.get("ranges", []) if one.get("type") != "GIT"
        ):
            return True
    return False


def _same(listed: str, version: Version) -> bool:
    try:
        return Version(listed) == version
    except InvalidVersion:
        return False


def _inside(events: list[dict[str, str]], version: Version) -> bool:
    inside = False
    for event in sorted(events, key=lambda event: Version(next(iter(event.values()))) if event else Version("0")):
        ((kind, at),) = event.items()
        if kind == "introduced" and (at == "0" or version >= Version(at)):
            inside = True
        elif (kind == "fixed" and version >= Version(at)) or (kind == "last_affected" and version > Version(at)):
            inside = False
    return inside


def serve(known: dict[str, list[dict[str, Any]]]) -> ThreadingHTTPServer:
    """Return a server on loopback that answers `POST /v1/query` as api.osv.dev does."""

    class Query(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name, version = canonical(asked["package"]["name"]), Version(asked["version"])
            vulns = [record for record in known.get(name, []) if concerns(record, name, version)]
            answer = json.dumps({"vulns": vulns} if vulns else {}, default=str).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing: pip-audit reports."""

    return ThreadingHTTPServer(("127.0.0.1", 0), Query)


def main(arguments: list[str]) -> int:
    if len(arguments) < 3 or arguments[1] != "--":
        print((__doc__ or "").splitlines()[2].strip(), file=sys.stderr)
        return 2
    copy = Path(arguments[0])
    known = index(copy) if copy.exists() else {}
    if not known:
        print(f"{copy} holds no advisory of a PyPI package", file=sys.stderr)
        return 2
    print(f"advisories: {sum(map(len, known.values()))} of {len(known)} packages in {copy}", file=sys.stderr)
    server = serve(known)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1/query"
    return subprocess.run([*arguments[2:], "--vulnerability-service", "osv", "--osv-url", url], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
