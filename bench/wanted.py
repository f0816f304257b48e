"""The bounds of the figures, and where each figure is in the JSON of bench/full.py."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Found = dict[str, Any]  # the JSON of each measurement, by its name


class Wanted(NamedTuple):
    """A figure with its bound."""

    figure: str
    measurement: str  # in bench/full.py
    values: Callable[[Any], list[float]]  # of its JSON: one per round, or all samples; the median is judged
    least: float | None = None
    most: float | None = None
    unit: str = ""

    def bound(self) -> str:
        """Return the bound as text."""
        if self.least is not None:
            return f"≥ {self.least:g}{self.unit}"
        return "–" if self.most is None else f"≤ {self.most:g}{self.unit}"

    def seen(self, found: Found) -> list[float]:
        """Return the values; none if it was not measured."""
        if self.measurement not in found:
            return []
        try:
            return self.values(found[self.measurement])
        except (KeyError, IndexError, TypeError, ZeroDivisionError):
            return []

    def holds(self, values: Sequence[float]) -> bool | None:
        """Return whether the median is within the bound; None without a bound or a value."""
        if not values or (self.least is None and self.most is None):
            return None
        median = statistics.median(values)
        return (self.least is None or median >= self.least) and (self.most is None or median <= self.most)


def points(kept: Any, target: str, connections: int) -> list[Any]:
    """Return the rounds of a target."""
    return [one for one in kept["points"] if (one["target"], one["connections"]) == (target, connections)]


def ratios(kept: Any, of: str, by: str, connections: int) -> list[float]:
    """Return lifecycles per second of a target ÷ those of another, for each round that has both."""
    others = {one["round"]: one["lifecycles"] for one in points(kept, by, connections) if one["lifecycles"]}
    rounds = [one for one in points(kept, of, connections) if one["round"] in others]
    return [one["lifecycles"] / others[one["round"]] for one in rounds]


def _ratio(of: str, by: str, connections: int) -> Callable[[Any], list[float]]:
    return lambda kept: ratios(kept, of, by, connections)


def _at(*path: str, times: float = 1) -> Callable[[Any], list[float]]:
    """Return a function that reads a list or one value at a path, scaled by `times`."""

    def values(kept: Any) -> list[float]:
        for name in path:
            kept = kept[name]
        return [times * one for one in (kept if isinstance(kept, list) else [kept])]

    return values


def _parked(polls: int) -> Callable[[Any], list[float]]:
    """Return a function that compares each turn's median from the create's answer with that of one poll parked."""

    def values(kept: Any) -> list[float]:
        many, one = (kept["parked"][str(count)]["from the answer"] for count in (polls, 1))
        return [here / there for (here, _), (there, _) in zip(many, one, strict=True)]

    return values


def _late_of_parked(kept: Any) -> list[float]:
    return [late for _, late in kept["parked"]["10000"]["create"]]


def _late_of_storm(kept: Any) -> list[float]:
    return [1000 * sorted(kept["creates"])[int(len(kept["creates"]) * 0.99)]]


def _late_of_many(kept: Any) -> list[float]:
    return [one["p99"]["create"] for one in points(kept, "bridge", 512)]


def _intake(kept: Any) -> list[float]:
    return [rate for rate, _ in kept["rounds"]]


def _polls_beside(of: str, by: str) -> Callable[[Any], list[float]]:
    return lambda kept: [kept["polls"][of][0] / kept["polls"][by][0]]


def _download(of: str) -> Callable[[Any], list[float]]:
    """Return a function that divides the seconds of the plain copy by those of the download, round by round."""
    return lambda kept: [a / b for a, b in zip(kept["seconds"]["plain copy"], kept["seconds"][of], strict=True)]


_ONE = "bridge, 128 connections"
_INFO = "bridge, info lines, 128 connections ÷ echo, 128 connections"
_TWO = "bridge, two processes, 512 connections ÷ bridge, 512 connections"
_ECHO = "lifecycles/s ÷ the bare Flask-Smorest echo, "
_GROWTH = "create + claim at 1 M pending and 5 M finished ÷ empty, "
WANTED = [
    Wanted(_ECHO + "128 connections", "lifecycles", _ratio("bridge", "echo", 128), 0.85),
    Wanted(_ECHO + "512 connections", "lifecycles", _ratio("bridge", "echo", 512), 0.85),
    Wanted(_ECHO + "32 connections", "lifecycles", _ratio("bridge", "echo", 32), 0.65),
    Wanted("lifecycles/s ÷ an earlier checkout, 1 connection", "lifecycles", _ratio("bridge", "against", 1), 1.3),
    Wanted(_ECHO + "128 connections, with the default info log", "baselines", _at("ratios", _INFO), 0.70),
    Wanted("two processes ÷ one, 512 connections", "baselines", _at("ratios", _TWO), 1.2),
    Wanted("÷ Celery's drain of no-ops (prefork, one process)", "baselines", _at("ratios", f"{_ONE} ÷ Celery"), 0.95),
    Wanted("÷ the first design (its better case)", "baselines", _at("ratios", f"{_ONE} ÷ first design"), 10),
    Wanted("50 at a time (create, claim, results) ÷ one by one, one connection", "bulk", _at("ratios"), 5),
    Wanted("create, 99 % at 512 connections", "lifecycles", _late_of_many, most=500, unit=" ms"),
    Wanted("claim of 200 000 on stale statistics, p50 in SQL", "growth", _at("stale claims"), most=3, unit=" ms"),
    Wanted("dispatch p50, 1 000 parked ÷ 1", "dispatch", _parked(1000), most=1.2),
    Wanted("dispatch p50, 10 000 parked ÷ 1", "dispatch", _parked(10_000), most=1.2),
    Wanted("create, 99 % with 10 000 parked", "dispatch", _late_of_parked, most=25, unit=" ms"),
    Wanted("memory of a parked poll", "storm", _at("KiB each"), most=25, unit=" KiB"),
    Wanted("memory of an API process and its master, 10 000 parked", "storm", _at("memory"), most=400, unit=" MiB"),
    Wanted("the same, what both share counted once", "storm", _at("memory once"), unit=" MiB"),
    Wanted("CPU of that process while nothing goes on", "storm", _at("idle", times=100), unit=" % of a core"),
    Wanted("storm of 10 000: all parked again", "storm", _at("parked again"), most=10, unit=" s"),
    Wanted("storm of 10 000: create meanwhile, 99 %", "storm", _late_of_storm, most=1000, unit=" ms"),
    Wanted(_GROWTH + "1 connection", "growth", _at("ratios", "1"), most=1.25),
    Wanted(_GROWTH + "32 connections", "growth", _at("ratios", "32"), most=1.25),
    Wanted("intake over Celery, one worker of two processes", "intake", _intake, 2 * 339, unit=" jobs/s"),
    Wanted("result → the pipeline's task starts, p50", "continuation", _at("ms"), most=15, unit=" ms"),
    Wanted("download of a path ÷ a plain copy", "download", _download("path"), 0.8),
    Wanted("download of an upload ÷ a plain copy", "download", _download("upload"), 0.8),
    Wanted("polls beside a download of a path ÷ alone, p50", "download", _polls_beside("path", "nothing"), most=1.5),
    Wanted("polls beside that of an upload ÷ alone, p50", "download", _polls_beside("upload", "nothing"), most=1.5),
    Wanted("polls beside a download ÷ beside a plain copy, p50", "download", _polls_beside("path", "plain copy")),
]
