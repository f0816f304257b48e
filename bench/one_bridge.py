"""A private bridge for a measurement: prints its port and keys as a line of JSON, and stops when its input ends.

    .venv/bin/python bench/one_bridge.py NAME=value …

It serves the checkout whose Python runs it, so that two checkouts can be measured in one run. The embedded servers
keep their fsync; keys, the guard and the limits are on.
"""

import json
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import redis

from bridge.embedded.ports import free_port

try:
    from bridge.cli.local.stack import Stack
    from bridge.cli.local.supervisor import ending_signals, wait_until
except ImportError:  # a checkout from before bridge/cli/local
    from bridge.cli.family import ending_signals, wait_until  # type: ignore[import-not-found, no-redef]
    from bridge.cli.stack import Stack  # type: ignore[import-not-found, no-redef]


def _read_to_the_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


def main() -> int:
    """Run the bridge until the input ends or a signal arrives."""
    place = Path(tempfile.mkdtemp(prefix="jobbridge-bench-"))
    changes = {
        "BRIDGE_DATA_DIR": str(place),
        "BRIDGE_PORT": str(free_port()),
        "BRIDGE_LOG_LEVEL": "warning",
        "BRIDGE_ACK_SECONDS": "3600",  # nobody processes what is claimed here: the workers would soon be paused
        **dict(setting.split("=", 1) for setting in sys.argv[1:]),
    }
    try:
        with ending_signals() as signals:
            stack = Stack(changes, throw_away=True)
            try:
                stack.migrate()
                key = stack.make_key("bench", ["admin"])
                stack.start_processes()
                if not stack.await_api(signals):
                    return 130
                source = stack.settings.source_roots[0] / "source.bin"
                source.write_bytes(b"x" * 1000)
                with redis.Redis.from_url(stack.settings.require("redis_url")) as mirror:
                    # Until a repair has run, claims come from PostgreSQL: not what is to be measured.
                    wait_until(
                        lambda: bool(mirror.exists(f"{stack.settings.redis_prefix}:epoch")), signals, stack.family, 600
                    )
                told = {
                    "port": stack.settings.port,
                    "key": key,
                    "source": str(source),
                    "redis": stack.settings.redis_url,
                }
                print(json.dumps({**told, "database": stack.settings.database_url}), flush=True)
                ended = threading.Event()
                threading.Thread(target=_read_to_the_end, args=(ended,), daemon=True).start()
                wait_until(ended.is_set, signals, stack.family, 86400)
            finally:
                stack.stop()
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
