"""Limits of a key, its tenant and an address (BRIDGE_LIMITS), the same for all keys.

Enforced by bridge/admission/limits.py, of uploads by bridge/blobs/uploads.py, of pauses by bridge/workers/pauses.py.
What else is bounded has no setting: bridge/admission/at_once.py.
"""

from pydantic import BaseModel, ConfigDict, Field


class KeyLimits(BaseModel):
    """The most that a key or its tenant may ask for; `pending` and `content_types` count its tenant's waiting jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    requests: int = Field(600_000, ge=1)  # of a key within a minute
    parked: int = Field(12_000, ge=1)  # polls of a key that wait; below what one API process takes
    in_hand: int = Field(100_000, ge=1)  # jobs that the workers of a key hold
    pending: int = Field(5_000_000, ge=1)
    content_types: int = Field(1000, ge=1)
    failures: int = Field(600, ge=1)  # invalid keys from an address within a minute
    tenant_requests: int = Field(3_000_000, ge=1)  # of all keys of a tenant within a minute
    tenant_parked: int = Field(15_000, ge=1)  # of all keys of a tenant, like the next
    tenant_in_hand: int = Field(500_000, ge=1)
    keys: int = Field(1000, ge=1)  # valid ones of a tenant
    pauses: int = Field(500, ge=1)  # of a tenant's workers by operators, and as many by the bridge
    upload_bytes: int = Field(107_374_182_400, ge=1)  # of a key's uploads that no job names
    tenant_upload_bytes: int = Field(1_099_511_627_776, ge=1)
    tenant_kept_bytes: int = Field(1_099_511_627_776, ge=1)  # of a tenant's uploads that jobs name
