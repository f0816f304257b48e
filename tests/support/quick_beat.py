"""The bridge's Celery application with sweeps of each 5 to 15 s four times as often, for `celery -A … beat`.

A test that waits for one waits less. Those that no test waits for keep their time: what all sweeps cost, each bridge
of the tests pays. How often each runs in production: tests/celery/test_upkeep.py.
"""

from bridge import names
from tasks.app import app

USUAL = {names.UNSERVED, names.BATCHES, names.HISTORY, names.FOLD, names.CALL_BACK}

for entry in app.conf.beat_schedule.values():
    if 5 <= entry["schedule"] < 60 and entry["task"] not in USUAL:
        entry["schedule"] /= 4

__all__ = ["app"]
