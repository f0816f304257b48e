"""The bridge's Celery application with frequent sweeps four times as often, for `celery -A tests.support.quick_beat`.

A test that waits for a sweep waits less. How often each runs in production: tests/celery/test_schedule.py.
"""

from tasks.app import app

for entry in app.conf.beat_schedule.values():
    if entry["schedule"] < 60:
        entry["schedule"] /= 4
