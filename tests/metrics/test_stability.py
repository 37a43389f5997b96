"""Verdict, load and warm-up of runs whose answer is known; what classes and tenants got, by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from analysis.report.findings import headlines
from simulator import simulate
from simulator.errors import InputError
from simulator.experiments.render import summary_text
from simulator.experiments.run import RunResult, run_scenario
from simulator.metrics.classes import fairness, good_by_class, jain, weighted_attainment
from simulator.metrics.stability import BACKLOGGED, OVERLOADED, STABLE, mser5, stability
from simulator.scenario.resolved import SloClass, Tenant
from tests.properties.small import ROOT, pool, scenario, served

Columns = dict[str, np.ndarray[Any, Any]]


def queue(rate: float, count: int, seed: int, service: float = 1.0, cv: float = 1.0) -> Columns:
    """One server, first come first served: arrivals at `rate`, service times of mean `service`."""
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(1 / rate, count))
    times = rng.exponential(service, count) if cv else np.full(count, service)
    begin = np.empty(count)
    free = 0.0
    for at in range(count):
        begin[at] = max(free, arrival[at])
        free = begin[at] + times[at]
    e2e = begin + times - arrival
    return {
        "arrival_s": arrival, "admitted_s": begin, "ttft_s": e2e, "tpot_s": np.full(count, np.nan), "e2e_s": e2e,
        "queue_s": begin - arrival, "status": np.full(count, "finished"),
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_verdict_of_a_known_queue(seed: int) -> None:
    """M/M/1 of 4000 requests: load 0.5 and 0.7 are stable, 1.25 is not, nor 1.1 where the capacity is known.

    Would catch: a verdict from absolute times, growth that chance explains, an overload that hides because it drains at the
    end. The growth per arrival is 1 - 1/load; of the 2000 arrivals it is seen in, three standard deviations are 0.095.
    """
    assert stability(queue(0.5, 4000, seed), None, True).verdict in (STABLE, BACKLOGGED)
    assert stability(queue(0.7, 4000, seed), 1.0, True).verdict != OVERLOADED
    found = stability(queue(1.25, 4000, seed), None, True)
    assert found.verdict == OVERLOADED
    assert found.growth == pytest.approx(0.2, abs=0.095)
    known = stability(queue(1.1, 4000, seed), 1.0, True)
    assert known.utilization == pytest.approx(1.1, rel=0.06)
    if known.utilization > 1.05:
        assert known.verdict == OVERLOADED


def test_a_standing_queue_is_backlogged() -> None:
    """M/M/1 at load 0.7 waits 2.3 times as long as it is served; at 0.2 a quarter of it."""
    assert stability(queue(0.7, 20000, 1), None, True).verdict == BACKLOGGED
    assert stability(queue(0.2, 20000, 1), None, True).verdict == STABLE


def test_warm_up_of_a_ramp() -> None:
    """50 values that fall, then 450 of one level with noise: the cut is near 50. Would catch: a cut of nothing, of half."""
    noise = np.random.default_rng(0).normal(0, 0.1, 500)
    ramp = np.concatenate([np.linspace(10, 1, 50), np.ones(450)]) + noise
    assert 35 <= mser5(ramp) <= 60
    assert mser5(np.ones(500)) == 0
    assert mser5(ramp[:7]) == 0


def run(rate: str, requests: int = 1500, **settings: Any) -> RunResult:
    synthetic = {
        "requests": requests, "arrivals": {"process": "poisson", "rate": rate},
        "input": {"dist": "fixed", "tokens": "100 tokens"}, "output": {"dist": "geometric", "mean": "20 tokens"},
    }  # fmt: skip
    return served({"workload.synthetic": synthetic, **settings}, check=True)


def test_an_overloaded_run_says_so_beside_its_means() -> None:
    """Would catch: a mean latency of an overloaded run without the word, in the summary, in the text."""
    capacity = run("100 /s").summary["stability"]["capacity_requests_per_s"]
    over, stable = run(f"{1.3 * capacity!r} /s"), run(f"{0.5 * capacity!r} /s")
    assert over.summary["stability"]["verdict"] == OVERLOADED
    assert any(text.startswith("OVERLOADED") for text in over.summary["warnings"])
    assert "Latency (OVERLOADED" in summary_text(over.summary, None)
    for result, said in ((over, True), (stable, False)):
        lines = headlines(SimpleNamespace(summary=result.summary, requests=result.requests, series=result.timeseries))  # type: ignore[arg-type]
        means = [line for line in lines if line["name"].endswith("mean")]
        assert means and all(("OVERLOADED" in line["note"]) == said for line in means)
    assert stable.summary["stability"]["verdict"] == STABLE
    assert "Latency\n" in summary_text(stable.summary, None)
    assert over.summary["stability"]["utilization"] == pytest.approx(1.3, rel=0.1)


@pytest.mark.parametrize("batching", ["continuous", "prefill_first", "static"])
def test_capacity_is_what_a_flooded_server_serves(batching: str) -> None:
    """Three times the load: served within 15 % of the estimate. The run has a beginning and an end in which places are free,
    and lengths vary. Would catch: places, budget or prompts left out (factors of 2 and more)."""
    first = run("100 /s", 200, **{"scheduler.batching": batching}).summary["stability"]["capacity_requests_per_s"]
    flooded = run(f"{3 * first!r} /s", **{"scheduler.batching": batching}).summary
    assert flooded["throughput"]["requests_per_s"] == pytest.approx(flooded["stability"]["capacity_requests_per_s"], rel=0.15)


@pytest.mark.parametrize("overlap", [0.9, 0.5])
def test_capacity_of_page_sets_that_stay_near(overlap: float) -> None:
    """Sets of 8 pages of contexts of some 30, before a slow link: L1 and L2 hold the sets and only what is new in them crosses.
    Served within 25 % of the estimate, the link three quarters of the time. Would catch: every page of a set counted as moved
    (a factor of 2 and more), none counted."""
    pages = {"kv.selection": {"kind": "pages", "tokens": "128 tokens", "overlap": overlap}, "kv.codec": "none"}
    settings = pool(140, 2000, 20, "0.05 GB/s") | pages | {"kv.placement.eviction": "lru"}
    found = served(settings, [(0.0, 400, 150)] * 80).summary
    assert found["throughput"]["requests_per_s"] == pytest.approx(found["stability"]["capacity_requests_per_s"], rel=0.25)


def test_what_classes_and_tenants_got() -> None:
    """Four requests by hand: limits of their own class, weights 3 and 1, tokens 30 and 10 for weights 1 and 1.

    Would catch: limits of another class, weights left out, Jain's index over requests.
    """
    columns = {
        "status": np.array(["finished", "finished", "rejected", "finished"]), "ttft_s": np.array([1.0, 3.0, np.nan, 3.0]),
        "tpot_s": np.full(4, np.nan), "e2e_s": np.array([2.0, 6.0, np.nan, 8.0]), "output_tokens": np.array([20, 10, 5, 10]),
    }  # fmt: skip
    classes, kind = [SloClass("a", 2.0, None, weight=3.0), SloClass("b", 4.0, None)], np.array([0, 0, 1, 1])
    met = good_by_class(columns, classes, kind)
    assert met.tolist() == [True, False, False, True]
    assert weighted_attainment(met, classes, kind) == 4 / 8
    tenants = [Tenant("x", 1, 1), Tenant("y", 1, 1), Tenant("silent", 1, 1)]
    found = fairness(columns, tenants, np.array([0, 0, 1, 1]))
    assert found["jain_service"] == pytest.approx(40**2 / (2 * (30**2 + 10**2)))
    assert found["jain_slowdown"] == pytest.approx((0.35 + 0.8) ** 2 / (2 * (0.35**2 + 0.8**2)))
    assert jain([1.0, 1.0, 1.0]) == 1.0


def test_classes_and_tenants_of_a_run() -> None:
    """Shares 3 : 1 of 400 requests; the more important class waits less. Would catch: draws that move the arrivals, columns of
    one in the other, a priority that only the queue knows."""
    mix = {
        "slo.classes": [{"name": "soon", "priority": 0, "ttft": "5 ms"}, {"name": "late", "priority": 1, "share": 3}],
        "tenants": [{"name": "x"}, {"name": "y", "share": 3}], "scheduler.queue": "priority", "scheduler.max_batch": 2,
    }  # fmt: skip
    plain, mixed = run("3000 /s", 400), run("3000 /s", 400, **mix)
    np.testing.assert_array_equal(plain.columns["arrival_s"], mixed.columns["arrival_s"])
    found = mixed.summary["classes"]
    assert found["soon"]["arrived"] + found["late"]["arrived"] == 400
    assert 260 < found["late"]["arrived"] < 340
    assert found["soon"]["ttft_s"]["mean"] < 0.5 * found["late"]["ttft_s"]["mean"]
    assert 260 < mixed.summary["tenants"]["y"]["arrived"] < 340
    assert mixed.summary["fairness"]["jain_service"] == pytest.approx(jain([1, 3]), abs=0.08)
    assert set(mixed.columns["class"]) == {"soon", "late"}


def test_recorded_classes_and_tenants(tmp_path: Path) -> None:
    """Columns of the plain format: names as recorded, an empty cell is drawn, an unknown name is refused with its nearest.

    Would catch: names numbered by their order in the file instead of the scenario's, rows that lose theirs when sorted.
    """
    rows = ["arrival_s,input_tokens,output_tokens,class,tenant", "2,10,2,late,y", "1,10,2,soon,x", "3,10,2,,y"]
    (tmp_path / "rows.csv").write_text("\n".join(rows), encoding="utf-8")
    mix = {
        "workload.trace.path": "rows.csv", "slo.classes": [{"name": "soon"}, {"name": "late"}],
        "tenants": [{"name": "y"}, {"name": "x"}],
    }  # fmt: skip
    found = run_scenario(scenario(mix, tmp_path))
    assert found.columns["class"][:2].tolist() == ["soon", "late"]
    assert found.columns["tenant"].tolist() == ["x", "y", "y"]
    mix["tenants"] = [{"name": "yy"}, {"name": "x"}]
    with pytest.raises(InputError, match="tenant: 'y' in the trace is not in the scenario, which has yy, x"):
        run_scenario(scenario(mix, tmp_path))


def test_events_and_memory_of_many_requests() -> None:
    """10^4 requests of the million: at most 0.75 events each, and columns of machine numbers, not objects.

    Would catch: an event per request or token, a step that runs no further than the next arrival's neighbour, a column that
    became a list.
    """
    found = simulate(ROOT / "scenarios" / "million_requests.yaml", set=["workload.synthetic.requests=10000"])
    assert found.summary["simulation"]["events"] < 0.75 * 10_000
    assert found.summary["simulation"]["mean_batch"] >= 32
    assert found.summary["stability"]["verdict"] == STABLE
    assert found.summary["stability"]["utilization"] == pytest.approx(0.7, abs=0.02)
    from simulator.experiments.simulation import Simulation
    from simulator.workload.requests import Requests

    ten = np.arange(10.0)
    requests = Requests(ten, np.full(10, 20), np.full(10, 4), None, 0, "by hand")
    simulation = Simulation(scenario({"workload.synthetic": {
        "requests": 1, "arrivals": {"process": "at_once"}, "input": {"dist": "fixed", "tokens": "1 token"},
        "output": {"dist": "fixed", "tokens": "1 token"}}}).resolved, requests)  # fmt: skip
    simulation.run()
    kept = vars(simulation.recorder)
    assert [name for name, column in kept.items() if isinstance(column, list) and len(column) >= 10] == []
