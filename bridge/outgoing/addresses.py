"""Which IP addresses may be connected to: those of the public internet, and networks that the operator has named."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

# Addresses that do not lead to one host on the internet: but to this machine, its networks, a cloud's own services, to
# many hosts, or to none (IANA's special-purpose registries).
_NOT_PUBLIC_4 = [
    IPv4Network(one)
    for one in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's own services, at a public address
    )
]  # fmt: skip
# All public IPv6 addresses are in here. Outside are loopback, mapped and compatible IPv4, NAT64 (64:ff9b::), unique
# local (fc00::/7), link-local and multicast addresses.
_UNICAST_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = [
    IPv6Network(one)
    for one in (
        "2001::/23",  # protocol assignments, Teredo's tunnels among them
        "2001:db8::/32", "3fff::/20",  # examples
        "2002::/16",  # 6to4, which leads to the IPv4 address in it
    )
]  # fmt: skip
_ISATAP = (0x00005EFE, 0x02005EFE)  # the upper half of an interface's ID that holds an IPv4 address


def refusal(address: str, also: Sequence[Network] = ()) -> str | None:
    """Return why this address is not connected to, as a part of a sentence; None if it may be.

    `also`: networks that may be connected to, public or not. Raises nothing: what is not an address is refused.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return f"{address[:100]} is not an IP address"
    if isinstance(ip, IPv6Address) and ip.scope_id is not None:
        return f"{address[:100]} is an address of one link"
    if any(ip.version == network.version and ip in network for network in also) or _is_public(ip):
        return None
    return f"{ip} is not a public address"


def network(text: str) -> Network:
    """Parse a network, such as `10.0.0.0/8`, or a single address. Raises ValueError."""
    return ip_network(text, strict=False)


def _is_public(ip: IPv4Address | IPv6Address) -> bool:
    if isinstance(ip, IPv4Address):
        return not any(ip in one for one in _NOT_PUBLIC_4)
    if ip not in _UNICAST_6 or any(ip in one for one in _NOT_PUBLIC_6):
        return False
    return (int(ip) >> 32) & 0xFFFFFFFF not in _ISATAP
