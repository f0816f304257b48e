"""Which IP addresses a source may be fetched from: public ones, and networks of the operator's choice.

The bridge judges by the same table (bridge/outgoing/addresses.py there); a test compares both.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

_NOT_PUBLIC_4 = [
    IPv4Network(one)
    for one in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's own services, at a public address
    )
]  # fmt: skip
_UNICAST_6 = IPv6Network("2000::/3")  # nothing outside it is public, nor are mapped and translated IPv4 addresses
_NOT_PUBLIC_6 = [IPv6Network(one) for one in ("2001::/23", "2001:db8::/32", "3fff::/20", "2002::/16")]
_ISATAP = (0x00005EFE, 0x02005EFE)  # the upper half of an interface's ID that holds an IPv4 address


def read_networks(text: str) -> list[Network]:
    """Read networks, comma-separated, such as `10.1.2.0/24,fd00::1`. Raises ValueError."""
    return [ip_network(one.strip(), strict=False) for one in text.split(",") if one.strip()]


def is_allowed(address: str, networks: Sequence[Network] = ()) -> bool:
    """Return whether an IP address is public or in one of these networks."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and ip.scope_id is not None:
        return False
    return any(ip.version == one.version and ip in one for one in networks) or _is_public(ip)


def _is_public(ip: IPv4Address | IPv6Address) -> bool:
    if isinstance(ip, IPv4Address):
        return not any(ip in one for one in _NOT_PUBLIC_4)
    if ip not in _UNICAST_6 or any(ip in one for one in _NOT_PUBLIC_6):
        return False
    return (int(ip) >> 32) & 0xFFFFFFFF not in _ISATAP
