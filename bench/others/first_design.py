"""The first design of this service as it was written, with its races: FastAPI and SQLAlchemy's ORM, no wait, no Celery.

    FIRST_DESIGN_URL=postgresql+psycopg2://… .venv-bench/bin/python -m uvicorn bench.others.first_design:app

Each poll selects, changes row by row and commits. Its routes are coroutines that block, so more than about fifteen
concurrent requests wait for each other's connections for ever: it is measured with four connections, its better case.
"""

import logging
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, HTTPException  # type: ignore[import-not-found]  # in .venv-bench alone
from pydantic import BaseModel, Field
from sqlalchemy import String, Text, create_engine, or_, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
logger = structlog.get_logger(__name__)
engine = create_engine(os.environ["FIRST_DESIGN_URL"])
sessions = sessionmaker(bind=engine)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


class Base(DeclarativeBase):
    """The tables."""

    type_annotation_map = {dict[str, Any]: JSONB}


class RemoteJob(Base):
    """A job, with an index for each column that might be queried."""

    __tablename__ = "first_design_jobs"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    ingestion_task_id: Mapped[str] = mapped_column(String(255), index=True)
    source_file_path: Mapped[str] = mapped_column(Text)
    content_type: Mapped[str] = mapped_column(String(50), index=True)
    task_options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    status: Mapped[str] = mapped_column(String(20), default="pending", index=True)
    worker_id: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(default=_now, index=True)
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    error_message: Mapped[str | None] = mapped_column(Text)
    result_data: Mapped[dict[str, Any] | None]
    retry_count: Mapped[int] = mapped_column(default=0)
    max_retries: Mapped[int] = mapped_column(default=3)
    timeout_at: Mapped[datetime | None]


class Create(BaseModel):
    """A new job."""

    source_file_path: str
    content_type: str
    task_options: dict[str, Any] = Field(default_factory=dict)
    ingestion_task_id: str


class Created(BaseModel):
    """The answer to a create."""

    job_id: str
    status: str
    created_at: datetime


class Polled(BaseModel):
    """The answer to a poll; all fields are null if no job waits."""

    job_id: str | None = None
    source_file_url: str | None = None
    content_type: str | None = None
    task_options: dict[str, Any] | None = None


class Result(BaseModel):
    """The result of a job."""

    success: bool
    content: str | None = None
    metadata: dict[str, Any] | None = None
    error_message: str | None = None
    processing_time: float | None = None


class Accepted(BaseModel):
    """The answer to a result."""

    status: str
    ingestion_continued: bool


def session() -> Iterator[Session]:
    """Open a session for a request."""
    with sessions() as opened:
        yield opened


router = APIRouter(prefix="/api/v1/remote-jobs")


@router.post("/", response_model=Created)
async def create(request: Create, db: Session = Depends(session)) -> Created:  # noqa: B008
    """Record a job."""
    job = RemoteJob(**request.model_dump(), timeout_at=_now() + timedelta(hours=1))
    db.add(job)
    db.commit()
    db.refresh(job)
    logger.info("Remote job created", job_id=str(job.id), content_type=job.content_type)
    return Created(job_id=str(job.id), status=job.status, created_at=job.created_at)


@router.get("/poll", response_model=Polled)
async def poll(worker_id: str, content_types: str, max_jobs: int = 1, db: Session = Depends(session)) -> Polled:  # noqa: B008
    """Hand the oldest job out, to everybody who asks at the same moment."""
    wanted = [one.strip() for one in content_types.split(",")]
    in_time = or_(RemoteJob.timeout_at.is_(None), RemoteJob.timeout_at > _now())
    waiting = select(RemoteJob).where(RemoteJob.status == "pending", RemoteJob.content_type.in_(wanted), in_time)
    jobs = db.scalars(waiting.order_by(RemoteJob.created_at).limit(max_jobs)).all()
    for job in jobs:
        job.status, job.worker_id, job.started_at = "processing", worker_id, _now()
    db.commit()
    if not jobs:
        return Polled()
    job = jobs[0]
    logger.info("Job assigned to worker", job_id=str(job.id), worker_id=worker_id, content_type=job.content_type)
    where = f"/api/v1/remote-jobs/{job.id}/download"
    return Polled(
        job_id=str(job.id), source_file_url=where, content_type=job.content_type, task_options=job.task_options
    )


@router.put("/{job_id}/result", response_model=Accepted)
async def result(job_id: str, result: Result, db: Session = Depends(session)) -> Accepted:  # noqa: B008
    """Record the result of a job, whoever sends it."""
    job = db.scalars(select(RemoteJob).where(RemoteJob.id == uuid.UUID(job_id))).first()
    if job is None:
        raise HTTPException(404, "unknown job")
    job.completed_at = _now()
    if result.success:
        job.status, job.result_data = "completed", result.model_dump(include={"content", "metadata", "processing_time"})
    else:
        job.status, job.error_message, job.retry_count = "failed", result.error_message, job.retry_count + 1
    db.commit()
    db.refresh(job)
    logger.info("Job result submitted", job_id=job_id, status=job.status, success=result.success)
    return Accepted(status=job.status, ingestion_continued=result.success)


Base.metadata.create_all(engine)
app = FastAPI()
app.include_router(router)
