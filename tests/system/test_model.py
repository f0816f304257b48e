"""The service does what the model says, verb by verb, stale tokens and repeated requests included.

`make model` runs it for a million steps and kills the process that makes them again and again
(tests/system/long_model.py).
"""

import os

import pytest

from tests.support.core import Core
from tests.support.machine import SETTINGS, drive
from tests.support.sound import all_sound
from tests.system.long_model import run_with_kills

STEPS = int(os.environ.get("MODEL_STEPS", "2500"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_service_does_what_the_model_says(make_runtime):
    core = Core(make_runtime(**SETTINGS))
    drive(core, STEPS)
    all_sound(core)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_jobs_stay_sound_and_counted_when_the_process_that_changes_them_is_killed(servers, new_database, tmp_path):
    report = run_with_kills(new_database(), servers.redis_url, tmp_path, kills=3, seed=3, longest=1.5)
    assert (report.kills, report.steps > 0) == (3, True)
