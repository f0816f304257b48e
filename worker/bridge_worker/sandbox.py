"""What the handlers of this package may access: the job's directory and what is installed, no address.

A playlist, a concat list or a document can name other files and addresses; the libraries are told not to follow them,
and where the system supports it (Linux), the process cannot.
"""

from __future__ import annotations

import logging
import site
import sys
from collections.abc import Iterable
from pathlib import Path

from bridge_worker import platforms

log = logging.getLogger(__name__)
#: System paths that programs and libraries read. Not /etc, /home, /root, /srv, /var, /tmp, /mnt.
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/opt", "/nix", "/sys", "/proc", "/dev/null", "/dev/urandom",
          "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/etc/fonts", "/etc/alternatives", "/etc/ssl",
          "/dev/shm", "/etc/nsswitch.conf", "/etc/passwd")  # fmt: skip


#: Device files of GPU drivers, which are opened for writing.
DEVICES = ("nvidia*", "dri", "kfd", "dxg")


def enter(directory: Path, also_readable: Iterable[Path] = ()) -> None:
    """Confine this process: it may read files of the system and of Python and write `directory`, without a network.

    Call it before there are threads. What the system cannot do is left out, and logged at level debug.
    """
    ours = str(Path(__file__).parents[1])  # an editable install is not on the search path
    packages = [sys.prefix, sys.base_prefix, sys.exec_prefix, *site.getsitepackages(), *sys.path, ours]
    readable = [*(Path(name) for name in (*SYSTEM, *packages) if name), *also_readable]
    devices = [found for name in DEVICES for found in Path("/dev").glob(name)]
    network = platforms.cut_off_network()
    files = platforms.allow_only(readable, [directory, Path("/dev/null"), *devices])
    log.debug("sandbox: network %s, files %s", "off" if network else "on", "shut in" if files else "open")
