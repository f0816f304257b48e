"""How full the quotas of uploads are: of the keys of a tenant, of the tenant, and of all."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, text

from bridge.key_limits import KeyLimits

NEARLY = 0.9  # of a quota
KEPT = "tenant_kept_bytes"  # the quota of what jobs name
MOST_KEYS = 5  # of a tenant are named, those with the most

FULLEST = text(f"""
SELECT u.tenant, k.name, k.prefix, u.bytes, u.tenant_bytes, u.kept_bytes
FROM (
  SELECT tenant, key_id, bytes, CAST(sum(bytes) OVER (PARTITION BY tenant) AS bigint) AS tenant_bytes,
    CAST(sum(kept) OVER (PARTITION BY tenant) AS bigint) AS kept_bytes
  FROM upload_usage WHERE tenant = :tenant OR :all
) u LEFT JOIN api_keys k ON k.id = u.key_id
WHERE u.bytes >= :key_bytes OR u.tenant_bytes >= :all_bytes OR u.kept_bytes >= :kept_bytes
ORDER BY u.bytes DESC LIMIT {MOST_KEYS}
""")
OF_TENANT = text("""
SELECT coalesce(sum(bytes), 0) AS bytes, coalesce(sum(kept), 0) AS kept FROM upload_usage WHERE tenant = :tenant
""")
MOST_BYTES = text("""
SELECT coalesce(sum(bytes + kept), 0) AS whole, coalesce(max(bytes), 0) AS tenant, coalesce(max(kept), 0) AS kept,
  coalesce(max(key_bytes), 0) AS key
FROM (
  SELECT sum(bytes) AS bytes, sum(kept) AS kept, max(bytes) AS key_bytes FROM upload_usage GROUP BY tenant
) of_tenant
""")


class Share(NamedTuple):
    """How much of a quota is taken."""

    whose: str  # in a sentence
    bytes: int
    quota: int  # bytes
    setting: str  # its name in BRIDGE_LIMITS

    def sentence(self) -> str:
        """Say how full it is, in a sentence."""
        return (
            f"The uploads of {self.whose} take {self.bytes / self.quota:.0%} of their quota:"
            f" {self.bytes / 2**30:.1f} of {self.quota / 2**30:.1f} GiB; a full one refuses new uploads."
        )

    def cure(self) -> str:
        """Say what to do about it, in a sentence."""
        last = "What no job names goes BRIDGE_UPLOAD_EXPIRY_SECONDS after its last byte: lower that"
        if self.setting == KEPT:
            last = "They are kept for as long as the jobs that name them: lower BRIDGE_RETENTION_DAYS"
        return f"{last}, or raise {self.setting} in BRIDGE_LIMITS."


def nearly_full(connection: Connection, limits: KeyLimits, tenant: str | None) -> list[Share]:
    """Return the quotas of a tenant (None: of any) that are nearly full or full, the tenant's own first."""
    least = {
        "key_bytes": NEARLY * limits.upload_bytes,
        "all_bytes": NEARLY * limits.tenant_upload_bytes,
        "kept_bytes": NEARLY * limits.tenant_kept_bytes,
    }
    rows = connection.execute(FULLEST, {**least, "tenant": tenant, "all": tenant is None}).all()
    return list(dict.fromkeys([*_tenants(rows, limits), *_keys(rows, limits)]))


def _tenants(rows: Any, limits: KeyLimits) -> Iterator[Share]:
    for row in rows:
        if row.tenant_bytes >= NEARLY * limits.tenant_upload_bytes:
            whose, quota = f"tenant {row.tenant}", limits.tenant_upload_bytes
            yield Share(whose, row.tenant_bytes, quota, "tenant_upload_bytes")
        if row.kept_bytes >= NEARLY * limits.tenant_kept_bytes:
            yield Share(f"tenant {row.tenant} that jobs name", row.kept_bytes, limits.tenant_kept_bytes, KEPT)


def _keys(rows: Any, limits: KeyLimits) -> Iterator[Share]:
    for row in rows:
        if row.bytes >= NEARLY * limits.upload_bytes:
            whose = f"key {row.name} ({row.prefix})" if row.prefix else "a key that is gone"
            yield Share(whose, row.bytes, limits.upload_bytes, "upload_bytes")


def bytes_of(connection: Connection, tenant: str) -> Row[Any]:
    """Return the bytes of a tenant's uploads: those that no job names, and those that jobs name (`kept`)."""
    return connection.execute(OF_TENANT, {"tenant": tenant}).one()


def most_bytes(connection: Connection) -> Row[Any]:
    """Return the bytes of all uploads (`whole`), and the most of a tenant, a key, and a tenant's jobs (`kept`)."""
    return connection.execute(MOST_BYTES).one()
