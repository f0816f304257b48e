"""Files that the bridge cannot see, sent to it in pieces that resume, by its client for pipelines."""

from __future__ import annotations

from pathlib import Path

from bridge.cli.errors import Refused, RefusedByBridge, Unreachable
from bridge.cli.remote.http import Bridge
from bridge.cli.text import clean

PATIENCE = 15.0  # seconds in which nothing comes through; somebody waits for the command


def upload(bridge: Bridge, path: Path) -> str:
    """Send a file; its upload's ID. Raises Refused: it cannot be read, or the bridge refuses it; Unreachable."""
    import jobbridge_client as client  # 0.1 s that other commands need not wait

    try:
        with client.Client(bridge.url, bridge.key, patience=PATIENCE, allow_http=True) as connected:
            return connected.upload(path).upload_id
    except client.Refused as refused:
        raise RefusedByBridge([clean(refused.detail)], passing=refused.status in (429, 503)) from None
    except (client.Unreachable, client.BadAnswer) as error:
        raise Unreachable(clean(str(error))) from None
    except client.BridgeError as error:
        raise Refused(clean(str(error))) from None
