"""Sends what a handler stores with its job: along with heartbeats, and before a failure is reported.

Neither may cost the job: if the bridge does not take it, a log is dropped and a checkpoint is sent again later.
Checkpoints are sent beside the heartbeats, as an upload may take longer than a lease.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from bridge_worker import keeping, kill_points, transfers
from bridge_worker.answers import CallFailed
from bridge_worker.client import BridgeClient
from bridge_worker.held import Held
from bridge_worker.keeping import CheckpointFile
from bridge_worker.send_files import Sending
from bridge_worker.text import storable
from jobbridge_client import resumable_uploads

log = logging.getLogger(__name__)
LAST_SECONDS = 60.0  # for the last checkpoint before a failure


def send_log(client: BridgeClient, held: Held) -> None:
    """Send the log lines. Never raises: other answers decide on the job."""
    while not held.over.is_set() and (lines := held.kept.take_lines()):
        try:
            client.append_log(held.claim, [storable(line) for line in lines])
        except CallFailed as error:
            log.info("job=%s log not taken: %s", held.id, error)
            return


def send_checkpoint_aside(client: BridgeClient, held: Held) -> None:
    """Send the checkpoint in a thread of its own, unless one does so already."""
    if held.kept.has_checkpoint() and not held.kept.sending.locked() and not held.is_ending():
        _begin(held, lambda: send_checkpoint(client, held))


def _begin(held: Held, send: Callable[[], None]) -> bool:
    """Send in a thread of its own; return whether it could be started."""
    try:
        threading.Thread(target=send, name=f"checkpoint-{held.id}", daemon=True).start()
    except RuntimeError as error:
        log.info("job=%s checkpoint not sent yet: %s", held.id, error)
        return False
    return True


def send_checkpoint(client: BridgeClient, held: Held) -> None:
    """Send the checkpoint, after those that are being sent. Never raises, as above."""
    with held.kept.sending:
        while not held.is_ending() and (checkpoint := held.kept.take_checkpoint()) is not None:
            kill_points.reach("checkpoint.before_send")
            try:
                _send(client, held, checkpoint)
                keeping.remove(checkpoint)
            except (CallFailed, OSError, ValueError) as error:
                log.info("job=%s checkpoint not taken: %s", held.id, error)
                if isinstance(error, CallFailed) and error.retryable:
                    held.kept.put_back(checkpoint)
                    break
                _drop(client, held, checkpoint)
    if held.ended.is_set():
        drop_checkpoints(client, held)


def send_last_checkpoint(client: BridgeClient, held: Held) -> None:
    """Send the checkpoint before a failure is reported, again where that may pass. Never raises.

    Returns after LAST_SECONDS or a quarter of the time until the deadline, however a call hangs, and as soon as the
    work is no longer wanted.
    """
    if not held.kept.has_checkpoint() and not held.kept.sending.locked():
        return
    done = threading.Event()

    def send() -> None:
        delay = 1.0
        send_checkpoint(client, held)
        while held.kept.has_checkpoint() and not done.wait(delay):
            delay *= 2
            send_checkpoint(client, held)
        done.set()

    if _begin(held, send):
        held.on_over(done.set)
        done.wait(min(LAST_SECONDS, held.seconds_left() / 4))
        held.on_over(lambda: None)
        done.set()


def _send(client: BridgeClient, held: Held, checkpoint: str | CheckpointFile) -> None:
    """Send one checkpoint, in one try. Raises CallFailed, OSError, ValueError."""
    if isinstance(checkpoint, str):
        client.save_checkpoint(held.claim, checkpoint=storable(checkpoint))
        return
    if not held.kept.takes_files:
        raise CallFailed("the bridge takes no upload as a checkpoint", status=422)
    try:
        upload = Sending(client, held, held.is_ending).send_checkpoint(checkpoint)
        client.save_checkpoint(held.claim, checkpoint_upload=upload)
    except CallFailed as error:
        held.kept.takes_files = error.status != 422  # an older bridge
        raise


def drop_checkpoints(client: BridgeClient, held: Held) -> None:
    """Drop what an attempt that has ended has not sent. Never raises."""
    while (checkpoint := held.kept.take_checkpoint()) is not None:
        _drop(client, held, checkpoint)


def _drop(client: BridgeClient, held: Held, checkpoint: str | CheckpointFile) -> None:
    """Drop a checkpoint, here and on the bridge, where its upload would count for the key for a day."""
    keeping.remove(checkpoint)
    if isinstance(checkpoint, CheckpointFile) and checkpoint.upload:
        try:
            transfers.run(client, held, "upload", resumable_uploads.delete(checkpoint.upload), lambda _: None)
        except CallFailed as error:
            log.info("job=%s upload not deleted: %s", held.id, error)
