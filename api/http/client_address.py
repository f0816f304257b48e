"""Where a request comes from, behind trusted proxies and no others."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

IPV6_SITE = 64  # one customer has at least a /64: all addresses in it count as one


def trusts(peer: str, trusted: Iterable[str]) -> bool:
    """Return whether this is the address of a trusted proxy."""
    address = _parsed(peer)
    return address is not None and any(address in ip_network(one, strict=False) for one in trusted)


def real_address(peer: str, forwarded: str, trusted: Iterable[str]) -> str:
    """Return the client's address: the peer, or the last in `X-Forwarded-For` that is not a trusted proxy's.

    An IPv6 address is given as its /64 network.
    """
    networks = [ip_network(one, strict=False) for one in trusted]
    address = _parsed(peer)
    for hop in reversed(forwarded.split(",")) if forwarded else ():
        if address is None or not any(address in network for network in networks):
            break
        nearer = _parsed(hop.strip())
        if nearer is None:
            break
        address = nearer
    if address is None:
        return "unknown"
    if isinstance(address, IPv6Address):
        return str(ip_network((address, IPV6_SITE), strict=False))
    return str(address)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
