"""Webhooks that do not arrive, and addresses in settings that cannot be reached."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sqlalchemy import Connection

from bridge import names
from bridge.cli.local.doctor.finding import Finding, warning
from bridge.jobs.remote_sources import allowed_addresses
from bridge.outbox.undelivered import DO, Trouble, sentences, tenants_of, undelivered
from bridge.outgoing.addresses import Network, network, refusal
from bridge.outgoing.connect import resolve
from bridge.outgoing.destination import Allowed, Pattern
from bridge.settings import Settings

MOST_LOOKED_UP = 20  # names
LOOK_UP_SECONDS = 3.0  # for all of them


def webhooks(connection: Connection, settings: Settings, lying: Mapping[str, int] | None) -> Iterator[Finding]:
    """Find webhooks of all tenants that need attention. `lying`: messages in the bridge's queues, if known."""
    rows = undelivered(connection, tenants_of(connection), settings.webhook_retry_seconds)
    for trouble, told in sentences(rows).items():
        do = DO[trouble]
        if trouble is Trouble.UNTRIED and lying is not None and lying[names.WEBHOOKS]:
            told = f"{told} {lying[names.WEBHOOKS]} messages wait in {names.WEBHOOKS} and nobody takes them."
            do = f"Start `jobbridge celery`, or let one take {names.WEBHOOKS}."
        elif trouble is Trouble.GIVEN_UP:
            do = "Repair the receiver or its address; then `jobbridge webhooks resend --state failed`."
        yield warning("webhooks", told, do)


def addresses(settings: Settings) -> Iterator[Finding]:
    """Find entries of the address lists that can never be reached from here, and networks that have no effect."""
    sources = allowed_addresses(settings)
    receivers = Allowed.of(settings.webhook_allow, [network(one) for one in settings.webhook_networks])
    for kind, allowed in (("SOURCE", sources), ("WEBHOOK", receivers)):
        check = f"{kind.lower()}_addresses"
        if allowed.networks and all(one.host == "*" for one in allowed.patterns):
            what = f"BRIDGE_{kind}_NETWORKS has no effect: no entry of BRIDGE_{kind}_ALLOW names a host."
            yield warning(check, what, f"Add the hosts that are meant to BRIDGE_{kind}_ALLOW, or remove it.")
        for entry, why in _unreachable(allowed.patterns, allowed.networks):
            what = f"BRIDGE_{kind}_ALLOW: {entry.scheme}://{entry.host} cannot be reached from here: {why}."
            do = f"Correct it; a network that is not public is named in BRIDGE_{kind}_NETWORKS."
            yield warning(check, what, do)


def authorities(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Check that there are certificates of authorities, without which no https address can be trusted."""
    paths = ssl.get_default_verify_paths()
    given = {name: environment[name] for name in (paths.openssl_cafile_env, paths.openssl_capath_env)
             if environment.get(name)}  # fmt: skip
    for name, place in given.items():
        if not Path(place).exists():
            what = f"{name} names {place}, which does not exist."
            yield warning("authorities", what, "Correct it: sources at addresses and webhooks fail by TLS.")
    if not given and not ssl.create_default_context().get_ca_certs() and not _any_file(paths.capath):
        what = "This machine has no certificates of authorities: https addresses cannot be trusted."
        yield warning("authorities", what, "Install ca-certificates, or name a file in SSL_CERT_FILE.")


def _any_file(directory: str | None) -> bool:
    return directory is not None and Path(directory).is_dir() and any(Path(directory).iterdir())


def _unreachable(patterns: Sequence[Pattern], networks: Sequence[Network]) -> Iterator[tuple[Pattern, str]]:
    """Yield the entries that name one host which may not be reached or cannot be looked up, and why."""
    named = list({one.host: one for one in patterns if "*" not in one.host}.values())[:MOST_LOOKED_UP]
    found: dict[str, Sequence[str]] = {}
    threads = [threading.Thread(target=_look_up, args=(one, found), daemon=True) for one in named]
    for thread in threads:
        thread.start()
    end = time.monotonic() + LOOK_UP_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    known = dict(found)
    for one in named:
        ips = known.get(one.host)
        if not ips:
            yield one, "its name cannot be looked up" if ips is not None else "no name server answers"
        elif why := next(filter(None, (refusal(ip, networks) for ip in ips)), None):
            yield one, why


def _look_up(one: Pattern, found: dict[str, Sequence[str]]) -> None:
    try:
        found[one.host] = resolve(one.host, one.port or 443)
    except (OSError, UnicodeError):
        found[one.host] = []
