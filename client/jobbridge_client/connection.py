"""What both clients share of a connection: settings, and the mapping of requests and errors to and from httpx2."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2

from jobbridge_client.address import checked, stays_here
from jobbridge_client.errors import BadAnswer, BadFile, BadSetting, BridgeError, Unreachable
from jobbridge_client.steps import Reply, Request, Taker

CONNECT_SECONDS = 10.0
BEYOND_SECONDS = 60.0  # that an answer may take beyond the time allowed for its first byte
ENDLESS = "the answer does not come to its end"


class Settings:
    """What both clients are made with: a checked address and key, and the patience."""

    _KIND: Callable[..., httpx2.Client | httpx2.AsyncClient]

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        patience: float = 60.0,
        allow_http: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Check the settings; raise BadSetting for a wrong one."""
        if patience < 0:
            raise BadSetting("patience: seconds, not below 0")
        self._url, self._patience = checked(url, key, allow_http=allow_http), patience
        # No compression: a small answer must not become a large one.
        headers = {"User-Agent": "jobbridge-client/0.2.0", "Accept": "application/json", "Accept-Encoding": "identity"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._http = self._KIND(
            base_url=self._url,
            headers=headers,
            follow_redirects=False,  # the key is sent nowhere else
            trust_env=not (self._url.startswith("http:") and stays_here(self._url)),  # no proxy for this machine
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            verify=True if tls is None else tls,
        )


def built(http: httpx2.Client | httpx2.AsyncClient, request: Request, content: Any) -> httpx2.Request:
    """Return a request as httpx2 sends it, without the key if it goes to another server. Raises BadAnswer."""
    made = http.build_request(content=content, **_arguments(request))
    if request.away:
        made.headers.pop("Authorization", None)
        if (http.base_url.scheme, made.url.scheme) == ("https", "http"):
            raise BadAnswer("the bridge's store is at an http address, from which the file would come unencrypted")
    return made


def _arguments(request: Request) -> dict[str, Any]:
    headers = dict(request.headers)
    if request.body is not None:
        headers["Content-Length"] = str(request.body.length)
    return {
        "method": request.method,
        "url": request.path,
        "params": request.params or None,
        "headers": headers,
        "timeout": httpx2.Timeout(request.seconds, connect=CONNECT_SECONDS, pool=None),
        **({"json": request.json} if request.json is not None else {}),
    }


def head(response: httpx2.Response) -> Reply:
    """Return an answer without its body. Raises BadAnswer where it is encoded."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise BadAnswer(f"the answer has Content-Encoding {encoding[:50]!r}, which was not asked for")
    return Reply(response.status_code, {name.lower(): value for name, value in response.headers.items()})


class Body:
    """The bytes of an answer that is not a file, at most `limit`."""

    def __init__(self, limit: int) -> None:
        self.data, self._limit = bytearray(), limit

    def begin(self, reply: Reply) -> None:
        """Ignore the head."""

    def take(self, piece: bytes) -> None:
        """Keep the next bytes. Raises BadAnswer."""
        self.data += piece
        if len(self.data) > self._limit:
            raise BadAnswer(f"the answer has more than {self._limit} bytes")


def takers(request: Request, reply: Reply) -> tuple[Taker, Body]:
    """Return what takes the bytes of this answer, and what holds them if they are not the requested file.

    Raises BadAnswer.
    """
    body = Body(request.limit)
    taker: Taker = request.taker if request.taker is not None and reply.status in (200, 206) else body
    taker.begin(reply)
    return taker, body


def told(error: Exception, url: str) -> Exception:
    """Turn an exception of httpx2 or the file system into this package's, with the original as its cause."""
    ours = _told(error, url)
    if ours is not error:
        ours.__cause__ = error
    return ours


def _told(error: Exception, url: str) -> Exception:
    if isinstance(error, httpx2.TimeoutException):
        return Unreachable(f"{url} gave no answer in time")
    if isinstance(error, httpx2.LocalProtocolError | httpx2.InvalidURL):
        return BadSetting(f"the request cannot be sent: {error}")
    if isinstance(error, httpx2.HTTPError | httpx2.StreamError | ssl.SSLError):
        return Unreachable(f"{url} cannot be reached: {error or type(error).__name__}")
    if isinstance(error, OSError) and not isinstance(error, BridgeError):
        return BadFile(f"{error.filename or 'the file'}: {error.strerror or type(error).__name__}")
    return error
