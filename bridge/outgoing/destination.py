"""An address that a stranger has named, taken apart once, and checked against the list of what may be reached.

Nothing takes it apart a second time: what was checked is what is connected to. So the grammar is narrow, and refuses
what programs read in different ways: user names, backslashes, dot segments, odd spellings of IPv4 addresses.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv6Address
from typing import NamedTuple
from urllib.parse import unquote

from bridge.outgoing.addresses import Network, refusal

LONGEST = 2048  # characters of an address
OFF = "off"
PORTS = {"https": 443, "http": 80}

_GRAMMAR = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?)"
)
_NAME = re.compile(r"([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_DOTTED = re.compile(r"((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.(?!$)|$)){4}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # as the last label: the whole is an IPv4 address, in whatever spelling
# Names that lead to no public address wherever they are asked for; without a dot they are those of a local network.
_LOCAL_NAMES = (".localhost", ".local", ".internal", ".lan", ".intranet", ".home.arpa")


class BadAddress(ValueError):
    """It is not an address, or may not be reached; the text says why, in a sentence."""


class Destination(NamedTuple):
    """An address: `host` is a name in lower case or an IP address without brackets, `target` path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def is_ip(self) -> bool:
        return ":" in self.host or _DOTTED.fullmatch(self.host) is not None

    @property
    def authority(self) -> str:
        """Return what a request names in `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def parsed(url: str) -> Destination:
    """Take an address apart. Raises BadAddress."""
    if len(url) > LONGEST:
        raise BadAddress(f"Must have at most {LONGEST} characters.")
    found = _GRAMMAR.fullmatch(url)
    if found is None:
        raise BadAddress(
            "Must be an http(s) address in ASCII, such as https://hooks.example.org/path, without user and fragment."
        )
    scheme, host, port, target = found.group("scheme", "host", "port", "target")
    if not 1 <= (number := PORTS[scheme] if port is None else int(port)) <= 65535:
        raise BadAddress("The port must be 1 to 65535.")
    if not target.startswith("/"):
        target = f"/{target}"
    path = unquote(target.partition("?")[0])
    if any(segment in (".", "..") for segment in re.split(r"[/\\]", unquote(path))):
        raise BadAddress("The path must have no segments . and ...")
    return Destination(scheme, _host(host), number, target)


def receiver_of(url: str) -> str:
    """Return host and port of an address, as `webhooks.receiver` has them: its path may be secret, and is not shown."""
    return re.split(r"[/?]", url.partition("://")[2], maxsplit=1)[0].lower()


def _host(host: str) -> str:
    if host.startswith("["):
        try:
            return str(IPv6Address(host[1:-1]))
        except ValueError:
            raise BadAddress("The host is not an IPv6 address.") from None
    host = host.lower()
    if _NUMBER.fullmatch(host.rsplit(".", 1)[-1]):
        if not _DOTTED.fullmatch(host):
            raise BadAddress("The host must be a name, or an IPv4 address in four decimal numbers.")
        return host
    if not _NAME.fullmatch(host):
        raise BadAddress("The host is not a name; write international names as punycode (xn--…), without a final dot.")
    return host


class Pattern(NamedTuple):
    """What may be reached: `host` is a name, `*.` and a suffix, or `*`; a port of None is any."""

    scheme: str
    host: str
    port: int | None
    path: str

    def matches(self, to: Destination) -> bool:
        """Return whether an address is one of these."""
        suffix = self.host[1:] if self.host.startswith("*.") else None
        named = self.host in ("*", to.host) or (suffix is not None and to.host.endswith(suffix))
        path = to.target.partition("?")[0]
        below = path == self.path or path.startswith(f"{self.path.rstrip('/')}/")
        return to.scheme == self.scheme and self.port in (None, to.port) and named and below


def pattern(text: str) -> Pattern:
    """Parse an entry, such as `https://*.example.org` or `http://10.1.2.3:8080/hooks`. Raises ValueError."""
    any_port = re.fullmatch(r"(https?://[^/]+):\*(/.*)?", text)
    plain = f"{any_port.group(1)}{any_port.group(2) or ''}" if any_port else text
    starred = re.fullmatch(r"(https?://)(\*\.|\*(?=[:/]|$))(.*)", plain)
    try:
        if starred is None:
            scheme, host, port, path = parsed(plain)
        else:
            rest = starred.group(3) if starred.group(2) == "*." else f"x.invalid{starred.group(3)}"
            scheme, host, port, path = parsed(starred.group(1) + rest)
            host = f"*.{host}" if starred.group(2) == "*." else "*"
    except BadAddress as why:
        raise ValueError(f"{text!r}: {why}") from None
    if "?" in path:
        raise ValueError(f"{text!r}: an entry has no query")
    return Pattern(scheme, host, None if any_port else port, path)


class Allowed(NamedTuple):
    """What may be reached: the list, and the networks that are not public and that its entries may lead to."""

    patterns: tuple[Pattern, ...]
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, patterns: Sequence[str], networks: Sequence[Network] = ()) -> "Allowed":
        """Parse the list as it was set; `off` alone allows nothing. Raises ValueError."""
        return cls(() if tuple(patterns) == (OFF,) else tuple(map(pattern, patterns)), tuple(networks))

    def destination(self, url: str) -> tuple[Destination, tuple[Network, ...]]:
        """Take apart an address that may be asked for; return it and the non-public networks that it may lead to.

        Refuses all that can be refused without a look-up of its name. Raises BadAddress.
        """
        to = parsed(url)
        matching = [one for one in self.patterns if one.matches(to)]
        if not matching:
            raise BadAddress(self._why(to))
        # Whoever may name any host of the world may not thereby name one of the operator's networks.
        named = any(one.host != "*" for one in matching)
        also = self.networks if named else ()
        if to.is_ip and (why := refusal(to.host, also)) is not None:
            raise BadAddress(f"The address may not be reached: {why}.")
        if not named and not to.is_ip and ("." not in to.host or f".{to.host}".endswith(_LOCAL_NAMES)):
            raise BadAddress(f"The address may not be reached: {to.host[:100]} is a name of a local network.")
        return to, also

    def _why(self, to: Destination) -> str:
        if not self.patterns:
            return "Addresses to call are switched off at this bridge."
        if to.scheme not in {one.scheme for one in self.patterns}:
            return f"The scheme {to.scheme} is not allowed here."
        return "The address is not among those that the operator allows."
