"""bench/report.py writes what bench/full.py measured between its marks, and nothing else of the page."""

from xml.etree import ElementTree

import pytest

from bench import full, report, tables
from bench.bar_chart import Bar, bar_chart
from bench.wanted import WANTED, Found, Wanted, ratios

RATES = {
    "echo, 128 connections": [1000.0, 1200.0],
    tables.OURS: [900.0, 900.0],
    "Celery": [None, 450.0],
    "gone": [None],
}
BASELINES = {
    "about": "2026-11-27 20:25 UTC, commit abc, x86_64, 2 cores, load 0.5, 0.4, 0.3, BRIDGE_X=1",
    "rates": RATES,
    "ratios": {f"{tables.OURS} ÷ Celery": [2.0], f"{tables.OURS} ÷ first design": [8.0, 9.0]},
}


TIMES = {"create": 1.0, "poll": 2.0, "result": 3.0}


def lifecycles(*points):
    """Return what is kept of these points: (connections, round, target, lifecycles)."""
    names = ("connections", "round", "target", "lifecycles")
    same = {"cpu": 700.4, "p50": TIMES, "p99": TIMES}
    return {"points": [{**same, **dict(zip(names, point, strict=True))} for point in points]}


def test_each_figure_is_of_a_measurement_that_the_whole_run_makes():
    assert {one.measurement for one in WANTED} <= set(full.COMMANDS)
    assert len({one.figure for one in WANTED}) == len(WANTED)


def test_a_figure_is_judged_by_its_median_and_one_that_is_missing_by_nothing():
    least = Wanted("rate", "one", lambda kept: list(kept["values"]), 2)
    most = Wanted("time", "one", lambda kept: kept["values"], most=2)
    assert [least.holds(values) for values in ([1, 2, 9], [1, 1, 9], [])] == [True, False, None]
    assert [most.holds(values) for values in ([1, 2, 9], [1, 3, 9], [])] == [True, False, None]
    assert least.seen({"one": {"values": [1.0]}}) == [1.0]
    missing: list[Found] = [{}, {"one": {}}, {"one": {"values": None}}]
    assert [least.seen(found) for found in missing] == [[], [], []]


def test_the_tables_show_what_was_measured_and_mark_what_does_not_hold():
    table = tables.wanted({"baselines": BASELINES})
    assert "| ÷ Celery's drain of no-ops (prefork, one process) | ≥ 0.95 | 2 |" in table
    assert "| ÷ the first design (its better case) | ≥ 10 | **8.5 (8–9)** |" in table
    assert table.count("not measured") == len(WANTED) - 2
    told = tables.baselines({"baselines": BASELINES})
    assert "| Celery | 450 | 2 |" in told
    assert "gone" not in told
    assert tables.runs({"baselines": BASELINES}).startswith("commit abc, x86_64, 2 cores: baselines 2026-11-27 20:25 (")


def test_lifecycles_and_dispatch_have_a_row_for_each_form():
    kept = lifecycles(
        (32, 0, "echo", 1000.0), (32, 0, "bridge", 500.0), (32, 1, "echo", 1000.0), (32, 1, "bridge", 700.0)
    )
    assert tables.wanted({"lifecycles": kept}).count("| **0.6 (0.5–0.7)** |") == 1  # without an earlier checkout beside
    table = tables.lifecycles({"lifecycles-2": kept})
    assert table.splitlines()[2:] == [
        "| 2, 32 | 1,000 (1,000–1,000) | 600 (500–700) | 0.6 (0.5–0.7) | 700, 700 | 1 / 1; 2 / 2; 3 / 3 |"
    ]
    alike = {"from sending": [[6.0, 9.0]] * 3, "create": [[3.0, 4.0]] * 3, "memory": 250.6}
    row = {"from the answer": [[3.0, 5.0], [4.0, 9.0], [2.0, 7.0]], **alike}
    table = tables.dispatch({"dispatch": {"parked": {"10000": row}}})
    assert table.splitlines()[2:] == [
        "| 10,000 | 3 (2–4) / 7 (5–9) | 6 (6–6) / 9 (9–9) | 3 (3–3) / 4 (4–4) | 251 MiB |"
    ]
    one = {"from the answer": [[2.0, 5.0]] * 3, **alike}
    told = tables.wanted({"dispatch": {"parked": {"1": one, "10000": row}}})
    assert "| dispatch p50, 10 000 parked ÷ 1 | ≤ 1.2 | **1.5 (1–2)** |" in told
    assert [table({}) for table in tables.TABLES if table is not tables.wanted] == ["", "", "", ""]


def test_a_point_that_failed_takes_only_its_round_from_the_ratios():
    kept = lifecycles(
        (32, 0, "bridge", 500.0), (32, 1, "echo", 1000.0), (32, 1, "bridge", 700.0), (32, 2, "echo", 900.0),
        (32, 2, "bridge", 0.0), (32, 3, "echo", 0.0), (32, 3, "bridge", 900.0), (512, 0, "echo", 1000.0),
        (1, 0, "bridge", 100.0),
    )  # fmt: skip
    assert ratios(kept, "bridge", "echo", 32) == [0.7, 0.0]
    assert ratios(kept, "bridge", "against", 32) == []
    rows = tables.lifecycles({"lifecycles": kept}).splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| 1, 32"]


def test_what_stands_outside_of_the_marks_is_kept():
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    once = report.renewed(page, "new")
    assert once == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    assert report.renewed(once, "new") == once
    for broken in ("no marks", page + page, f"{report.END}{report.BEGIN}"):
        with pytest.raises(SystemExit, match="once each"):
            report.renewed(broken, "new")
    report.renewed(report.PAGE.read_text(), "new")  # the page itself has them


def test_the_picture_is_xml_whose_bars_are_as_long_as_their_medians():
    chart = bar_chart("a < b", [Bar("1 & 2", 50, 40, 60, True), Bar("other", 100, 90, 120, False)])
    bars = list(ElementTree.fromstring(chart).iter("{http://www.w3.org/2000/svg}rect"))[1:]
    first, second = (float(bar.get("width", "0")) for bar in bars)
    assert second == pytest.approx(2 * first, abs=0.2)
    assert "1 &amp; 2" in chart


def test_a_measurement_that_fails_or_takes_too_long_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(full, "ROOT", tmp_path)
    (tmp_path / "one.json").write_text("of an earlier run")
    assert full.measured("one", ["-c", "raise SystemExit(3)"], tmp_path, 60) == "status 3"
    assert not (tmp_path / "one.json").exists()
    asleep = "import time; time.sleep(100)"
    assert full.measured("one", ["-c", asleep], tmp_path, 0.5) == "ended after 0.5 s"
    assert full.measured("one", ["-c", ""], tmp_path, 60) is None
    assert full.measured("one", ["-c", ""], tmp_path, 0) == "not begun: the hour is over"


def test_the_median_is_that_of_the_rounds():
    assert tables.spread([1.0, 2.0, 4.0], " ms") == "2 ms (1–4)"
    assert tables.spread([1234.5], "") == "1,234"
