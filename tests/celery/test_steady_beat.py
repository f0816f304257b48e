"""Beat's clock, and what bounds the messages that the bridge sends to itself."""

import base64
import json
import shutil
import subprocess
from datetime import timedelta
from types import SimpleNamespace

import pytest
import redis
from celery import Celery

from bridge import names
from bridge.broker import lying
from bridge.cli.local import command_lines
from bridge.outbox import nudge as nudge_module
from bridge.outbox.nudge import MOST_LYING as MOST_NUDGES
from bridge.outbox.nudge import Nudger
from tasks.steady_beat import MOST_LYING, Steady
from tests.support.waiting import wait_until


@pytest.fixture
def broker(servers):
    url = servers.redis_url.rpartition("/")[0] + "/999"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield client
        client.flushdb()


@pytest.fixture
def app(broker, servers):
    app = Celery("bridge", broker=servers.redis_url.rpartition("/")[0] + "/999", set_as_current=False)
    app.conf.beat_schedule = {
        name: {"task": name, "schedule": timedelta(seconds=seconds), "options": {"queue": names.SWEEPS}}
        for name, seconds in {"often": 2, "now_and_then": 10, "rare": 7200}.items()
    }
    yield app
    app.close()


def sent(broker):
    """Return the tasks that lie in the sweeps' queue, which is emptied."""
    raw = broker.lrange(names.SWEEPS, 0, -1)
    broker.delete(names.SWEEPS)
    return sorted(json.loads(one)["headers"]["task"] for one in raw)


def test_each_sweep_is_sent_in_its_period_by_the_clock_that_nobody_sets(app, broker):
    clock = SimpleNamespace(now=1000.0)
    beat = Steady(app, monotonic=lambda: clock.now)
    assert 0 < beat.tick() <= 2
    assert sent(broker) == ["now_and_then", "often"]
    clock.now += 1.5
    assert 0 < beat.tick() <= 0.5
    assert sent(broker) == []
    for _ in range(5):
        clock.now += 2
        beat.tick()
    assert sent(broker) == ["now_and_then"] + ["often"] * 5
    clock.now += 600
    beat.tick()
    assert sent(broker) == ["now_and_then", "often", "rare"], "what a long pause missed is not made up for"


def test_what_nobody_takes_off_its_queue_is_not_added_to_and_is_due_when_somebody_does(app, broker):
    clock = SimpleNamespace(now=1000.0)
    beat = Steady(app, monotonic=lambda: clock.now)
    for _ in range(100):
        beat.tick()
        clock.now += 2
    assert lying(app, names.SWEEPS) <= MOST_LYING + 1
    clock.now += 7200
    beat.tick()
    assert "rare" not in sent(broker)
    beat.tick()
    assert "rare" in sent(broker)


SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long back(void) { return access(getenv("SET_BACK"), F_OK) == 0 ? 120 : 0; }
int clock_gettime(clockid_t id, struct timespec *t) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int done = real(id, t);
  if (id == CLOCK_REALTIME) t->tv_sec -= back();
  return done;
}
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_beat_goes_on_when_the_machines_time_is_set_back_by_two_minutes(own_bridge, tmp_path):
    (tmp_path / "shim.c").write_text("#include <stdlib.h>\n" + SHIM)
    library = tmp_path / "shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "shim.c", "-ldl"], check=True)
    set_back = tmp_path / "set back"
    bridge = own_bridge(beat=False, api_processes="1")
    environment = {**bridge.stack.environment, "LD_PRELOAD": str(library), "SET_BACK": str(set_back)}
    bridge.stack.family.start("beat", command_lines.beat(bridge.settings, []), environment)

    def runs():
        return bridge.sql("SELECT max(ran_at) AS at FROM sweeps")[0].at

    wait_until(runs, "beat to begin")
    set_back.touch()
    for which in ("first", "second"):
        before = runs()
        wait_until(lambda: runs() > before, f"the {which} sweep after that")  # noqa: B023


def test_no_nudge_is_sent_while_those_before_it_lie_unread(app, broker):
    nudge = Nudger(app)
    broker.lpush(names.OUTCOMES, *["{}"] * MOST_NUDGES)
    nudge(["a"])
    wait_until(lambda: nudge._unread, "the look at the queue")
    broker.delete(names.OUTCOMES)

    def asked():
        nudge(["b", "c"])
        return broker.lrange(names.OUTCOMES, 0, 0)

    message = json.loads(wait_until(asked, "a nudge")[0])
    assert message["headers"]["task"] == names.CONTINUE


@pytest.mark.parametrize(
    ("extra", "queues", "name"),
    [
        ([], ["bridge,bridge.outcomes,bridge.sweeps,bridge.webhooks"], ["bridge@%h"]),
        (["--queues", "bridge.sweeps"], [], ["bridge.sweeps@%h"]),
        (["-Q", "bridge,bridge.sweeps"], [], ["bridge+bridge.sweeps@%h"]),
        (["--queues=bridge"], [], ["bridge@%h"]),
        (["-Qbridge", "-n", "mine@%h"], [], []),
    ],
)
def test_a_worker_takes_all_queues_or_those_that_it_is_given(extra, queues, name):
    line = command_lines.celery_worker(extra)
    for option, values in (("-Q", queues), ("-n", name)):
        assert [line[n + 1] for n, part in enumerate(line) if part == option and part not in extra] == values
    assert line[-len(extra) :] == extra or not extra


def test_more_nudges_than_anybody_waits_for_are_left_to_the_sweep(app, broker, monkeypatch):
    monkeypatch.setattr(nudge_module, "MOST_WAITING", 2)
    nudge = Nudger(app)
    with nudge._started:  # its thread has not begun
        nudge(["a", "b", "c"])
        nudge.call_back()
    nudge([])
    asked = json.loads(wait_until(lambda: broker.lrange(names.OUTCOMES, 0, -1), "a nudge")[0])
    assert json.loads(base64.b64decode(asked["body"]))[1] == {"job_ids": ["a", "b"]}
    assert broker.llen(names.WEBHOOKS) == 0
