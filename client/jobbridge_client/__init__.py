"""The bridge's client for pipelines: `Client`, `AsyncClient`, and `verify` for webhooks."""

from jobbridge_client.async_client import AsyncClient
from jobbridge_client.client import Client
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

__version__ = "0.1.0"
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
