"""The timeline: its structure, and that its totals are the summary's busy times."""

from __future__ import annotations

from collections import defaultdict
from math import inf
from pathlib import Path
from typing import Any

import pytest

from simulator.experiments.run import RunResult, run_scenario
from simulator.metrics import timeline as module
from tests.properties.small import draw, pool, scenario

WORLD = pool(l1=12, l3=600, l2=8, link="0.5 GB/s") | {
    "prefetch": {"predictor": "statistical", "depth": 2, "coverage": 0.8, "accuracy": 0.7},
    "workload.trace.path": "rows.csv",
}


def run(folder: Path, window: tuple[float, float] | None = (0.0, inf), **more: Any) -> RunResult:
    rows = "".join(f"{arrival!r},{prompt},{output}\n" for arrival, prompt, output in draw(3, 120))
    (folder / "rows.csv").write_text("arrival_s,input_tokens,output_tokens\n" + rows, encoding="utf-8")
    return run_scenario(scenario(WORLD | more, folder), check=True, timeline=window)


def busy_of(document: dict[str, Any]) -> dict[str, float]:
    """Seconds of `work` and of transfers by track."""
    names = {each["tid"]: each["args"]["name"] for each in document["traceEvents"] if each["name"] == "thread_name"}
    busy: dict[str, float] = defaultdict(float)
    for event in document["traceEvents"]:
        if event["ph"] == "X" and event["name"] in ("work", "transfer"):
            busy["gpu" if event["name"] == "work" else names[event["tid"]]] += event["dur"] / 1e6
    return dict(busy)


def structure(document: dict[str, Any]) -> None:
    """Monotone times, matched begins and ends, arrows that land, slices of a track one after another or inside."""
    events = [event for event in document["traceEvents"] if event["ph"] != "M"]
    assert [event["ts"] for event in events] == sorted(event["ts"] for event in events)
    open_spans: dict[str, float] = {}
    ends: dict[int, list[float]] = defaultdict(list)
    arrows: dict[int, float] = {}
    for event in events:
        kind = event["ph"]
        if kind == "b":
            assert event["id"] not in open_spans
            open_spans[event["id"]] = event["ts"]
        elif kind == "e":
            assert open_spans.pop(event["id"]) <= event["ts"]
        elif kind == "X":
            assert event["dur"] >= 0
            inside = ends[event["tid"]]
            while inside and inside[-1] <= event["ts"] + 1e-2:
                inside.pop()
            end = event["ts"] + event["dur"]
            assert not inside or end <= inside[-1] + 1e-2, event  # 10 ns: times are rounded
            inside.append(end)
        elif kind == "s":
            arrows[event["id"]] = event["ts"]
        elif kind == "f":
            assert arrows.pop(event["id"]) <= event["ts"]
        elif kind == "C":
            assert event["args"]["value"] >= 0
    assert not open_spans and not arrows


@pytest.mark.parametrize("most", [module.MOST_SLICES, 25])
def test_totals_are_the_busy_times(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whole run, every step a slice and many steps a slice. Tolerance 1e-6: times are written to a picosecond.

    Would catch: a stage's weight or rate, reads that were taken back, write-back left out, sampling that loses time.
    """
    monkeypatch.setattr(module, "MOST_SLICES", most)
    result = run(tmp_path)
    document, summary = result.timeline, result.summary
    assert document is not None
    structure(document)
    assert (document["otherData"]["steps_per_slice"] > 1) == (most == 25)
    busy, makespan = busy_of(document), summary["simulation"]["simulated_s"]
    used = {name: share * makespan for name, share in summary["utilization"].items() if share}
    assert busy.keys() == used.keys() and len(used) > 6
    for name, seconds in used.items():
        assert busy[name] == pytest.approx(seconds, rel=1e-6), name
        assert document["otherData"]["busy_s"][name] == pytest.approx(seconds, rel=1e-9), name


def test_prefetches_counters_and_pieces(tmp_path: Path):
    """Would catch: prefetch fates mixed up, counters over capacity, a prompt whose chunks do not add up."""
    result = run(tmp_path)
    events, summary = result.timeline["traceEvents"], result.summary
    pages = {
        fate: sum(each["args"]["pages"] for each in events if each["name"] == f"prefetch {fate}")
        for fate in ("in time", "late", "wasted")
    }
    found = summary["prefetch"]
    assert pages["late"] == found["late"] > 0
    assert pages["in time"] == round(found["timeliness"] * (found["asked"] - found["demand"])) > 0
    assert pages["wasted"] > 0
    for tier in ("l1", "l2", "l3"):
        peak = max(each["args"]["value"] for each in events if each["name"] == f"{tier.upper()} bytes")
        assert peak == pytest.approx(summary["tiers"][tier]["peak_bytes"])
    chunks = [each for each in events if each["ph"] == "b" and each["cat"] == "prompt piece"]
    assert summary["requests"]["preemptions"] == 0
    assert sum(each["args"]["tokens"] for each in chunks) == result.columns["input_tokens"].sum()
    assert any(each["ph"] == "s" for each in events)


def test_window_bounds_the_steps(tmp_path: Path):
    """Would catch: a window that is ignored, or cuts steps in two."""
    whole = run(tmp_path)
    span = whole.summary["simulation"]["simulated_s"]
    part = run(tmp_path, (0.25 * span, 0.5 * span))
    structure(part.timeline)
    starts = [each["ts"] / 1e6 for each in part.timeline["traceEvents"] if each["ph"] == "X" and each["tid"] == 1]
    assert 0.25 * span <= min(starts) and part.timeline["otherData"]["steps"] < whole.timeline["otherData"]["steps"]
    assert run(tmp_path, (2 * span, inf)).timeline["otherData"]["steps"] == 0


def test_timeline_changes_no_number(tmp_path: Path):
    """Would catch: recording that moves a result."""
    with_it, without = run(tmp_path), run(tmp_path, None)
    assert without.timeline is None
    assert with_it.summary | {"simulation": 0} == without.summary | {"simulation": 0}


def test_gpu_only_has_a_timeline(tmp_path: Path):
    """Would catch: a run without a pool failing on its missing path."""
    gone = {"cluster.kv_pool": None, "kv.l1": None, "kv.l2": None, "kv.burst": None, "prefetch": None}
    result = run(tmp_path, **gone)
    structure(result.timeline)
    assert set(busy_of(result.timeline)) == {"gpu"}
