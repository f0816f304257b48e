"""What the dashboard costs: its pages beside a million finished jobs, and lifecycles while it is open in many tabs.

    .venv/bin/python bench/dashboard.py [--jobs 1000000] [--tabs 20] [--slices 8] [--seconds 10]

Prints the median and the longest time of each page, and the lifecycles per second with the tabs open ÷ without them, in
alternating slices. Status 1 if a page's median is 200 ms or more, or more than a twentieth of the lifecycles is lost.
"""

import argparse
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import requests
from sqlalchemy import create_engine, text

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.lifecycles import ROOT, Target, bridge
from bridge.names import API_BASE
from tests.support import big_table
from tests.support.browser import Browser

BATCH_IDS = "CAST('0198c0de-0000-7000-8000-' || lpad(to_hex({}), 12, '0') AS uuid)"
BATCH = "0198c0de-0000-7000-8000-000000000001"
# The texts of completed jobs; of the newest finished ones sixty batches of a thousand; 120 000 webhooks, of which a
# sixth is tried in vain and a sixth was given up.
MORE = (
    """INSERT INTO job_results (job_id, content)
    SELECT id, repeat('A line of text. ', 100) FROM remote_jobs WHERE status = 'completed'""",
    f"""UPDATE remote_jobs j SET batch_id = {BATCH_IDS.format("1 + newest.i / 1000")} FROM (
      SELECT id, row_number() OVER (ORDER BY id DESC) - 1 AS i FROM remote_jobs
      WHERE completed_at IS NOT NULL AND tenant = '{big_table.TENANT}' ORDER BY id DESC LIMIT 60000
    ) newest WHERE j.id = newest.id""",
    f"""INSERT INTO batches (id, tenant, jobs, outcome, created_at)
    SELECT {BATCH_IDS.format("i")}, '{big_table.TENANT}', 1000, true, now() - make_interval(hours => i)
    FROM generate_series(1, 60) AS i""",
    """INSERT INTO webhooks (job_id, n, tenant, key_id, url, kwargs, created_at, since, next_at, tries, delivered_at,
      last_error)
    SELECT id, 1, tenant, id, 'https://h' || i % 500 || '.example.org/x', json_build_object('status', status),
      completed_at, now(), CASE WHEN i % 6 = 0 THEN now() + interval '1 day' END, CASE WHEN i % 6 < 2 THEN 9 ELSE 1 END,
      CASE WHEN i % 6 > 1 THEN completed_at END, CASE WHEN i % 6 < 2 THEN 'The receiver answered 503.' END
    FROM (SELECT *, row_number() OVER () AS i FROM remote_jobs WHERE completed_at IS NOT NULL LIMIT 120000) j""",
)
PAGES = (
    "/ui/", "/ui/history?span=1h", "/ui/history?span=7d", "/ui/jobs", "/ui/jobs?status=completed&content_type=audio",
    "/ui/jobs?worker_id=worker-7", "/ui/batches", f"/ui/batches/{BATCH}", "/ui/workers", "/ui/continuations",
    "/ui/webhooks", "/ui/webhooks?state=delivered", "/ui/webhooks?state=failing", "/ui/keys", "/ui/sweeps",
)  # fmt: skip
TIMES = 15
MOST_MS, LEAST_RATIO = 200.0, 0.95
CLIENTS = 4


def load(url: str, jobs: int) -> None:
    """Load this many finished jobs, and a tenth of it pending, as in the tests of plans."""
    scale = jobs / big_table.FINISHED
    engine = create_engine(url)
    statement = big_table.JOBS
    for count in (big_table.FINISHED, big_table.PENDING):
        statement = statement.replace(str(count), str(int(count * scale)))
    total = big_table.FINISHED + big_table.PENDING
    statement = statement.replace(str(total + big_table.PROCESSING), str(int(total * scale) + big_table.PROCESSING))
    statement = statement.replace(str(total), str(int(total * scale)))
    with engine.begin() as connection:
        connection.execute(text(statement))
        connection.execute(text(big_table.OUTCOMES))
        for statement in MORE:
            connection.execute(text(statement))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


