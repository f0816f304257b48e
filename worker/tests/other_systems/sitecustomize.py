"""Makes a Python on Linux look like one on the system that BRIDGE_WORKER_TEST_SYSTEM names, for bridge_worker alone.

The libraries are imported before, so that they go on working; what the system lacks is taken away.
"""

import ctypes
import os
import sys

if "REACHED" in os.environ:  # the run is measured, by a file of this name: see .ci/measured
    where = __file__.replace(os.path.join("worker", "tests", "other_systems"), os.path.join(".ci", "measured"))
    with open(where) as file:
        exec(compile(file.read(), where, "exec"), {"__file__": where, "__name__": "measured"})

if system := os.environ.get("BRIDGE_WORKER_TEST_SYSTEM"):
    import asyncio  # noqa: F401
    import shutil
    import signal
    import subprocess
    import tempfile  # noqa: F401
    import types
    import urllib.request  # noqa: F401

    import prometheus_client  # noqa: F401
    import psutil  # noqa: F401
    import requests  # noqa: F401
    import tenacity  # noqa: F401

    sys.platform = system
    if system == "win32":
        sys.modules |= {"fcntl": None, "resource": None, "pwd": None, "grp": None, "termios": None}
        for name in ("fork", "killpg", "getpgrp", "setsid", "waitid", "getuid", "O_PATH"):
            if hasattr(os, name):
                delattr(os, name)

        class Kernel32:
            """Notes what is called."""

            def __getattr__(self, name):
                def call(*arguments):
                    with open(os.environ["BRIDGE_WORKER_TEST_CALLS"], "a") as calls:
                        calls.write(f"{name}\n")
                    return 1

                return call

        # From Python 3.12 on shutil asks Windows whether programs are looked for in the current directory.
        vars(shutil)["_winapi"] = types.SimpleNamespace(NeedCurrentDirectoryForExePath=lambda name: True)
        ctypes.WinDLL = lambda name, **options: Kernel32()
        sys.modules["msvcrt"] = types.SimpleNamespace(locking=lambda fd, mode, size: None, LK_NBLCK=2)
        _Popen = subprocess.Popen

        class Popen(_Popen):
            """Takes Windows' options and refuses those of POSIX."""

            _handle = 7

            def __init__(self, *arguments, creationflags=0, **options):
                if options.get("start_new_session") or options.get("pass_fds") or options.get("preexec_fn"):
                    raise ValueError("not on Windows")
                super().__init__(*arguments, **options)

        subprocess.Popen = Popen
        signal.SIGBREAK = signal.Signals(21)
