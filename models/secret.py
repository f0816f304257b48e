"""Secrets that all processes of one bridge share, created once by the process that first needs one."""

from sqlalchemy import Column, LargeBinary, Table, Text, text

from models.job import Moment, metadata

kept_secrets = Table(
    "kept_secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("secret", LargeBinary, nullable=False),
    Column("made_at", Moment, nullable=False, server_default=text("now()")),
)
