"""Intake over Celery while its worker is frozen and killed: a plain send_task loses some jobs, asking again loses none.

`python bench/intake.py [--rounds 20]`: in each round a hundred creates per second, Celery stopped (SIGSTOP) and killed
(SIGKILL) in the middle of them and started again; compared by key with what is in PostgreSQL. Half of the creates are
repeated until answered, as examples/pipeline/intake.py does; the others are sent once and forgotten.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from celery import Celery  # noqa: E402
from sqlalchemy import text  # noqa: E402

from bridge import embedded, names  # noqa: E402
from bridge.cli.local import command_lines  # noqa: E402
from bridge.cli.local.stack import Stack  # noqa: E402
from bridge.cli.local.supervisor import end_tree, ending_signals  # noqa: E402
from bridge.db import make_engine  # noqa: E402
from bridge.embedded.ports import free_port  # noqa: E402

RATE = 50  # per second, in each of the two ways
ASKER = """
import sys
from intake import answers, want
for line in sys.stdin:
    key, path = line.split()
    want(key, {"source_file_path": path, "content_type": "bench", "ingestion_task_id": key})
print(sum(answer.job is not None for answer in answers(first_wait=10.0)), flush=True)
"""


class Bench:
    """A bridge without its API, whose Celery can be killed."""

    def __init__(self, place: Path) -> None:
        self.servers = embedded.start(place / "servers", durable=False)
        self.stack = Stack(
            {
                "BRIDGE_DATABASE_URL": self.servers.database_url,
                "BRIDGE_REDIS_URL": self.servers.redis_url,
                "BRIDGE_DATA_DIR": str(place / "bridge"),
                "BRIDGE_PORT": str(free_port()),
                "BRIDGE_LOG_FORMAT": "json",
            },
            throw_away=True,
        )
        self.stack.migrate()
        self.engine = make_engine(self.stack.settings)
        self.file = self.stack.settings.source_roots[0] / "source"
        self.file.write_bytes(b"source")
        self.place = place
        self.environment = command_lines.celery_environment(self.stack.environment)
        self.start()

    def start(self) -> None:
        arguments = command_lines.celery_worker(["--concurrency=2"])
        with (self.place / "celery.log").open("ab") as log:
            self.celery = subprocess.Popen(
                arguments, env=self.environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )

    def keys(self) -> set[str]:
        with self.engine.begin() as connection:
            return set(connection.scalars(text("SELECT idempotency_key FROM remote_jobs")))

    def asker(self, name: str) -> "subprocess.Popen[str]":
        """Start a pipeline's process that asks for the jobs it reads until it is answered."""
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("BRIDGE_")},
            "PIPELINE_BROKER_URL": self.servers.redis_url,
            "PIPELINE_STATE": str(self.place / f"{name}.sqlite3"),
        }
        return subprocess.Popen(
            [sys.executable, "-c", ASKER], cwd=ROOT / "examples" / "pipeline", env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def stop(self) -> None:
        end_tree(self.celery, 0)
        self.engine.dispose()
        self.stack.stop()
        self.servers.stop()


def one_round(bench: Bench, n: int, seconds: float) -> tuple[list[str], list[str]]:
    """Run a round; return the keys that were asked for, and those that were sent once."""
    asked = [f"asked-{n}-{i}" for i in range(int(RATE * seconds))]
    sent = [f"sent-{n}-{i}" for i in range(int(RATE * seconds))]
    asker = bench.asker(f"asker-{n}")
    assert asker.stdin is not None
    pipeline = Celery("a pipeline", broker=bench.servers.redis_url, set_as_current=False)

    def send() -> None:
        began = time.monotonic()
        for i, key in enumerate(sent):
            fields = {"source_file_path": str(bench.file), "content_type": "bench", "ingestion_task_id": key}
            fields["idempotency_key"] = key
            pipeline.send_task(names.ENQUEUE, kwargs=fields, queue=names.QUEUE, ignore_result=True)
            time.sleep(max(0.0, began + (i + 1) / RATE - time.monotonic()))

    sender = threading.Thread(target=send)
    sender.start()
    asker.stdin.write("".join(f"{key} {bench.file}\n" for key in asked))
    asker.stdin.close()
    time.sleep(seconds * random.uniform(0.3, 0.6))
    os.kill(bench.celery.pid, signal.SIGSTOP)
    time.sleep(0.3)
    end_tree(bench.celery, 0)
    bench.start()
    sender.join()
    assert asker.stdout is not None
    answered = int(asker.stdout.read() or 0)
    asker.wait()
    assert answered == len(asked), f"{answered} of {len(asked)} were answered"
    return asked, sent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--short", action="store_true", help="one round")
    options = parser.parse_args()
    if options.short:
        options.rounds = 1
    asked: set[str] = set()
    sent: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="jobbridge-intake-") as place, ending_signals() as signals:
        bench = Bench(Path(place))
        try:
            for n in range(options.rounds):
                for both, new in zip((asked, sent), one_round(bench, n, options.seconds), strict=True):
                    both.update(new)
                print(f"round {n + 1}: {len(asked - bench.keys())} of {len(asked)} asked for are missing", flush=True)
            # Messages that the killed workers held come back.
            end = time.monotonic() + 200
            while sent - bench.keys() and time.monotonic() < end and not signals.wait(1.0):
                pass
            kept = bench.keys()
        finally:
            bench.stop()
    lost = {"asked": len(asked), "asked_lost": len(asked - kept), "sent": len(sent), "sent_lost": len(sent - kept)}
    print(json.dumps({"rounds": options.rounds, **lost}))
    return int(bool(asked - kept))


if __name__ == "__main__":
    sys.exit(main())
