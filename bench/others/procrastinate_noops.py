"""Procrastinate's drain of no-ops: `.venv-bench/bin/python procrastinate_noops.py URL JOBS` prints jobs a second."""

import asyncio
import sys
import time

from procrastinate import App, PsycopgConnector  # type: ignore[import-not-found]  # in .venv-bench alone

CONCURRENCY = 10  # jobs at a time in one worker; with one at a time it is slower


async def main(url: str, jobs: int) -> None:
    """Defer the jobs, then let a worker process them until none is left."""
    app = App(connector=PsycopgConnector(conninfo=url))

    @app.task(name="noop")
    async def noop(place: int) -> None:
        """Do nothing."""

    async with app.open_async():
        if await app.connector.execute_query_one_async("SELECT to_regclass('procrastinate_jobs') IS NULL AS new") == {
            "new": True
        }:
            await app.schema_manager.apply_schema_async()
        await noop.batch_defer_async(*({"place": place} for place in range(jobs)))
        began = time.monotonic()
        await app.run_worker_async(wait=False, concurrency=CONCURRENCY, install_signal_handlers=False)
        took = time.monotonic() - began
        left = await app.connector.execute_query_one_async(
            "SELECT count(*) AS jobs FROM procrastinate_jobs WHERE status <> 'succeeded'"
        )
        if left["jobs"]:
            raise SystemExit(f"{left['jobs']} jobs were not done")
        print(jobs / took)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
