"""The bridge's client for pipelines: `Client`, `AsyncClient`, and `verify` for webhooks.

bridge-worker sends and fetches files by the steps of its calls (steps.py) over its own connection.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from jobbridge_client.errors import (
    BadAnswer,
    BadFile,
    BadSetting,
    BadSignature,
    BridgeError,
    Conflict,
    Denied,
    Invalid,
    JobFailed,
    NotFound,
    Refused,
    TooMany,
    Unreachable,
    WaitTimeout,
)
from jobbridge_client.records import Artifact, Batch, BatchState, Filters, Job, JobFields, Page, Result, Upload
from jobbridge_client.steps import Reply
from jobbridge_client.webhooks import verify

if TYPE_CHECKING:
    from jobbridge_client.async_client import AsyncClient
    from jobbridge_client.client import Client

__version__ = "0.2.0"
__all__ = [
    "Artifact",
    "AsyncClient",
    "BadAnswer",
    "BadFile",
    "BadSetting",
    "BadSignature",
    "Batch",
    "BatchState",
    "BridgeError",
    "Client",
    "Conflict",
    "Denied",
    "Filters",
    "Invalid",
    "Job",
    "JobFailed",
    "JobFields",
    "NotFound",
    "Page",
    "Refused",
    "Reply",
    "Result",
    "TooMany",
    "Unreachable",
    "Upload",
    "WaitTimeout",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Load a client when it is asked for: bridge-worker runs the steps itself, on Python 3.10 without httpx2."""
    if name in ("Client", "AsyncClient") and sys.version_info < (3, 11):
        raise ImportError(f"{name} needs Python 3.11 or later, as httpx2 does")
    if name == "Client":
        from jobbridge_client.client import Client

        return Client
    if name == "AsyncClient":
        from jobbridge_client.async_client import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
