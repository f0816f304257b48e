"""The worker, a distribution of its own, judges addresses as the bridge does, and by the client where a file may be."""

import random
from ipaddress import IPv4Address, IPv6Address

import pytest
import requests

from bridge.outgoing import addresses
from bridge_worker import public_addresses
from jobbridge_client.address import is_address

LONG = "a" * 63


def edges() -> list[str]:
    """Return the first and last address of every network in either table, and their neighbours."""
    networks: list[public_addresses.Network] = [addresses._UNICAST_6]
    for room in (addresses, public_addresses):
        networks += [*room._NOT_PUBLIC_4, *room._NOT_PUBLIC_6]
    found = []
    for network in networks:
        kind, most = type(network.network_address), 2**network.max_prefixlen
        for place in (int(network.network_address), int(network.broadcast_address)):
            found += [str(kind(near)) for near in (place - 1, place, place + 1) if 0 <= near < most]
    return found


def test_the_worker_judges_as_the_bridge_does():
    some = random.Random(7)
    asked = edges()
    asked += [str(IPv4Address(some.getrandbits(32))) for _ in range(2000)]
    asked += [str(IPv6Address((some.getrandbits(125)) | 1 << 125)) for _ in range(2000)]
    asked += ["2001:4860::5efe:a00:1", "2001:4860::200:5efe:a00:1", "fe80::1%eth0", "::ffff:8.8.8.8", "127.1", "x", ""]
    judged = {one: addresses.refusal(one) is None for one in asked}
    assert {one: public_addresses.is_allowed(one) for one in asked} == judged
    assert set(judged.values()) == {True, False}


@pytest.mark.parametrize("place", [
    "a", "a.", "a_b.c-d", "a:1", "a:65535", "127.0.0.1:80", "127.1", "2130706433", "0x7f.1", "[::1]", "[::1]:443",
    "1.2.3.a", f"{LONG}.{LONG}",
])  # fmt: skip
def test_a_redirect_may_name_any_host_and_port_that_there_may_be(place):
    for address in (f"https://{place}", f"https://{place}/", f"https://{place}/a:0/%zz?b=@:99999#c"):
        assert is_address(address)
        requests.Request("GET", address).prepare()  # who asks by it says the same


@pytest.mark.parametrize("place", [
    "a:0", "a:00000", "a:65536", "a:99999", "a:100000", "a:-1", "a:+1", "a:1x", "a:x", "a::1", ":80", ".", "..", "a..b",
    ".a", f"{LONG}a.b", "1.2.3.256", "1.2.3.4.5", "4294967296", "0x1ffffffff", "[", "[]", "[::", "::1", "[::g]",
    "[1.2.3.4]", "[fe80::1%25eth0]", "[::1]a", "a%41", "a\\b", "a,b", "a*", "<a>", "a|b", "u@a", "a:b@127.0.0.1",
    "[::1:2",
])  # fmt: skip
def test_a_redirect_to_where_no_connection_can_be_made_names_no_file(place):
    for address in (f"https://{place}", f"http://{place}/x", f"https://{place}?x"):
        assert not is_address(address)


@pytest.mark.parametrize("address", ["", "/elsewhere", "//x/y", "ftp://x/y", "https://"])
def test_a_redirect_to_no_address_names_no_file(address):
    assert not is_address(address)
