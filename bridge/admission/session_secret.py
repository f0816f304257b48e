"""The secret that browser sessions are signed with: BRIDGE_SESSION_SECRET, else one made once and kept in PostgreSQL.

It is kept beside the keys' hashes. Whoever can read the database can sign a session, and could as well insert a key.
"""

import hashlib
import secrets

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert

from bridge.settings import Settings
from models.secret import kept_secrets

NAME = "session"
READ = select(kept_secrets.c.secret).where(kept_secrets.c.name == NAME)
MAKE = insert(kept_secrets).on_conflict_do_nothing()


def session_secret(engine: Engine, settings: Settings) -> bytes:
    """Return the secret, the same in every process of this bridge. Raises SQLAlchemyError."""
    if settings.session_secret is not None:
        return hashlib.sha256(settings.session_secret.encode()).digest()
    with engine.begin() as connection:
        kept: bytes | None = connection.scalar(READ)
        if kept is None:
            connection.execute(MAKE, {"name": NAME, "secret": secrets.token_bytes(32)})
            kept = connection.execute(READ).scalar_one()  # that of whichever process came first
        return bytes(kept)
