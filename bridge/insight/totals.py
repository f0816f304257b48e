"""What Celery's processes count: summed in memory, written to PostgreSQL every few seconds, shown by all API processes.

Nobody can ask a Celery process for its metrics, and it may run on any machine. What it had not written when it was
killed is lost.
"""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.utils import floatToGoString
from sqlalchemy import Connection, Engine, text

from bridge.background import Supervised
from bridge.insight.counting import FAMILIES, MOST_TIMED, Family
from bridge.insight.gauges import MOST_TYPES, OTHER

TELL_SECONDS = 5.0

LOCK = 7268123  # an arbitrary number that no other advisory lock of the bridge uses
# One process writes at a time, so that all together keep the bound on content types, also those that start later.
ALONE = text(f"SELECT pg_advisory_xact_lock({LOCK})")
KNOWN = text("SELECT DISTINCT name, CAST(labels AS json) ->> 'content_type' AS content_type FROM metric_totals")
ADD = text("""
INSERT INTO metric_totals (name, labels, value)
SELECT * FROM unnest(CAST(:names AS text[]), CAST(:labels AS text[]), CAST(:values AS float[]))
  AS t(name, labels, value)
ON CONFLICT (name, labels) DO UPDATE SET value = metric_totals.value + excluded.value
""")
READ = text("SELECT name, labels, value FROM metric_totals")


class Totals:
    """The counts of a process that PostgreSQL does not have yet; a bridge.insight.counting.Tally."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._since: defaultdict[tuple[str, str], float] = defaultdict(float)

    def inc(self, family: Family, *labels: str) -> None:
        self._add([(f"{family.name}_total", dict(zip(family.labels, labels, strict=True)), 1.0)])

    def observe(self, family: Family, seconds: float, *labels: str) -> None:
        named = dict(zip(family.labels, labels, strict=True))
        bounds = (*family.buckets, float("inf"))
        buckets = [
            (f"{family.name}_bucket", {**named, "le": floatToGoString(bound)}, float(seconds <= bound))
            for bound in bounds
        ]
        self._add([*buckets, (f"{family.name}_sum", named, seconds), (f"{family.name}_count", named, 1.0)])

    def _add(self, samples: list[tuple[str, dict[str, str], float]]) -> None:
        with self._lock:
            for name, labels, value in samples:
                self._since[name, json.dumps(labels, sort_keys=True)] += value

    def tell(self) -> None:
        """Write what came since the last time to PostgreSQL. Raises SQLAlchemyError; the next time writes it then."""
        with self._lock:
            since = dict(self._since)
        if not since:
            return
        with self._engine.begin() as connection:
            connection.execute(ALONE)
            told = _bounded(connection, since)
            params = {"names": [name for name, _ in told], "labels": [labels for _, labels in told]}
            connection.execute(ADD, {**params, "values": list(told.values())})
        with self._lock:
            for key, value in since.items():
                self._since[key] -= value
                if not self._since[key]:
                    del self._since[key]

    def keep(self) -> None:
        """Write every few seconds from now on, in a separate thread."""
        quietly = Supervised("tell what was counted")

        def tell_on() -> None:
            while True:
                time.sleep(TELL_SECONDS)
                quietly(self.tell)

        threading.Thread(target=tell_on, name="metrics", daemon=True).start()


def _bounded(connection: Connection, since: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Bound the counts: content types beyond those that have a separate label in the table share one."""
    own: defaultdict[str, set[str]] = defaultdict(set)
    for row in connection.execute(KNOWN):
        own[row.name].add(row.content_type)
    bounded: defaultdict[tuple[str, str], float] = defaultdict(float)
    for (name, labels), value in since.items():
        named = json.loads(labels)
        if (kind := named.get("content_type")) is not None and kind not in own[name]:
            if len(own[name] - {OTHER}) < (MOST_TYPES if name.endswith("_total") else MOST_TIMED):
                own[name].add(kind)
            else:
                named["content_type"] = OTHER
        bounded[name, json.dumps(named, sort_keys=True)] += value
    return bounded


def add_totals(connection: Connection, metrics: Iterable[Metric]) -> list[Metric]:
    """Return these metrics of the API's processes, with what Celery's processes have counted."""
    found = {metric.name: metric for metric in metrics}
    kept: defaultdict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(READ):
        kept[row.name].append(row)
    for family in FAMILIES:
        suffixes = ("_bucket", "_sum", "_count") if family.buckets else ("_total",)
        rows = [row for suffix in suffixes for row in kept[family.name + suffix]]
        kind = "histogram" if family.buckets else "counter"
        metric = found.setdefault(family.name, Metric(family.name, family.told, kind))
        values = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in metric.samples}
        for labels in family.known:
            values.setdefault((f"{family.name}_total", tuple(sorted(zip(family.labels, labels, strict=True)))), 0.0)
        for row in rows:
            key = (row.name, tuple(sorted(json.loads(row.labels).items())))
            values[key] = values.get(key, 0.0) + row.value
        metric.samples = []
        for (name, pairs), value in sorted(values.items(), key=_place):
            metric.add_sample(name, dict(pairs), value)
    return list(found.values())


def _place(sample: tuple[tuple[str, tuple[tuple[str, str], ...]], float]) -> Any:
    """Return the sort key that keeps a histogram's lines together, its buckets in order."""
    (name, labels), _ = sample
    bound = next((float(value) for label, value in labels if label == "le"), float("inf"))
    order = ("_bucket", "_count", "_sum")
    which = next((n for n, suffix in enumerate(order) if name.endswith(suffix)), 0)
    return [pair for pair in labels if pair[0] != "le"], which, bound
