"""The one module that knows operating systems: each of its seams, and the whole worker on systems that lack things.

What runs here as macOS or Windows is Linux that lacks what these lack (`other_systems`): it shows that nothing else is
used, not that the calls of those systems do what their makers say.
"""

from __future__ import annotations

import ast
import ctypes
import os
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path

import psutil
import pytest
from crowd import Crowd
from waiting import until

import bridge_worker
from bridge_worker import platforms, usage, workdir

HERE, PACKAGE = Path(__file__).parent, Path(bridge_worker.__file__).parent
#: What exists on some systems alone. `os.kill(…, 9)` ends a process on all of them.
OF_ONE_SYSTEM = {
    "sys.platform", "os.name", "os.uname", "platform.system", "os.fork", "os.killpg", "os.setsid", "os.getpgrp",
    "os.waitid", "os.waitpid", "os.WNOHANG", "os.getuid", "os.O_PATH", "signal.SIGKILL", "signal.SIGTERM",
    "signal.pause", "signal.setitimer", "signal.alarm", "ctypes.WinDLL", "ctypes.CDLL", "os.set_blocking",
}  # fmt: skip
MODULES_OF_ONE_SYSTEM = {"fcntl", "resource", "pwd", "grp", "termios", "msvcrt", "winreg", "select", "selectors",
                         "multiprocessing", "pty"}  # fmt: skip


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_other_module_knows_systems(file):
    if file.name == "platforms.py":
        return
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in OF_ONE_SYSTEM, f"line {node.lineno}"
            assert node.attr not in ("preexec_fn", "pass_fds")
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not MODULES_OF_ONE_SYSTEM & {name.partition(".")[0] for name in names}


@pytest.fixture
def on(monkeypatch):
    """Return a function that makes the module think it runs elsewhere."""

    def switch(system: str) -> None:
        monkeypatch.setattr(platforms, "LINUX", system == "linux")
        monkeypatch.setattr(platforms, "WINDOWS", system == "win32")

    return switch


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_what_only_linux_has_is_left_out(on, system, tmp_path):
    on(system)
    assert not platforms.cut_off_network()
    assert not platforms.allow_only([tmp_path], [tmp_path])
    assert platforms.reap_strays([]) == 0
    platforms.adopt_orphans()
    platforms.wear_leash(None)
    assert platforms.Leash().child_fd is None
    assert platforms.total_memory() > 0
    assert platforms.proportional_memory(psutil.Process()) > 0


def test_windows_has_no_limits_of_its_own(on):
    before = {name: platforms.resource.getrlimit(getattr(platforms.resource, name))
              for name in ("RLIMIT_NOFILE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_CORE")}  # fmt: skip
    on("win32")
    platforms.limit_process(64 << 20, 64)
    platforms.limit_cpu(1)
    assert not platforms.ended_by_cpu_limit(-24)
    assert before == {name: platforms.resource.getrlimit(getattr(platforms.resource, name)) for name in before}


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("linux", {"start_new_session": True, "pass_fds": (7,)}),
        ("darwin", {"start_new_session": True, "pass_fds": ()}),
        ("win32", {"creationflags": 0x08000200}),
    ],
)
def test_a_process_is_started_in_a_group_of_its_own(on, system, expected):
    on(system)
    leash = platforms.Leash.__new__(platforms.Leash)
    leash.child_fd = 7 if system == "linux" else None
    assert leash.popen_options() == expected


def test_a_job_object_ends_all_of_a_process_on_windows(on, monkeypatch):
    called = []

    class Kernel32:
        def __init__(self):
            self.CreateJobObjectW = self._note("CreateJobObjectW", 4711)
            for name in ("SetInformationJobObject", "AssignProcessToJobObject", "CloseHandle"):
                setattr(self, name, self._note(name, 1))

        def _note(self, name, answer):
            def call(*arguments):
                called.append((name, [getattr(a, "value", a) if not hasattr(a, "raw") else a.raw for a in arguments]))
                return answer

            return call

    monkeypatch.setattr(ctypes, "WinDLL", lambda name, **_: Kernel32(), raising=False)
    on("win32")
    leash = platforms.Leash()
    leash.started(types.SimpleNamespace(_handle=99))
    leash.cut()
    leash.cut()
    assert [name for name, _ in called] == [
        "CreateJobObjectW", "SetInformationJobObject", "AssignProcessToJobObject", "CloseHandle",
    ]  # fmt: skip
    job, kind, information, size = called[1][1]
    assert (job, kind, size) == (4711, 9, 144)
    assert information[16:20] == b"\x00\x20\x00\x00"  # LimitFlags: JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
    assert not any(information[:16] + information[20:])
    assert called[2][1] == [4711, 99]
    assert called[3][1] == [4711]


def test_the_kernel_of_linux_kills_the_group_when_the_leash_is_cut():
    if not platforms.LINUX:
        pytest.skip("Linux")
    leash = platforms.Leash()
    program = "import sys, time; from bridge_worker.platforms import wear_leash; wear_leash(int(sys.argv[1]));"
    program += "import subprocess; subprocess.Popen(['sleep', '600']); print('worn', flush=True); time.sleep(600)"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(leash.child_fd)],
        stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)}, **leash.popen_options(),
    )  # fmt: skip
    leash.started(process)
    assert process.stdout.readline() == b"worn\n"
    below = psutil.Process(process.pid).children()
    leash.cut()
    assert process.wait(60) == -signal.SIGKILL
    assert psutil.wait_procs(below, timeout=10)[1] == []
    process.stdout.close()


