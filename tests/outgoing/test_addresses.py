"""Which addresses may be named and reached: spellings, networks, lists."""

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.outgoing.addresses import network, refusal
from bridge.outgoing.destination import Allowed, BadAddress, Destination, parsed, pattern

ANYWHERE = Allowed.of(["https://*"])

NOT_PUBLIC = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 169.254.169.254 169.254.170.2
172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.19.255.255
198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16 :: ::1 ::127.0.0.1
::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::8.8.8.8 64:ff9b:1::1 100::1 2001::1
2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: 2002:a9fe:a9fe::1 3fff::1
fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0 fec0::1 ff02::1 ff0e::1 5f00::1 4000::1 2a00:1450::5efe:7f00:1
2a00:1450::200:5efe:127.0.0.1 2606:4700::1111%1
"""
PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255
172.15.255.255 172.32.0.0 192.167.255.255 198.17.255.255 198.20.0.0 223.255.255.255 168.63.129.15
2606:4700:4700::1111 2a00:1450:4001::200e 2001:200::1 2001:4860:4860::8888 2003::1
"""


@pytest.mark.parametrize("ip", NOT_PUBLIC.split())
def test_what_is_not_public_is_refused(ip: str) -> None:
    assert refusal(ip) is not None


@pytest.mark.parametrize("ip", PUBLIC.split())
def test_what_is_public_may_be_reached(ip: str) -> None:
    assert refusal(ip) is None


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "0x7f.0.0.1", "017.0.0.1", "1.2.3.4/8", "127.0.0.1\x00"])
def test_what_is_no_address_is_refused(text: str) -> None:
    assert refusal(text) is not None


def test_a_named_network_may_be_reached_and_no_other() -> None:
    also = [network("10.1.0.0/16"), network("fd00:1::/32"), network("127.0.0.1")]
    assert [refusal(ip, also) is None for ip in ("10.1.2.3", "10.2.0.1", "fd00:1::9", "fd00:2::9", "127.0.0.2")] == [
        True, False, True, False, False,
    ]  # fmt: skip
    assert refusal("::ffff:10.1.2.3", also) is not None


SPELLINGS_TEXT = """
https://127.0.0.1/ https://127.1/ https://127.0.1/ https://2130706433/ https://0x7f000001/ https://0x7f.0.0.1/
https://0177.0.0.1/ https://017700000001/ https://127.0.0.01/ https://0/ https://1.2.3.4.5/ https://256.1.1.1/
https://[::1]/ https://[::ffff:127.0.0.1]/ https://[::ffff:7f00:1]/ https://[0:0:0:0:0:ffff:7f00:0001]/
https://[64:ff9b::7f00:1]/ https://[fe80::1%25eth0]/ https://[fe80::1%eth0]/ https://[v1.x]/ https://[]/
https://[::1/ https://[1::2::3]/ https://[2002:7f00:1::]/ https://169.254.169.254/latest/meta-data https://[fd00:ec2::254]/
https://localhost/ https://LOCALHOST/ https://localhost./ https://a.localhost/ https://metadata/
https://db.internal/ https://metadata.google.internal/ https://printer.local/ https://router.home.arpa/
https://nas.lan/ https://user@example.org/ https://user:pass@example.org/ https://example.org@127.0.0.1/
https://127.0.0.1#@example.org/ https://example.org#frag https://example.org\\@127.0.0.1/ https:\\\\127.0.0.1
https:/127.0.0.1 https:example.org //example.org/ example.org http://example.org/ ftp://example.org/
file:///etc/passwd gopher://example.org/ HTTPS://example.org/ unix:///x https://example.org:0/
https://example.org:65536/ https://example.org:22/ https://example.org:80/ https://example.org:8443/
https://example.org:/ https://example.org:4a3/ https://-a.example.org/ https://a..example.org/ https://.example.org/
https://example.org./ https://ex%61mple.org/ https://127.0.0.1%2f.example.org/ https://１２７.0.0.1/ https://ⓛocalhost/
https://exämple.org/ https://example。org/ https:// https:///x https://?x https://example.org/../x
https://example.org/%2e%2e/x https://example.org/%252e%252e/x https://example.org/a/.%2E/b
https://example.org/..%5cx
"""
SPELLINGS = [*SPELLINGS_TEXT.split(), "https://example.org/a\x00b", "https://example.org/\r\nHost:x",
             "https://example.org/ x", " https://example.org", "https://example.org\n"]  # fmt: skip


