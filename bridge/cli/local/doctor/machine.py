"""What is on this machine: settings, packages, directories and their permissions."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from bridge.cli.local.doctor.finding import Finding, error, warning
from bridge.settings import Settings, unknown_names

_FOR_OTHERS = 0o077


def names(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Find settings whose names nothing reads."""
    for line in unknown_names(environment):
        yield warning("unknown_setting", f"{line}.", "Correct or remove it: what it was meant to set has its default.")


def packages(distribution: str = "jobbridge") -> Iterator[Finding]:
    """Find Python packages that are missing, or of a version that the code does not know."""
    try:
        needed = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        yield warning("packages", f"{distribution} is not installed here.", "Install it: `make install`.")
        return
    for line in needed:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found = "missing"
        if found == "missing" or not requirement.specifier.contains(found, prereleases=True):
            what = f"{requirement.name} is {found}, and {requirement} is needed."
            yield error("packages", what, f"Install what is locked into the environment of {sys.executable}.")


def source_roots(settings: Settings) -> Iterator[Finding]:
    """Find directories of source files that are missing or cannot be read."""
    for root in settings.source_roots:
        if not root.is_dir():
            is_made = root == settings.data_dir / "files"
            do = "Create it, mount it, or correct BRIDGE_SOURCE_ROOTS: creates and downloads below it are refused."
            found = f"The source root {root} is not a directory."
            yield warning("source_roots", found, do) if is_made else error("source_roots", found, do)
        elif not os.access(root, os.R_OK | os.X_OK):
            do = f"Let the account of API and Celery read it (you are user {os.geteuid()})."
            yield error("source_roots", f"The source root {root} cannot be read.", do)


def data_directory(settings: Settings) -> Iterator[Finding]:
    """Find a data directory that others may enter or that is not ours, and secrets that others may read."""
    place = settings.data_dir
    if not place.exists():
        return  # the first process that needs it creates it
    if not place.is_dir() or not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        yield error("data_directory", f"{place} cannot be used.", "Run as its owner, or set BRIDGE_DATA_DIR.")
        return
    if place.stat().st_uid != os.geteuid():
        do = "Run as its owner: what is written there would be another user's."
        yield warning("data_directory", f"{place} belongs to user {place.stat().st_uid}.", do)
    if place.stat().st_mode & stat.S_IRWXO:
        what = f"Everybody may enter {place}, which holds files, logs and secrets."
        yield warning("data_directory", what, f"chmod 700 {place}")
    secrets = place / "secrets"
    for one in [secrets, *_listed(secrets)]:
        if one.exists() and one.lstat().st_mode & _FOR_OTHERS and not one.is_symlink():
            mode = "700" if one.is_dir() else "600"
            do = f"chmod {mode} {one}, and replace the secrets in it if others use this machine."
            yield error("secrets", f"Others may read {one}.", do)


def _listed(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []
