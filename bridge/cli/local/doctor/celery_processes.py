"""Celery's processes: whether beat sends, workers take, and anybody takes what goes to the pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from celery import Celery

from bridge import names
from bridge.cli.local.doctor.finding import Finding, error, warning
from bridge.redis_client import connect
from bridge.redis_url import SENTINEL, for_celery
from bridge.settings import Settings
from bridge.sweeps import is_late

MOST_LYING = {names.QUEUE: 1000, names.OUTCOMES: 1000, names.WEBHOOKS: 1000, names.SWEEPS: 40}  # messages of each queue
COLLECTION = names.COLLECT.removeprefix("bridge.")  # the one sweep that needs the store
ANSWER_SECONDS = 1.5


def sweeps(ages: Mapping[str, float], lying: Mapping[str, int]) -> Iterator[Finding]:
    """Find sweeps that did not come in time, and whose fault that is."""
    late = sorted(name for name, age in ages.items() if is_late(name, age))
    if ages and not late:
        return
    if late == [COLLECTION]:
        what = f"{COLLECTION} has not succeeded for {ages[COLLECTION] / 60:.0f} min, while the other sweeps run."
        do = "See that Celery's workers can write to the store (BRIDGE_STORE); their log says `store_unavailable`."
        yield warning("store", what, do)
        return
    told = f"No sweep came in time: {', '.join(late)}." if late else "No sweep has run yet."
    if lying[names.SWEEPS]:
        what = f"{told} {lying[names.SWEEPS]} messages wait in {names.SWEEPS} and nobody takes them."
        yield error("celery", what, f"Start `jobbridge celery`, or let one take {names.SWEEPS}.")
    else:
        yield error("beat", f"{told} None waits in {names.SWEEPS}.", "Start `jobbridge beat`, once; read its log.")


def queues(lying: Mapping[str, int]) -> Iterator[Finding]:
    """Find queues that grow."""
    for name, most in MOST_LYING.items():
        if lying[name] > most:
            do = f"Start more of `jobbridge celery --queues {name}`, or see why those that run are stuck."
            yield warning("celery_queue", f"{lying[name]} messages wait in {name}.", do)


def continuation(settings: Settings) -> Iterator[Finding]:
    """Find messages that stay in the pipeline's queue while no worker that answers takes them."""
    queue = settings.continuation_queue
    if settings.continuation_task is None or settings.broker_url is None or queue in names.QUEUES:
        return
    before = lying(settings.broker_url, [queue])[queue]
    if before == 0 or queue in _taken(settings.broker_url):
        return
    after = lying(settings.broker_url, [queue])[queue]
    if after >= before:
        what = f"{after} outcomes wait in the pipeline's queue {queue}, and nothing was seen to take them."
        do = f"Start the pipeline's Celery worker with -Q {queue}, or correct BRIDGE_CONTINUATION_QUEUE."
        yield warning("continuation_queue", what, do)


def _taken(broker: str) -> set[str]:
    """Return the queues of the workers that answer; those that are configured not to answer stay unknown."""
    if broker.startswith(SENTINEL):
        return set()
    app = Celery("doctor", broker=for_celery(broker), set_as_current=False)
    app.conf.broker_transport_options = {"socket_timeout": 3, "socket_connect_timeout": 3}
    answers = app.control.inspect(timeout=ANSWER_SECONDS).active_queues() or {}
    return {queue["name"] for its in answers.values() for queue in its}


def lying(broker: str, queues: Iterable[str] = names.QUEUES) -> dict[str, int]:
    """Count the messages in each queue. Raises redis.RedisError."""
    with connect(broker, socket_timeout=3) as client:
        return {name: int(client.llen(name)) for name in queues}