@pytest.mark.parametrize("url", SPELLINGS)
def test_odd_and_inner_addresses_are_refused_without_a_look_up(url: str) -> None:
    with pytest.raises(BadAddress):
        ANYWHERE.destination(url)


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(0, 2**32 - 1), st.sampled_from(["{}", "0x{:x}", "0{:o}", "0X{:X}"]))
def test_no_number_is_a_host(number: int, form: str) -> None:
    with pytest.raises(BadAddress):
        ANYWHERE.destination(f"https://{form.format(number)}/")


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(max_size=40))
def test_what_is_taken_apart_names_one_host(rest: str) -> None:
    """Whatever follows the scheme: what is not refused is read as a strict reader reads it."""
    try:
        to = parsed(f"https://{rest}")
    except BadAddress:
        return
    assert to.target.startswith("/")
    assert to.target.isascii()
    assert to.target.isprintable()
    assert " " not in to.target
    head = rest.split("/")[0].split("?")[0].lower()
    assert head in (to.host, f"[{to.host}]", f"{to.host}:{to.port}") or "[" in head or head.endswith(f":0{to.port}")


def test_an_address_is_taken_apart() -> None:
    assert parsed("https://Hooks.Example.org") == Destination("https", "hooks.example.org", 443, "/")
    assert parsed("http://[2A00::1]:8080/a?b=%20/..") == Destination("http", "2a00::1", 8080, "/a?b=%20/..")
    assert parsed("http://[2A00::1]:8080/").authority == "[2a00::1]:8080"
    assert parsed("https://example.org?x").target == "/?x"
    assert parsed("https://example.org:443/").authority == "example.org"
    with pytest.raises(BadAddress, match="2048"):
        parsed("https://example.org/" + "a" * 2048)


@pytest.mark.parametrize(("entry", "url", "may"), [
    ("https://*", "https://a.example.org/x", True),
    ("https://*", "https://a.example.org:8443/x", False),
    ("https://*:*", "https://a.example.org:8443/x", True),
    ("https://example.org", "https://example.org/any/path?x", True),
    ("https://example.org", "https://a.example.org/", False),
    ("https://example.org", "https://example.org.evil.net/", False),
    ("https://*.example.org", "https://a.b.example.org/", True),
    ("https://*.example.org", "https://example.org/", False),
    ("https://*.example.org", "https://evilexample.org/", False),
    ("https://example.org/hooks", "https://example.org/hooks/1", True),
    ("https://example.org/hooks", "https://example.org/hooks", True),
    ("https://example.org/hooks/", "https://example.org/hooks/1", True),
    ("https://example.org/hooks", "https://example.org/hooksandmore", False),
    ("https://example.org/hooks", "https://example.org/?x=/hooks", False),
    ("http://pipeline:8080", "http://pipeline:8080/", True),
    ("http://pipeline:8080", "http://pipeline/", False),
    ("http://pipeline:8080", "https://pipeline:8080/", False),
])  # fmt: skip
def test_the_list_says_what_may_be_reached(entry: str, url: str, may: bool) -> None:
    try:
        Allowed.of([entry]).destination(url)
    except BadAddress:
        assert not may
    else:
        assert may


def test_networks_are_for_named_hosts_alone() -> None:
    loopback = [network("127.0.0.0/8")]
    assert Allowed.of(["http://127.0.0.1:*"], loopback).destination("http://127.0.0.1:9/")[1] == tuple(loopback)
    with pytest.raises(BadAddress):
        Allowed.of(["http://*:*"], loopback).destination("http://127.0.0.1:9/")
    with pytest.raises(BadAddress, match="switched off"):
        Allowed.of(["off"]).destination("https://example.org/")


@pytest.mark.parametrize("entry", ["", "*", "example.org", "ftp://x", "https://a*b.org", "https://*.*", "https://x?y",
                                   "https://u@x.org", "off"])  # fmt: skip
def test_an_entry_that_is_none_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="'"):
        pattern(entry)


def test_the_systems_resolver_reads_no_host_that_was_refused_as_public() -> None:
    """Our grammar against the C library's: what it takes for an IPv4 address is a dotted one of ours, or refused."""
    for host in ("127.1", "0x7f.1", "0177.0.0.1", "2130706433", "127.0.0.1"):
        assert socket.inet_aton(host)[0] == 127
        with pytest.raises(BadAddress):
            ANYWHERE.destination(f"https://{host}/")