def page_times(browser: Browser, job_id: str) -> list[tuple[str, float, float]]:
    """Return (page, median ms, longest ms) of each page."""
    found = []
    for page in (*PAGES, f"/ui/jobs/{job_id}"):
        took = []
        for _ in range(TIMES):
            began = time.perf_counter()
            answer = browser.get(page)
            took.append((time.perf_counter() - began) * 1000)
            assert answer.status_code == 200, (page, answer.status_code)
        found.append((page.replace(job_id, "<job>"), statistics.median(took[1:]), max(took[1:])))
    return found


class Lifecycles:
    """Clients that create, claim and complete, one job after the other."""

    def __init__(self, target: Target) -> None:
        self._url, self._source = target.url + API_BASE, target.source
        self._headers = {"Authorization": f"Bearer {target.key}"}

    def rate(self, seconds: float) -> float:
        """Return the lifecycles per second."""
        counts, end = [0] * CLIENTS, time.monotonic() + seconds

        def live(number: int) -> None:
            session = requests.Session()
            session.headers.update(self._headers)
            kind = f"lively-{number}"
            new = {"source_file_path": self._source, "content_type": kind, "ingestion_task_id": "t"}
            while time.monotonic() < end:
                session.post(self._url, json=new, timeout=60).raise_for_status()
                poll = {"worker_id": kind, "content_types": kind, "wait": "10"}
                [job] = session.get(f"{self._url}/poll", params=poll, timeout=60).json()["jobs"]
                done = {"success": True, "content": "x", "lease_token": job["lease_token"]}
                session.put(f"{self._url}/{job['job_id']}/result", json=done, timeout=60).raise_for_status()
                counts[number] += 1

        threads = [threading.Thread(target=live, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / seconds


class Tabs:
    """The overview in `count` visible tabs: its numbers every 5 s, its plots every 15 s."""

    def __init__(self, browser: Browser, count: int) -> None:
        self._browser, self._ended = browser, threading.Event()
        self._threads = [threading.Thread(target=self._look, args=(5 * n / count,)) for n in range(count)]

    def _look(self, first: float) -> None:
        session = requests.Session()
        session.cookies.update(self._browser.session.cookies)
        turn, wait = 0, first
        while not self._ended.wait(wait):
            session.get(self._browser.url + "/ui/", headers={"HX-Request": "true"}, timeout=60)
            if turn % 3 == 0:
                session.get(self._browser.url + "/ui/history?span=1h", headers={"HX-Request": "true"}, timeout=60)
            turn, wait = turn + 1, 5.0

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def main() -> int:
    """Measure; return 1 if the dashboard costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=big_table.FINISHED)
    parser.add_argument("--tabs", type=int, default=20)
    parser.add_argument("--slices", type=int, default=8, help="of each kind")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a slice")
    given = parser.parse_args()
    with bridge("bridge", ROOT, ["BRIDGE_API_PROCESSES=1"]) as target:
        began = time.monotonic()
        load(target.environment["LOAD_DATABASE"], given.jobs)
        print(f"{given.jobs} finished jobs loaded in {time.monotonic() - began:.0f} s", flush=True)
        browser = Browser(target.url, target.key)
        listed = requests.get(
            target.url + API_BASE, params={"limit": "1", "status": "completed"}, timeout=60,
            headers={"Authorization": f"Bearer {target.key}"},
        ).json()  # fmt: skip
        pages = page_times(browser, listed["jobs"][0]["job_id"])
        for page, median, longest in pages:
            print(f"{page:50} median {median:6.1f} ms   longest {longest:6.1f} ms", flush=True)
        lives = Lifecycles(target)
        lives.rate(given.seconds / 2)
        quiet, looked = [], []
        for _ in range(given.slices):
            quiet.append(lives.rate(given.seconds))
            with Tabs(browser, given.tabs):
                looked.append(lives.rate(given.seconds))
        ratio = statistics.median(b / a for a, b in zip(quiet, looked, strict=True))
        print(f"lifecycles a second: {statistics.median(quiet):.0f} alone, {statistics.median(looked):.0f} with"
              f" {given.tabs} tabs; median ratio of pairs {ratio:.3f}")  # fmt: skip
        slow = [page for page, median, _ in pages if median >= MOST_MS]
        return 1 if slow or ratio < LEAST_RATIO else 0


if __name__ == "__main__":
    sys.exit(main())
