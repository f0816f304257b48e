"""Webhooks: sent by threads of a Celery process, so that a hanging receiver occupies no task."""

from functools import cache, partial

from bridge import names
from bridge.broker import lying
from bridge.crash_points import reach
from bridge.jobs.callbacks import allowed
from bridge.outbox.senders import Senders
from bridge.outbox.webhooks import any_due
from bridge.outgoing.post import post
from tasks.app import app, runtime
from tasks.sweep import sweep

MOST_LYING = 50  # unread messages; each finds all that is due, so more of them are of no use


@cache
def senders() -> Senders:
    """Return this process's sender threads."""
    return Senders(runtime(), partial(post, allowed(runtime().settings)))


@app.task(name=names.SEND_WEBHOOKS, send_events=False)
def send_webhooks() -> None:
    """Start sending the webhooks that are due, without waiting for them."""
    senders().wake()


@app.task(name=names.CALL_BACK, send_events=False)  # a sweep: tasks/upkeep.py
def call_back() -> None:
    """Request sending if webhooks are due: nobody may have requested it, or their sender may have died."""
    with sweep("call_back"):
        if any_due(runtime()) and lying(app, names.WEBHOOKS) < MOST_LYING:
            reach("webhooks.before_call")
            app.send_task(names.SEND_WEBHOOKS, queue=names.WEBHOOKS, retry=False, ignore_result=True)
