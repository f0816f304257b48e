"""Sources at addresses: a job names an https address, or an object of a bucket (bridge/jobs/bucket_sources.py), in
place of a path.

The address is checked when the job is created, without DNS. Its server is asked only for a download, when the address
is checked again, looked up and connected to (bridge/outgoing); the bytes go through the bridge and are kept nowhere.
"""

import re
from functools import cache, partial
from typing import NamedTuple
from urllib.parse import unquote

import gevent

from bridge.blobs.content import LINK_SECONDS
from bridge.caller import Caller
from bridge.errors import Invalid, NotFound, Unavailable
from bridge.jobs.bucket_sources import is_object, link_to_object, look_at_object, place_of
from bridge.jobs.look_ups import look_ups
from bridge.outgoing.addresses import network
from bridge.outgoing.connect import NotSent
from bridge.outgoing.destination import Allowed, BadAddress
from bridge.outgoing.fetch import Fetched, fetch
from bridge.runtime import Runtime
from bridge.settings import Settings

SCHEME = "https://"
OPEN_SECONDS = 50.0  # until the head is there: the look-up, TLS (which a server can draw out) and 30 s for the answer
LONGEST_NAME = 255
BRIDGE, WORKER = FETCHES = "bridge", "worker"  # who asks the source's server
_OFF = "Sources at addresses are off at this bridge; its operator can name hosts in BRIDGE_SOURCE_ALLOW."
_PASSES = {408, 425, 429}  # refusals that may not last
_NUMBER = "[0-9]{1,18}"


class Part(NamedTuple):
    """What a source's server gives: `served` of `size` bytes; its `etag` (strong, without quotes) and its date."""

    fetched: Fetched
    served: range
    size: int
    etag: str | None
    modified: str | None


class OutsideFile(Exception):
    """The requested range is outside the file; `size` in bytes if the server states it."""

    def __init__(self, size: int | None) -> None:
        super().__init__()
        self.size = size


def is_remote(path: str) -> bool:
    """Return whether this names an address or an object, not a path."""
    return path.startswith(SCHEME) or is_object(path)


def check_remote(settings: Settings, url: str) -> None:
    """Check that a new job may name this address. Raises Invalid."""
    if (why := why_refused(settings, url)) is not None:
        raise Invalid({"source_url": [why]})


def fetched_by(settings: Settings, asks: Caller, path: str, fetch: str | None) -> str | None:
    """Decide who asks the source's server for a new job: WORKER, or None for the bridge. Raises Invalid.

    What the key says counts where the job does not, and while the operator allows it.
    """
    check_fetch(settings, fetch)
    if fetch is None and settings.source_worker_fetch and is_remote(path):
        fetch = asks.source_fetch
    return None if fetch == BRIDGE else fetch


def check_fetch(settings: Settings, fetch: str | None) -> None:
    """Check that a new job, or a key's, may have its worker ask the source's server. Raises Invalid."""
    if fetch == WORKER and not settings.source_worker_fetch:
        raise Invalid({"source_fetch": ["This bridge fetches sources itself (BRIDGE_SOURCE_WORKER_FETCH is off)."]})


def why_refused(settings: Settings, url: str) -> str | None:
    """Return why this address may not be asked, as a sentence; None if it may, as far as can be told without DNS."""
    if not settings.source_allow:
        return _OFF
    try:
        if is_object(url):
            place_of(settings, url)
        else:
            allowed_addresses(settings).destination(url)
    except BadAddress as why:
        return str(why)
    return None


def remote_name(url: str, otherwise: str) -> str:
    """Return the file's name: the last part of the address' path, decoded, or of a key; unprintables are replaced."""
    last = url.rpartition("/")[2]
    if not is_object(url):
        last = unquote(url.partition("?")[0].removeprefix(SCHEME).partition("/")[2].rpartition("/")[2])
    shown = "".join(one if one.isprintable() else "\ufffd" for one in re.split(r"[/\\]", last)[-1])
    return shown[-LONGEST_NAME:] or otherwise


def without_query(path: str) -> str:
    """Return a source as it may be shown: without the query of an address, which may be what grants access."""
    return path.partition("?")[0] if path.startswith(SCHEME) else path


