"""`python -m tests.chaos --minutes 5 --seed 42`: one run; exits with 1 when an invariant is broken."""

import argparse
import os
import shutil
import sys
import tempfile
from itertools import groupby
from pathlib import Path

from tests.chaos import bouncer
from tests.chaos.nemesis import schedule
from tests.chaos.run import Run

SHOWN = 8  # violations of each invariant that are printed with their events


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", default=str(int.from_bytes(os.urandom(3))), help="the same seed, the same faults")
    parser.add_argument("--pace", type=float, default=1.0, help="stretches the pauses between faults")
    parser.add_argument("--wsgi", default="api.wsgi:app", help="another application, to see that it is caught")
    parser.add_argument("--keep", action="store_true", help="keep logs and data of the run")
    options = parser.parse_args()
    through = os.environ.get("PGBOUNCER") == "1"
    if through and bouncer.PROGRAM is None:
        print("PGBOUNCER=1, but pgbouncer is not installed (apt-get install -y pgbouncer): without it", flush=True)
        through = False
    print(f"seed {options.seed}{', through pgbouncer' if through else ''}", flush=True)
    place = Path(tempfile.mkdtemp(prefix="jobbridge-chaos-"))
    run = Run(place, options.seed, wsgi=options.wsgi, bouncer=through)
    try:
        seconds = options.minutes * 60
        run.torment(seconds, schedule(options.seed, seconds, options.pace))
        run.settle()
        found = run.verdict()
        print("\n".join(run.summary()))
    finally:
        run.stop()
        if options.keep:
            print(f"logs and data are in {place}")
        else:
            shutil.rmtree(place, ignore_errors=True)
    for name, violations in groupby(found, lambda violation: violation.what.partition(":")[0]):
        of_it = list(violations)
        print(*of_it[:SHOWN], f"{len(of_it)} violations of: {name}", sep="\n")
    if found:
        print(f"{len(found)} violations. Again: make chaos MINUTES={options.minutes:g} SEED={options.seed}")
    else:
        print("Nothing lost, nothing doubled, nothing stuck.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
