"""Commands that run beside `jobbridge up`: without settings they find its servers by its data directory."""

from __future__ import annotations

from bridge.cli.local import checkout
from bridge.settings import PREFIX, Settings, SettingsError


def settings_and_environment(*needed: str) -> tuple[Settings, dict[str, str]]:
    """Do as `checkout.settings_and_environment`; if PostgreSQL and Redis are not set, use those of a running `up`.

    `needed` are fields without which the command cannot run. Raises SettingsError naming the first that is missing.
    """
    settings, environment = found()
    for field in needed:
        if getattr(settings, field) is None:
            raise SettingsError(
                f"{PREFIX}{field.upper()} is not set, and no `jobbridge up` runs its own servers on"
                f" {settings.data_dir}: set it (docs/operations.md), or start `jobbridge up` in this directory first"
            )
    return settings, environment


def found() -> tuple[Settings, dict[str, str]]:
    """Do the same, whatever is missing."""
    settings, environment = checkout.settings_and_environment()
    if settings.database_url is not None and settings.redis_url is not None:
        return settings, environment
    from bridge import embedded

    running = {}
    if settings.database_url is None:
        running["BRIDGE_DATABASE_URL"] = embedded.running_url(settings.data_dir)
    if settings.redis_url is None:
        running["BRIDGE_REDIS_URL"] = embedded.running_redis_url(settings.data_dir)
    return checkout.settings_and_environment({**environment, **{k: v for k, v in running.items() if v is not None}})