def open_remote(
    runtime: Runtime, tenant: str, url: str, asked: str | None, if_range: str | None, *, seconds: float = OPEN_SECONDS
) -> Part:
    """Ask the server of a tenant's source, for a range if one is given, within `seconds`. To be closed.

    Raises NotFound, which no retry changes; Unavailable; OutsideFile.
    """
    headers = {} if asked is None else {"Range": asked}
    if asked is not None and if_range is not None:
        headers["If-Range"] = if_range
    try:
        with gevent.Timeout(seconds, NotSent(f"No answer within {seconds:.0f} s.")):
            fetched = fetch(allowed_addresses(runtime.settings), url, headers, ask=partial(look_ups(), tenant))
    except BadAddress as why:
        raise _refused(str(why)) from None
    except NotSent as why:
        raise Unavailable(f"The source's server cannot be reached. {why} Send the request again.") from None
    try:
        return _judged(fetched, asked, runtime.settings.upload_max_bytes)
    except BaseException:
        fetched.close()
        raise


def address_for_worker(runtime: Runtime, url: str) -> str:
    """Return an address at which a worker asks for the source by itself: this one, checked again without DNS.

    The address of an object is signed for LINK_SECONDS, after a look at it. Raises NotFound, Unavailable.
    """
    if is_object(url):
        return link_to_object(runtime, look_at_object(runtime, url), LINK_SECONDS)
    if (why := why_refused(runtime.settings, url)) is not None:
        raise _refused(why)
    return url


def _judged(fetched: Fetched, asked: str | None, most: int) -> Part:
    status, headers = fetched.status, fetched.headers
    if status == 416 and asked is not None:
        whole = re.fullmatch(rf"bytes \*/({_NUMBER})", headers.get("Content-Range", ""))
        raise OutsideFile(int(whole[1]) if whole else None)
    if status >= 500 or status in _PASSES:
        raise Unavailable(f"The source's server answers {status}; send the request again.")
    if 300 <= status < 400:
        raise _refused(f"Its server answers {status}, and redirects are not followed: name where the file is.")
    if status not in (200, 206):
        raise _refused(f"Its server answers {status}.")
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise _refused("Its server sends it encoded, which was not asked for.")
    length = headers.get("Content-Length", "")
    if "Transfer-Encoding" in headers or not re.fullmatch(_NUMBER, length):
        raise _refused("Its server does not tell its size (Content-Length), without which a gap in it is not seen.")
    served, size = range(int(length)), int(length)
    if status == 206:
        served, size = _range(headers.get("Content-Range", ""), asked)
        if len(served) != int(length):
            raise _refused("Its server answers a range with another one.")
    if size > most:
        raise _refused(f"It has {size} bytes; BRIDGE_UPLOAD_MAX_BYTES allows {most}.")
    etag = re.fullmatch(r'"([\x21\x23-\x7e]{1,200})"', headers.get("ETag", "").strip())
    return Part(fetched, served, size, etag[1] if etag else None, headers.get("Last-Modified"))


def _range(told: str, asked: str | None) -> tuple[range, int]:
    """Return the bytes that a 206 holds, and the size of the whole. Raises NotFound unless they are those asked for."""
    found = re.fullmatch(rf"bytes ({_NUMBER})-({_NUMBER})/({_NUMBER})", told)
    wanted = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", asked or "")
    if found is not None and wanted is not None:
        first, last, size = (int(one) for one in found.groups())
        wanted_first = int(wanted[1]) if wanted[1] else max(0, size - int(wanted[2]))
        wanted_last = min(int(wanted[2]), size - 1) if wanted[1] and wanted[2] else size - 1
        if (first, last) == (wanted_first, wanted_last) and first <= last:
            return range(first, last + 1), size
    raise _refused("Its server answers a range with another one.")


def _refused(why: str) -> NotFound:
    return NotFound(f"The source cannot be had at its address, and asking again will not help. {why}")


def allowed_addresses(settings: Settings) -> Allowed:
    """Return what BRIDGE_SOURCE_ALLOW allows of addresses, without the buckets that it names."""
    return _allowed(settings.source_allow, settings.source_networks)


@cache  # the settings of a process do not change
def _allowed(patterns: tuple[str, ...], networks: tuple[str, ...]) -> Allowed:
    return Allowed.of([one for one in patterns if not is_object(one)], [network(one) for one in networks])
