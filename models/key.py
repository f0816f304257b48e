"""API keys. Only a hash is stored."""

from sqlalchemy import CheckConstraint, Column, Index, LargeBinary, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY

from models.job import Moment, metadata

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("prefix", Text, nullable=False, unique=True),
    Column("secret_hash", LargeBinary, nullable=False),  # SHA-256 of the whole key: 256 random bits need no slow hash
    Column("name", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("content_types", ARRAY(Text)),  # null: all
    Column("created_at", Moment, nullable=False, server_default=text("now()")),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
    Column("last_used_at", Moment),
    # The prefix of the key that did it, or a word of bridge/admission/keys.py where it was not a key.
    # null: before this was recorded.
    Column("made_by", Text),
    Column("revoked_by", Text),
    Column("callback_url", Text),  # called for its jobs that name none
    Column("source_fetch", Text),  # who fetches its jobs' sources at addresses, unless a job says; null: the bridge
    Column("webhook_secret", LargeBinary),  # signs its jobs' webhooks; null: none was created
    # The previous one, which signs too for a while after the change.
    Column("webhook_secret_before", LargeBinary),
    Column("webhook_secret_at", Moment),
    CheckConstraint("scopes <@ ARRAY['submit', 'work', 'read', 'admin'] AND scopes <> '{}'", name="scopes"),
)
Index("api_keys_made_by", api_keys.c.made_by)
Index("api_keys_tenant", api_keys.c.tenant, api_keys.c.created_at, api_keys.c.prefix)
