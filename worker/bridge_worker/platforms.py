"""Everything that differs between operating systems; no other module asks which one it runs on.

Linux has most: a process group that the kernel kills when the worker's end of a pipe closes, a network namespace,
Landlock. macOS and other POSIX systems have process groups and resource limits; Windows has a job object. What a
system lacks is left out; each function says what remains then.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import psutil

LINUX = sys.platform.startswith("linux")
WINDOWS = sys.platform == "win32"
if not WINDOWS:
    import fcntl
    import resource

STOP_SIGNALS = [signal.SIGINT, signal.Signals(21) if WINDOWS else signal.SIGTERM]  # 21: SIGBREAK

_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _F_SETSIG = 36, 38, 10
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_NTSTATUS = {0xC0000005: "access violation", 0xC00000FD: "stack overflow", 0xC0000409: "abort", 0xC0000374: "heap"}


class Leash:
    """Ties a child process and what it starts to this process: however this one ends, they are killed.

    Linux: a pipe whose closing makes the kernel send SIGKILL to the child's process group. Windows: a job object.
    Elsewhere the child itself must watch for the end of its standard input (`bridge_worker.child` does).
    """

    def __init__(self) -> None:
        self.child_fd: int | None = None
        self._own_fd: int | None = None
        self._job: Any = None
        if LINUX:
            self.child_fd, self._own_fd = os.pipe()

    def popen_options(self) -> dict[str, Any]:
        """Return the options of `subprocess.Popen` that put the child on this leash and in a separate group."""
        if WINDOWS:
            # CREATE_NEW_PROCESS_GROUP (Ctrl-C is the worker's, not the handler's) and CREATE_NO_WINDOW
            return {"creationflags": 0x00000200 | 0x08000000}
        return {"start_new_session": True, "pass_fds": () if self.child_fd is None else (self.child_fd,)}

    def started(self, process: subprocess.Popen[bytes]) -> None:
        """Attach the started child."""
        if self.child_fd is not None:
            os.close(self.child_fd)
            self.child_fd = None
        if WINDOWS:
            self._job = _job_object(int(process._handle))  # type: ignore[attr-defined]  # noqa: SLF001

    def cut(self) -> None:
        """Release the leash: whatever is still on it is killed."""
        for fd in (self.child_fd, self._own_fd):
            if fd is not None:
                os.close(fd)
        self.child_fd = self._own_fd = None
        if self._job is not None:
            ctypes.WinDLL("kernel32").CloseHandle(self._job)  # type: ignore[attr-defined]
            self._job = None


def wear_leash(fd: int | None) -> None:
    """Let the kernel kill this process group when the other end of `fd` closes; called in the child."""
    if LINUX and fd is not None:
        fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_ASYNC)
    adopt_orphans()  # those of a handler stay below this process, where they are found


def adopt_orphans() -> None:
    """Become the parent of what outlives a handler; only for its process, or a program that is just a worker."""
    if LINUX:
        _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_strays(known: Iterable[int]) -> int:
    """Kill and reap children that are neither `known` nor in its session; return how many. Linux only."""
    if not LINUX:
        return 0
    ours, session = set(known), os.getsid(0)
    strays = [c for c in psutil.Process().children() if c.pid not in ours and os.getsid(c.pid) != session]
    for child in strays:
        _kill_all([child])
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child.pid, os.WNOHANG)
    return len(strays)


def kill_own_group() -> None:
    """Kill this process, the child, with all that it started."""
    if WINDOWS:
        os._exit(1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a child, its process group and its descendants, and wait for the child."""
    descendants: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        descendants = psutil.Process(process.pid).children(recursive=True)
    if not WINDOWS:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    _kill_all(descendants)
    process.wait()


def _kill_all(processes: list[psutil.Process]) -> None:
    """Kill these and what they started meanwhile, in several rounds: what forks faster is caught by its group."""
    for _ in range(5):
        found = list(processes)
        for process in processes:
            with contextlib.suppress(psutil.Error):
                found += process.children(recursive=True)
        alive = [process for process in found if process.is_running() and _status(process) != psutil.STATUS_ZOMBIE]
        if not alive:
            return
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(alive, timeout=0.2)


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.Error:
        return str(psutil.STATUS_ZOMBIE)


def has_children() -> bool:
    """Return whether this process has children, unreaped ones included; False where unknown."""
    if not hasattr(os, "waitid"):
        return False
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    return False


