"""What an API process is made of: assembled once in api/create_app.py, the same for every request."""

from dataclasses import dataclass
from typing import cast

from flask import current_app
from gevent.threadpool import ThreadPool

from bridge.admission.key_cache import KeyCache
from bridge.admission.limits import Limits
from bridge.long_poll.admit import LongPoll
from bridge.runtime import Runtime


@dataclass(frozen=True)
class Parts:
    """The parts of one application, in `app.extensions["bridge"]`."""

    runtime: Runtime
    limits: Limits
    polls: LongPoll
    keys: KeyCache | None  # None: BRIDGE_AUTH=off
    aside: ThreadPool  # where large bodies are parsed, off the event loop


def parts() -> Parts:
    """Return what this application is made of."""
    return cast(Parts, current_app.extensions["bridge"])
