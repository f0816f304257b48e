"""What a request that got no answer is told as: one line, by its deepest known cause."""

from __future__ import annotations

import http.client
import socket
import ssl

import pytest
import requests
import urllib3

from bridge_worker.reasons import why_no_answer


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (socket.gaierror(-2, "Name or service not known"), "the host's name is not known (DNS)"),
        (
            ssl.SSLError("[SSL: WRONG_VERSION_NUMBER] wrong version number"),
            "no TLS there: http:// instead of https://?",
        ),
        (ssl.SSLError("no protocols\navailable"), "TLS: ('no protocols\\navailable',)"),
        (http.client.RemoteDisconnected("closed"), "the connection was closed before an answer came"),
        (ConnectionResetError(104, "Connection reset by peer"), "the connection was reset"),
        (http.client.BadStatusLine("SSH-2.0"), "no HTTP: BadStatusLine SSH-2.0"),
        (OSError(113, "No route to host"), "No route to host"),
        (ValueError("two\nlines"), "ValueError: two lines"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_the_deepest_known_cause_is_told_in_one_line(cause, words):
    carried = requests.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", cause))
    assert why_no_answer(carried) == words
    behind_proxy = requests.exceptions.ProxyError(urllib3.exceptions.ProtocolError("Connection aborted.", cause))
    assert why_no_answer(behind_proxy) == f"{words} (by the proxy: HTTPS_PROXY, HTTP_PROXY, NO_PROXY)"