def limit_process(memory: int | None, descriptors: int | None) -> None:
    """Bound allocations (bytes; a backstop for what outruns `usage`) and open descriptors; called in the child."""
    if WINDOWS:
        return
    if descriptors:
        _limit(resource.RLIMIT_NOFILE, descriptors)
    _limit(resource.RLIMIT_CORE, 0)
    if memory and LINUX:
        # Private writable pages, also untouched ones; not the address space, of which CUDA reserves terabytes.
        _limit(resource.RLIMIT_DATA, memory)


def limit_cpu(seconds: int | None) -> None:
    """Allow this much CPU time from now on, beyond which the system sends SIGXCPU; called in the child."""
    if WINDOWS or not seconds:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + seconds)


def _limit(what: int, wanted: int) -> None:
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def ended_by_cpu_limit(status: int) -> bool:
    """Return whether an exit status means that the CPU limit ended the process."""
    return not WINDOWS and status == -signal.SIGXCPU


def exit_reason(status: int) -> str:
    """Return an exit status of `subprocess` in words: a signal, an exception of Windows, a number."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            return f"killed by signal {-status}"
        text = signal.strsignal(-status) if hasattr(signal, "strsignal") else None
        return f"killed by {name}" + (f" ({text})" if text else "")
    if status >= 0x80000000:
        return f"ended by exception 0x{status:08X}" + (f" ({_NTSTATUS[status]})" if status in _NTSTATUS else "")
    return f"exited with status {status}"


def total_memory() -> int:
    """Return the memory that this machine, or this container, has, in bytes."""
    total = int(psutil.virtual_memory().total)
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int(Path(name).read_text()))
    return total


def proportional_memory(process: psutil.Process) -> int:
    """Return a process's memory; on Linux, shared pages are divided among those that share them."""
    try:
        return int(process.memory_full_info().pss if LINUX else process.memory_info().rss)
    except psutil.Error:
        return 0


def try_lock(file: BinaryIO) -> bool:
    """Lock an open file for this process until it is closed or the process ends; return False if another has it."""
    try:
        if WINDOWS:
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def cut_off_network() -> bool:
    """Cut this process, a child without threads, off the network; return False where the system forbids that."""
    if not LINUX:
        return False
    libc = _libc()
    if libc.unshare(_CLONE_NEWNET) == 0:
        return True
    return bool(libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


def allow_only(readable: Iterable[Path], writable: Iterable[Path]) -> bool:
    """Restrict this process, a child without threads, to these paths (Landlock); return False where it is missing."""
    if not LINUX:
        return False
    libc = _libc()
    version = libc.syscall(444, None, 0, 1)  # landlock_create_ruleset(…, LANDLOCK_CREATE_RULESET_VERSION)
    if version < 1:
        return False
    every = (1 << 13) - 1 | (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    network = 0b11 if version >= 4 else 0  # TCP: bind and connect
    scope = 0b11  # no signals to processes outside, and no abstract sockets of theirs
    attributes = struct.pack("=QQQ", every, network, scope)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = libc.syscall(444, attributes, len(attributes), 0)
    if rules < 0:
        return False
    try:
        reading = 0b1101  # execute, read a file, read a directory
        for paths, rights in ((readable, reading), (writable, every)):
            for path in paths:
                _allow(libc, rules, path, rights)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # Keep of root's capabilities only those on files: others would allow access to the worker, which has the key.
        libc.capset(struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", 0b110, 0b110, 0, 0, 0, 0))
        return bool(libc.syscall(446, rules, 0) == 0)
    finally:
        os.close(rules)


def _allow(libc: Any, rules: int, path: Path, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            rights &= 0b110 | 1 << 14 | 1  # the rights that files have: write, read, truncate, execute
        libc.syscall(445, rules, 1, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)


def _libc() -> Any:
    return ctypes.CDLL(None)


def _job_object(handle: int) -> Any:
    """Put a process of Windows into a job object that kills all of it when its last handle closes."""
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
    kernel.CreateJobObjectW.restype = ctypes.c_void_p
    job = ctypes.c_void_p(kernel.CreateJobObjectW(None, None))
    # JOBOBJECT_EXTENDED_LIMIT_INFORMATION with LimitFlags (offset 16) = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
    information = ctypes.create_string_buffer(144 if struct.calcsize("P") == 8 else 112)
    struct.pack_into("=I", information, 16, 0x2000)
    kernel.SetInformationJobObject(job, 9, information, len(information))
    kernel.AssignProcessToJobObject(job, ctypes.c_void_p(handle))
    return job