def test_a_process_that_is_gone_is_no_error():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    process = psutil.Process(ended.pid)
    ended.wait()
    assert platforms._status(process) == psutil.STATUS_ZOMBIE
    assert platforms.proportional_memory(process) == 0
    assert usage._memory([psutil.Process(), process], 1) > 0


def test_a_watch_goes_on_when_it_could_not_look():
    looked = threading.Semaphore(0)

    def broken():
        looked.release()
        raise psutil.NoSuchProcess(1)

    watch = usage.Watch(broken, None, 1)
    assert looked.acquire(timeout=30)
    assert looked.acquire(timeout=30)
    watch.stop()


def test_a_lock_that_another_worker_was_quicker_to_take_is_not_used(monkeypatch, tmp_path):
    (tmp_path / f"{workdir.PREFIX}not-ours.lock").mkdir()
    real, tried = platforms.try_lock, []

    def second(file):
        tried.append(file.name)
        return len(tried) > 1 and real(file)

    monkeypatch.setattr(platforms, "try_lock", second)
    work = workdir.WorkDirectory(tmp_path)
    assert str(work.path.with_suffix(".lock")) == tried[1] != tried[0]
    assert work.removed == 0
    work.close()
    assert not work.path.exists()


@pytest.mark.parametrize("version", [-1, 4])
def test_a_kernel_that_forbids_it_leaves_the_sandbox_open(on, monkeypatch, tmp_path, version):
    class Libc:
        def unshare(self, flags):
            return -1

        def syscall(self, number, attributes, size, flags):
            return version if attributes is None else -1

    on("linux")
    monkeypatch.setattr(platforms, "_libc", Libc)
    assert not platforms.cut_off_network()
    assert not platforms.allow_only([tmp_path], [tmp_path])


def test_a_file_is_locked_once(tmp_path):
    with (tmp_path / "lock").open("xb") as first, (tmp_path / "lock").open("r+b") as second:
        assert platforms.try_lock(first)
        assert not platforms.try_lock(second)
        first.close()
        assert platforms.try_lock(second)


@pytest.mark.parametrize(("error", "locked"), [(None, True), (OSError("locked"), False)])
def test_a_file_is_locked_once_on_windows(on, monkeypatch, tmp_path, error, locked):
    def locking(fd, mode, size):
        assert (mode, size) == (2, 1)
        if error is not None:
            raise error

    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    on("win32")
    with (tmp_path / "lock").open("xb") as file:
        assert platforms.try_lock(file) is locked


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (-6, "killed by SIGABRT"), (-9, "killed by SIGKILL"), (-11, "killed by SIGSEGV"),
        (-250, "killed by signal 250"), (3, "exited with status 3"),
        (0xC0000005, "ended by exception 0xC0000005 (access violation)"),
        (0xC00000FD, "(stack overflow)"), (0xC0000999, "ended by exception 0xC0000999"),
    ],
)  # fmt: skip
def test_an_end_is_told_in_words(status, text):
    assert text in platforms.exit_reason(status)


def test_the_signals_that_stop_are_those_of_the_system():
    program = "import sys; sys.platform = 'win32'; sys.modules |= {'fcntl': None, 'resource': None}\n"
    program += "from bridge_worker.platforms import STOP_SIGNALS; print([int(n) for n in STOP_SIGNALS])"
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    program = "import psutil, requests, shutil, ssl\n" + program  # which look at their own system
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[2,", "21]"]  # SIGINT, SIGBREAK
    assert platforms.STOP_SIGNALS == [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize(("system", "stop"), [("darwin", signal.SIGTERM), ("win32", 21)])
@pytest.mark.slow
def test_the_whole_worker_where_only_that_is_to_be_had(bridge, tmp_path, system, stop):
    """Good files and bad ones, a kill, the next start, a stop."""
    environment = os.environ | {
        "BRIDGE_URL": bridge.url, "BRIDGE_WORKER_TEST_SYSTEM": system,
        "BRIDGE_WORKER_TEST_CALLS": str(tmp_path / "calls"),
        "PYTHONPATH": os.pathsep.join([str(HERE / "other_systems"), str(HERE), str(PACKAGE.parent)]),
    }  # fmt: skip
    command = [sys.executable, "-m", "bridge_worker", "--handler", "audio=conversions:by_file", "--max-memory", "200M",
               "--work-dir", str(tmp_path / "work")]  # fmt: skip

    def start() -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=log)

    crowd = Crowd(bridge, {"a": b"1", "b": b"abort", "c": b"exit", "d": b"memory", "e": b"2", "f": b"segfault"})
    first = start()
    try:
        assert crowd.all_ended.wait(60), (tmp_path / "log").read_text()
        results = crowd.results
        assert {name for name, result in results.items() if result["success"]} == {"a", "e"}
        assert "SIGABRT" in results["b"]["error_message"]
        assert "--max-memory" in results["d"]["error_message"]
        below = psutil.Process(first.pid).children(recursive=True)
        first.kill()
        first.wait()
        assert psutil.wait_procs(below, timeout=20)[1] == []  # their standard input has ended
    finally:
        first.kill()
    left = set((tmp_path / "work").iterdir())
    second = start()
    try:
        until(lambda: bridge.calls_left("poll") and not left & set((tmp_path / "work").iterdir()),
              (tmp_path / "log").read_text)  # fmt: skip
        second.send_signal(stop)
        assert second.wait(60) == 0, (tmp_path / "log").read_text()
    finally:
        second.kill()
    assert list((tmp_path / "work").iterdir()) == []
    calls = (tmp_path / "calls").read_text().split() if system == "win32" else []
    assert calls.count("AssignProcessToJobObject") == calls.count("CreateJobObjectW")
    assert bool(calls) == (system == "win32")
