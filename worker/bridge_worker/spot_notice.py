"""Watches for the notice that this machine is about to be taken away: a file, or an address of the cloud's metadata.

An address gives the notice when it answers 200 with anything but FALSE or NONE. This fits AWS
(http://169.254.169.254/latest/meta-data/spot/instance-action: 404 until then, a token where it is asked for) and Google
(http://metadata.google.internal/computeMetadata/v1/instance/preempted: FALSE until then).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import requests

from bridge_worker.client import Unredirected
from bridge_worker.reasons import why_no_answer
from bridge_worker.text import one_line

log = logging.getLogger(__name__)
PERIOD = 5.0  # seconds between two checks, as AWS recommends; its notice comes 120 s before the end, Google's 30 s
TOKEN_SECONDS = 21600
TIMEOUT = (1.0, 2.0)  # seconds to connect and to read: the metadata service is local
NO_NOTICE = ("", "FALSE", "NONE")


class SpotNotice:
    """Checks from `start` until the notice has come or `close` is called."""

    def __init__(self, where: str, on_notice: Callable[[str], object], *, period: float = PERIOD) -> None:
        """Watch `where`, an http address or a file; call `on_notice` once, from another thread, with its text."""
        self._where, self._on_notice, self._period = where, on_notice, period
        self._ended = threading.Event()
        self._token = ""
        self._complained = False
        self._session = Unredirected()
        self._session.trust_env = False  # not through a proxy, which would return another machine's notice

    def start(self) -> None:
        """Start checking, in a thread."""
        threading.Thread(target=self._run, name="spot-notice", daemon=True).start()

    def close(self) -> None:
        """Stop checking."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            if (notice := self._look()) is not None:
                self._on_notice(one_line(notice, 200) or "the file is there")
                return
            self._ended.wait(self._period)

    def _look(self) -> str | None:
        """Return what the notice says, or None while there is none."""
        if not is_address(self._where):
            return "" if Path(self._where).exists() else None
        try:
            status, text = self._get("GET", self._where, self._token)
            if status == 401:
                parts = urlsplit(self._where)
                status, self._token = self._get("PUT", f"{parts.scheme}://{parts.netloc}/latest/api/token", "")
                if status != 200:
                    self._token = ""
                    return None
                status, text = self._get("GET", self._where, self._token)
        except (requests.RequestException, OSError, ValueError) as error:
            if not self._complained:
                log.warning("no spot notice can be seen at %s: %s", one_line(self._where, 200), why_no_answer(error))
            self._complained = True
            return None
        self._complained = False
        return text if status == 200 and text.strip().upper() not in NO_NOTICE else None

    def _get(self, method: str, address: str, token: str) -> tuple[int, str]:
        headers = {"Metadata-Flavor": "Google"}
        if method == "PUT":
            headers["X-aws-ec2-metadata-token-ttl-seconds"] = str(TOKEN_SECONDS)
        elif token:
            headers["X-aws-ec2-metadata-token"] = token
        with self._session.request(
            method, address, headers=headers, timeout=TIMEOUT, allow_redirects=False, stream=True
        ) as answer:
            return answer.status_code, answer.raw.read(4096, decode_content=False).decode("ascii", errors="replace")


def is_address(where: str) -> bool:
    """Return whether the notice comes over HTTP rather than from a file."""
    return where.startswith(("http://", "https://"))
