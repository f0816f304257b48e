"""Uploaded files: how much of each is stored, in which objects, and how many bytes each key takes."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    text,
)

from models.job import Moment, metadata

# The file of a finished upload is its segments in order. `received` and the segments change together, in one
# statement, after the segments' objects were stored.
uploads = Table(
    "uploads",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("key_id", Uuid, nullable=False),
    Column("job_id", Uuid),  # of a worker's upload: the job of its attempt; no foreign key, as it may be deleted
    Column("attempt", Integer),
    Column("length", BigInteger, nullable=False),  # announced bytes
    Column("received", BigInteger, nullable=False, server_default=text("0")),  # stored bytes
    Column("segments", Integer, nullable=False, server_default=text("0")),
    Column("name", Text),
    Column("media_type", Text),
    Column("metadata", Text),  # Upload-Metadata as it was sent
    Column("sha256", LargeBinary),  # of the whole
    Column("utf8", Boolean),  # whether the whole is UTF-8; null: not known
    Column("created_at", Moment, nullable=False, server_default=text("now()")),
    Column("expires_at", Moment),  # null: a job names it
    Column("kept", Boolean, nullable=False, server_default=text("false")),  # counts as `upload_usage.kept`
    Column("join_at", Moment, nullable=False, server_default=text("now()")),  # its objects are not joined before
    CheckConstraint("received BETWEEN 0 AND length", name="received"),
    CheckConstraint("(received = length) = (sha256 IS NOT NULL)", name="whole_has_digest"),
    CheckConstraint("(job_id IS NULL) = (attempt IS NULL)", name="attempt_of_job"),
)
Index("uploads_expire", uploads.c.expires_at)
IN_PIECES = "segments > 1 AND sha256 IS NOT NULL"  # received whole, in several objects
UNNAMED_OF_ATTEMPT = "job_id IS NOT NULL AND expires_at IS NOT NULL"
_u = uploads.c
Index("uploads_to_join", text("(expires_at IS NOT NULL)"), _u.join_at, postgresql_where=text(IN_PIECES))
Index("uploads_of_attempts", _u.job_id, _u.id, postgresql_where=text(UNNAMED_OF_ATTEMPT))
Index("uploads_named", uploads.c.tenant, postgresql_where=text("expires_at IS NULL AND NOT kept"))

# The objects in the store. Each has its row before an object of that name exists, so that the object is found again
# even if the process dies: `size` is null until the upload counts it, and what belongs to no upload any more is
# removed, first the object, then its row.
upload_segments = Table(
    "upload_segments",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("object", Text, nullable=False),
    Column("upload_id", Uuid, ForeignKey("uploads.id", ondelete="SET NULL")),
    Column("start", BigInteger),  # where in the file it begins
    Column("size", BigInteger),
    Column("written_at", Moment, nullable=False, server_default=text("now()")),
    CheckConstraint("(start IS NULL) = (size IS NULL)", name="counted"),
)
_s = upload_segments.c
Index("upload_segments_of", _s.upload_id, _s.start)
Index("upload_segments_unnamed", _s.written_at, postgresql_where=text("upload_id IS NULL"))
Index("upload_segments_uncounted", _s.written_at, postgresql_where=text("size IS NULL AND upload_id IS NOT NULL"))

# How many bytes the uploads of a key take: of its quota, and of its tenant's for uploads that jobs name. Changed
# together with them; an announcement that finds no room moves what jobs have named since from one to the other.
upload_usage = Table(
    "upload_usage",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("key_id", Uuid, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("kept", BigInteger, nullable=False, server_default=text("0")),
)

# Which job needs which upload: the upload stays as long as the job. When the last of these rows is deleted, a trigger
# sets the upload's expiry again.
job_uploads = Table(
    "job_uploads",
    metadata,
    Column("job_id", Uuid, ForeignKey("remote_jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("upload_id", Uuid, ForeignKey("uploads.id"), primary_key=True),
)
Index("job_uploads_upload", job_uploads.c.upload_id)

TEXT = ""  # the name of a result's text among its files

# The files of a job's result: its artifacts by their names, and its text if that was uploaded. job_uploads keeps their
# bytes.
job_files = Table(
    "job_files",
    metadata,
    Column("job_id", Uuid, ForeignKey("remote_jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("name", Text(collation="C"), primary_key=True),  # its order is that of its bytes
    Column("upload_id", Uuid, nullable=False),
    Column("media_type", Text, nullable=False),
)
