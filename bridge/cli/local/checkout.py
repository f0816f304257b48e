"""Where the server's code is, and whether it is ours that will be imported."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from bridge.private_files import UMASK
from bridge.settings import PREFIX, Settings, known_names, load_settings, read_environment, without_unknown
from bridge.traces import asked_for

#: The directory that holds bridge/, api/, tasks/ and models/. Every process is started there.
ROOT = Path(__file__).resolve().parents[3]


class CheckoutError(Exception):
    """The code beside us is not what it should be; its text is one line."""


def check() -> None:
    """Refuse to go on if `models`, a generic name, would be somebody else's."""
    spec = importlib.util.find_spec("models")
    origin = spec.origin if spec else None
    if origin is None or Path(origin).resolve().parent.parent != ROOT:
        raise CheckoutError(f"`models` is {origin or 'missing'}, not the one in {ROOT}: use an environment of its own")
    if (changed := _overwritten()) is not None:
        raise CheckoutError(
            f"{changed} is not what jobbridge has installed; another package has files of the same name."
            " Install jobbridge into an environment of its own"
        )


def _overwritten() -> Path | None:
    """Return the first installed module that differs from its recorded hash. A checkout has no record: none differs."""
    for file in metadata.files("jobbridge") or ():
        if file.suffix == ".py" and file.hash is not None:
            path = Path(str(file.locate()))
            digest = hashlib.new(file.hash.mode, path.read_bytes() if path.is_file() else b"").digest()
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
                return path
    return None


def settings_and_environment(
    changes: Mapping[str, str] | None = None, *, hermetic: bool = False
) -> tuple[Settings, dict[str, str]]:
    """Return the settings, and the environment with which a child started in ROOT gets the same ones.

    A `.env` is looked for in the current directory, and a relative BRIDGE_DATA_DIR starts there too; children have
    another current directory. So every setting is put into their environment, empty (which means unset) if
    nothing set it. `changes` win over everything; `hermetic` takes no other setting.
    """
    around = read_environment()
    if hermetic:
        around = {name: value for name, value in around.items() if not name.startswith(PREFIX)}
    environment = {**dict.fromkeys(known_names(), ""), **without_unknown(around), **(changes or {})}
    settings = load_settings(environment)
    asked_for(environment)  # before a process is started that cannot do what it is asked for
    return settings, {**environment, "BRIDGE_DATA_DIR": str(settings.data_dir)}


def execute(arguments: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Become another program: signals and exit status are its own."""
    check()
    os.umask(UMASK)
    os.chdir(ROOT)
    os.execve(arguments[0], arguments, dict(environment))
