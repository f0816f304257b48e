"""Sends what a handler stores with its job: along with heartbeats, and before the result.

Neither may cost the job: if the bridge does not take it, a log is dropped and a checkpoint is sent again later.
"""

from __future__ import annotations

import logging

from bridge_worker.answers import CallFailed
from bridge_worker.client import BridgeClient
from bridge_worker.held import Held
from bridge_worker.text import storable

log = logging.getLogger(__name__)


def send_kept(client: BridgeClient, held: Held) -> None:
    """Send the log lines and the checkpoint. Never raises: other answers decide on the job."""
    while not held.over.is_set():
        lines, checkpoint = held.kept.take()
        if not lines and checkpoint is None:
            return
        try:
            if checkpoint is not None:
                client.save_checkpoint(held.claim, storable(checkpoint))
            if lines:
                client.append_log(held.claim, [storable(line) for line in lines])
        except CallFailed as error:
            log.info("job=%s log or checkpoint not taken: %s", held.id, error)
            if checkpoint is not None and error.retryable:
                held.kept.replace(checkpoint, unless_newer=True)
            return
