"""Downloads whose bytes nginx sends (BRIDGE_ACCEL_REDIRECT_PREFIX); who may have which file is decided here.

nginx serves the path in X-Accel-Redirect from an internal location that no client can request (docs/operations.md),
and answers ranges and conditions from the file. Only requests from a trusted proxy are served like this: everybody else
is sent the bytes.
"""

import os
from datetime import UTC, datetime
from urllib.parse import quote

from flask import Response, request

from api.http.byte_range import asked_range, still_the_same
from api.http.bytes_response import attachment
from api.http.client_address import trusts
from bridge.jobs.source_files import open_source, place_of, source_name
from bridge.runtime import Runtime


def accelerates(runtime: Runtime) -> bool:
    """Return whether the request comes from a proxy that sends files itself."""
    peer = request.remote_addr or ""
    return runtime.settings.accel_redirect_prefix is not None and trusts(peer, runtime.settings.trusted_proxies)


def redirected(runtime: Runtime, path: str) -> Response:
    """Return the answer that nginx turns into the download. Raises NotFound, Unavailable, 416."""
    root, below, seen = runtime.files(_look, runtime, path)
    # As nginx computes it. A range outside the file is refused here, as a problem; nginx would send an HTML page.
    etag = f"{int(seen.st_mtime):x}-{seen.st_size:x}"
    if still_the_same(request.headers.get("If-Range"), etag, seen.st_mtime):
        asked_range(request.headers.get("Range"), seen.st_size)
    response = Response(mimetype="application/octet-stream")
    response.set_etag(etag)
    response.last_modified = datetime.fromtimestamp(int(seen.st_mtime), UTC)
    response.headers["Content-Disposition"] = attachment(source_name(path))
    response.headers["X-Accel-Redirect"] = f"{runtime.settings.accel_redirect_prefix}/{root}/{quote(below)}"
    return response


def _look(runtime: Runtime, path: str) -> tuple[int, bytes, os.stat_result]:
    """Return the file's root, its path below the root and its stat; opening it proves that it can be read."""
    with open_source(path, runtime.settings.source_roots) as file:
        seen = os.fstat(file.fileno())
    return *place_of(path, runtime.settings.source_roots), seen
