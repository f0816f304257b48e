"""Record which lines and branches of our packages a Python process reaches, and its forks: `make coverage`.

Python imports this at its start where `PYTHONPATH` names this directory, so each process of a run is measured that is
started with the environment of the tests. SlipCover writes probes into the code as it is imported; a probe reports
its first passage alone and costs next to nothing after it. Each first passage is appended at once to the file that
`REACHED` names, as `path:line` or `path:from-to`, so a process that is killed loses nothing.
"""

import fcntl
import os
from collections import defaultdict
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import CodeType

ROOT = str(Path(__file__).parents[2]) + os.sep
MEASURED = tuple(ROOT + name for name in ("api/", "bridge/", "client/jobbridge_client/", "models/", "tasks/",
                                          "worker/bridge_worker/", "celeryconfig.py"))  # fmt: skip
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
FAR = 1000  # a descriptor that no test needs or closes


def measure(path: str) -> None:
    """Instrument what this process imports from here on; its forks inherit that."""
    import ast
    import hashlib
    import marshal

    from slipcover import Slipcover
    from slipcover.branch import preinstrument

    class Probes(Slipcover):
        """One that a probe calls once, after its first passage: SlipCover would take probes out of the code then."""

        def deinstrument_seen(self) -> None:
            # Not by SlipCover's own method, whose lock a fork may inherit from a thread that it does not have.
            seen, self.newly_seen = self.newly_seen, defaultdict(set)
            lines = [
                f"{file[len(ROOT) :]}:{'-'.join(map(str, one)) if isinstance(one, tuple) else one}\n"
                for file, passages in seen.items()
                for one in passages
            ]
            data = "".join(lines).encode()
            try:
                try:
                    out = os.open(path, APPEND, 0o666)
                except PermissionError:  # in the sandbox of a handler
                    if os.path.samestat(os.fstat(kept), its):
                        os.write(kept, data)
                    return
                try:
                    os.write(out, data)
                finally:
                    os.close(out)
            except OSError:  # a test takes the descriptors or the disk from a process: with the next passage, then
                for file, passages in seen.items():
                    self.newly_seen[file] |= passages

    kept, its = -1, os.stat(os.devnull)
    with suppress(OSError):
        near = os.open(path, APPEND, 0o666)
        try:
            kept, its = fcntl.fcntl(near, fcntl.F_DUPFD_CLOEXEC, FAR), os.fstat(near)
        finally:
            os.close(near)
    probes = Probes(branch=True, d_miss_threshold=0)
    usual = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        if not self.path.startswith(MEASURED):
            return usual(self, fullname)
        code = prepared(self.path, self.get_data(self.path))
        return probes.instrument(code, parent=code)  # a parent: what lines there are is asked at the end alone

    def prepared(name: str, source: bytes) -> CodeType:
        """Compile with SlipCover's marks; kept in `REACHED.code`, since hundreds of processes import the same."""
        its = Path(f"{path}.code", hashlib.sha256(name.encode() + source).hexdigest())
        with suppress(OSError, EOFError, ValueError, TypeError):
            return marshal.loads(its.read_bytes())  # type: ignore[no-any-return]
        code = compile(preinstrument(ast.parse(source)), name, "exec", dont_inherit=True)
        with suppress(OSError):
            its.parent.mkdir(exist_ok=True)
            new = its.with_name(f"{its.name}.{os.getpid()}")
            new.write_bytes(marshal.dumps(code))
            new.rename(its)
        return code

    SourceFileLoader.get_code = get_code


if "REACHED" in os.environ and find_spec("slipcover"):  # a tool in an environment of its own has none
    measure(os.environ["REACHED"])
