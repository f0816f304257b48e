"""The version of the installed distribution: pyproject.toml is the only place that states it."""

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """Return the version of `jobbridge`. Raises importlib.metadata.PackageNotFoundError if it is not installed."""
    return metadata.version("jobbridge")
