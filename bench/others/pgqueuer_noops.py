"""PgQueuer's drain of no-ops: `.venv-bench/bin/python pgqueuer_noops.py URL JOBS` prints jobs a second.

It records finished jobs later, many at a time: the last of these writes is within the time here, but a job is not
durably done when its task ends, unlike with the bridge.
"""

import asyncio
import sys
import time

import asyncpg  # type: ignore[import-not-found]  # in .venv-bench alone
from pgqueuer import AsyncpgDriver, Job, QueueManager  # type: ignore[import-not-found]
from pgqueuer.queries import Queries  # type: ignore[import-not-found]
from pgqueuer.types import QueueExecutionMode  # type: ignore[import-not-found]


async def main(url: str, jobs: int) -> None:
    """Enqueue the jobs, then process them until none is left."""
    connection = await asyncpg.connect(url)
    driver = AsyncpgDriver(connection)
    queries = Queries(driver)
    if await connection.fetchval("SELECT to_regclass('pgqueuer') IS NULL"):
        await queries.install()
    manager = QueueManager(queries)

    @manager.entrypoint("noop")
    async def noop(job: Job) -> None:
        """Do nothing."""

    await queries.enqueue(["noop"] * jobs, [None] * jobs, [0] * jobs)
    began = time.monotonic()
    await manager.run(mode=QueueExecutionMode.drain)
    took = time.monotonic() - began
    if left := await connection.fetchval("SELECT count(*) FROM pgqueuer"):
        raise SystemExit(f"{left} jobs were not done")
    print(jobs / took)
    await connection.close()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
