"""Where the server's code lies, and that it is ours that will be imported."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from bridge.settings import PREFIX, Settings, known_names, load_settings, read_environment, unknown_names

#: The directory that holds bridge/, api/, tasks/ and models/. Every process is started there.
ROOT = Path(__file__).resolve().parents[2]


class CheckoutError(Exception):
    """The code beside us is not what it should be; its text is one line."""


def check() -> None:
    """Refuses to go on when `models`, a generic name, would be somebody else's."""
    spec = importlib.util.find_spec("models")
    origin = spec.origin if spec else None
    if origin is None or Path(origin).resolve().parent.parent != ROOT:
        raise CheckoutError(f"`models` is {origin or 'missing'}, not the one in {ROOT}: use an environment of its own")


def settings_and_environment(
    changes: Mapping[str, str] | None = None, *, hermetic: bool = False
) -> tuple[Settings, dict[str, str]]:
    """The settings, and the environment with which a child started in ROOT comes to the same ones.

    A `.env` is looked for in the current directory, and a relative BRIDGE_DATA_DIR starts there too; children have
    another current directory. So every setting is put into their environment, empty (which means unset) where
    nothing set it. `changes` win over everything; `hermetic` takes no setting but them.
    """
    around = read_environment()
    if hermetic:
        around = {name: value for name, value in around.items() if not name.startswith(PREFIX)}
    environment = {**dict.fromkeys(known_names(), ""), **around, **(changes or {})}
    settings = load_settings(environment)
    return settings, {**environment, "BRIDGE_DATA_DIR": str(settings.data_dir)}


def warnings() -> list[str]:
    """One line for each BRIDGE_ name in the environment that nothing reads."""
    return unknown_names(read_environment())


def execute(arguments: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Becomes another program: signals and exit status are its own."""
    check()
    os.chdir(ROOT)
    os.execve(arguments[0], arguments, dict(environment))
