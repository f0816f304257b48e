"""The bridge's Celery application with the sweeps of each 5 to 15 s four times as often, for `celery -A … beat`.

A test that waits for one waits less. How often each runs in production: tests/celery/test_upkeep.py.
"""

from tasks.app import app

for entry in app.conf.beat_schedule.values():
    if 5 <= entry["schedule"] < 60:
        entry["schedule"] /= 4

__all__ = ["app"]
