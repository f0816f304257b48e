"""The worker, a distribution of its own, judges addresses of sources as the bridge does."""

import random
from ipaddress import IPv4Address, IPv6Address

from bridge.outgoing import addresses
from bridge_worker import public_addresses


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
