"""Where the embedded servers' binaries, data, secrets and logs are, and who may use a data directory."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from bridge.embedded.account import give_tree
from bridge.embedded.errors import EmbeddedError
from bridge.embedded.process import is_running
from bridge.private_files import private_directory, read_of_another, write_private

#: PostgreSQL refuses to run as root, and an unprivileged user cannot enter what is below a 0700 directory. So when
#: root starts it, binaries and cluster are here, and the data directory holds a link.
ROOT_HOME = Path("/var/lib/jobbridge")


@dataclass(frozen=True)
class DataDirectory:
    """A data directory whose lock this process holds."""

    path: Path
    lock: int

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def secret(self, name: str) -> str:
        """Return a random password, made once and kept in a file that only its owner may read."""
        place = private_directory(self.path / "secrets") / name
        if not place.exists():
            write_private(place, secrets.token_urlsafe(24))
        return place.read_text().strip()

    def release(self) -> None:
        os.close(self.lock)


def open_data_directory(path: Path) -> DataDirectory:
    """Create the directory if it is missing and take its lock. Raises EmbeddedError if that is impossible."""
    path = Path(os.path.abspath(path))
    try:
        made = not path.exists()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = path.stat().st_uid
        if owner != os.geteuid():
            raise EmbeddedError(
                f"{path} belongs to {_user_name(owner)} and you are {_user_name(os.geteuid())}: run as "
                f"{_user_name(owner)}, remove it, or choose another with BRIDGE_DATA_DIR"
            )
        # A chosen one may be anything, such as /tmp: it is left as it is, and what is in it is closed.
        if made or path.name == ".bridge":
            path.chmod(0o700)
        private_directory(path / "logs")
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as problem:
        raise EmbeddedError(f"{path} cannot be used as data directory: {problem.strerror}") from None
    _take(lock, path)
    return DataDirectory(path, lock)


def _take(lock: int, path: Path) -> None:
    """Wait for the servers of a killed holder (they inherit the lock); refuse at once if the holder is alive."""
    end = time.monotonic() + 20
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode().strip()
            alive = holder.isdigit() and is_running(int(holder))
            if alive or time.monotonic() > end:
                os.close(lock)
                raise EmbeddedError(f"{path} is in use by process {holder or '?'}: stop that one first") from None
            time.sleep(0.05)
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def package_directory(package: str, instead: str) -> Path:
    """Return the directory of an installed package, without importing it (its import has side effects)."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        name = package.replace("_", "-")
        raise EmbeddedError(
            f"{name} is not installed: pip install 'jobbridge[up]' (in a checkout: make install), or set {instead}"
        )
    return Path(spec.origin).parent


def readable_copy(package: Path) -> Path:
    """Return the package's copy below ROOT_HOME, which any user may enter (41 MB, 0.3 s); all environments share it."""
    libraries = package.with_name(f"{package.name}.libs")
    version = next(iter(sorted(package.parent.glob(f"{package.name}-*.dist-info"))), package).stem
    binary = (package / "pginstall" / "bin" / "postgres").read_bytes()
    target = ROOT_HOME / f"{version}-{hashlib.sha256(binary).hexdigest()[:8]}"
    if not target.exists():
        _make_root_home()
        half = ROOT_HOME / f"{target.name}.{os.getpid()}"
        shutil.copytree(package / "pginstall", half / package.name / "pginstall", symlinks=True)
        if libraries.exists():
            shutil.copytree(libraries, half / libraries.name, symlinks=True)
        _open_for_all(half)
        try:
            half.rename(target)
        except OSError:  # another process was quicker
            shutil.rmtree(half)
    return target / package.name


def _make_root_home() -> None:
    try:
        ROOT_HOME.mkdir(parents=True, exist_ok=True)
        ROOT_HOME.chmod(0o755)
    except OSError as problem:
        raise EmbeddedError(f"{ROOT_HOME} cannot be made: {problem.strerror}; set BRIDGE_DATABASE_URL") from None
    if (owner := ROOT_HOME.stat().st_uid) != 0:
        raise EmbeddedError(f"{ROOT_HOME} belongs to {_user_name(owner)}: remove it, or set BRIDGE_DATABASE_URL")


def _open_for_all(tree: Path) -> None:
    """Let everyone read and enter our own copy, whatever umask it was made under."""
    for folder, _, files in os.walk(tree):
        os.chmod(folder, 0o755)
        for name in files:
            place = Path(folder, name)
            if not place.is_symlink():
                place.chmod(0o755 if place.stat().st_mode & 0o100 else 0o644)


def cluster_home(data: DataDirectory, user: tuple[int, int] | None, temporary: bool) -> Path:
    """Return the directory that holds PostgreSQL's cluster; `<data dir>/postgres` leads there. It is ours, the cluster
    in it is `user`'s: no process of that user can replace anything that we write or read."""
    link = data.path / "postgres"
    if user is None:
        return private_directory(link)
    _make_root_home()
    if link.is_symlink() and link.exists():
        home = link.resolve()
        if home.stat().st_uid != 0:
            _take_over(home)
    else:
        link.unlink(missing_ok=True)
        digest = hashlib.sha256(str(data.path).encode()).hexdigest()[:12]
        home = ROOT_HOME / f"{digest}-{secrets.token_hex(3)}"
        home.mkdir(mode=0o711)
        home.chmod(0o711)  # whatever the umask: PostgreSQL has to pass
        link.symlink_to(home)
    write_private(home / "belongs-to", f"{data.path}\n")
    if temporary:
        (home / "temporary").touch()
    if (home / "cluster").exists():
        give_tree(home / "cluster", user)
    return home


def _take_over(home: Path) -> None:
    """Give root a directory that an earlier version gave to PostgreSQL's user; only the cluster in it stays."""
    handle = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(handle, 0, 0)
        os.fchmod(handle, 0o711)
    finally:
        os.close(handle)
    for name in ("belongs-to", "temporary", "password"):
        (home / name).unlink(missing_ok=True)


def sweep_temporary() -> None:
    """Remove clusters of demos and test runs whose data directory is gone (a killed run leaves one)."""
    for mark in ROOT_HOME.glob("*/temporary"):
        try:
            if not Path(read_of_another(mark.parent / "belongs-to").strip()).exists():
                shutil.rmtree(mark.parent, ignore_errors=True)
        except (OSError, ValueError):
            continue
