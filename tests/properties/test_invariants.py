"""The in-run invariants (design section 4) hold over generated scenarios, and fire when something is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from simulator.experiments import measured
from simulator.experiments.run import run_scenario
from simulator.experiments.server import Server
from simulator.experiments.simulation import Simulation
from simulator.hardware import pool as paths
from simulator.kvcache.residency import Split
from simulator.metrics.invariants import InvariantError
from simulator.metrics.recorder import REJECTED, Recorder
from simulator.metrics.steps import StepLaw
from simulator.prefetch.pipeline import Carry
from simulator.scheduler import far
from simulator.scheduler.batch import DecodeBatch
from simulator.scheduler.far import FarMemory, FarStep
from simulator.scheduler.replica import Replica
from tests.properties.small import Rows, blocks, draw, pool, requests, scenario, served
from tests.properties.worlds import worlds

World = tuple[dict[str, Any], Rows]


def holds(world: World) -> None:
    """Runs with every check; all requests end; what has no place in `--check` is checked here."""
    result = served(*world)
    counts, prefetch = result.summary["requests"], result.summary["prefetch"]
    assert counts["arrived"] == counts["finished"] + counts["rejected"] + counts["aborted"] == len(world[1])
    assert not counts["aborted"] or "faults" in world[0]
    for share in ("coverage", "accuracy", "timeliness"):
        assert prefetch[share] is None or 0 <= prefetch[share] <= 1
    for name, use in result.summary["utilization"].items():
        assert 0 <= use <= 1 + 1e-9, name
    for tier in result.summary["tiers"].values():
        assert 0 <= (tier["mean_bytes"] or 0) <= tier["peak_bytes"] * (1 + 1e-9)
    for name, column in result.columns.items():
        if name.endswith("_s"):
            assert not np.any(column < -1e-12), name


@settings(max_examples=120)
@given(world=worlds(broken=True))
def test_invariants_hold(world: World):
    """Would catch: any of the invariants broken in a corner: demotion, write-back waits, preemption, waves, partial windows."""
    holds(world)


@settings(max_examples=40)
@given(world=worlds(far=True, broken=True, policies=True))
def test_invariants_hold_under_kv_policies(world: World):
    """Far blocks of which a step reads a part, or less often than once, or more. Would catch: parts that do not add up over
    layers, shares of requests that are not the whole, more kept near than L1 holds."""
    holds(world)


@pytest.mark.slow
@settings(max_examples=500)
@given(world=worlds(far=True, broken=True, policies=True))
def test_invariants_hold_under_kv_policies_more(world: World):
    """The same, more of them."""
    holds(world)


@pytest.mark.slow
@settings(max_examples=500)
@given(world=worlds(far=True, broken=True))
def test_invariants_hold_more(world: World):
    """The same, more of them, all with a pool."""
    holds(world)


@settings(max_examples=40)
@given(world=worlds())
def test_little_as_the_engine_saw_it(world: World):
    """Number in system, counted by the engine's own queue and batch at each event, integrated over time, is the sum of all
    sojourns. Between its arrival and the step after which it is taken in, a request counts by its arrival time.

    Would catch: a request forgotten in no queue, one that is in two, times recorded other than those lived through.
    """
    base = {"workload.synthetic": {
        "requests": 1, "arrivals": {"process": "at_once"},
        "input": {"dist": "fixed", "tokens": "1 token"}, "output": {"dist": "fixed", "tokens": "1 token"},
    }}  # fmt: skip
    rows = world[1]
    simulation = Simulation(scenario(base | world[0]).resolved, requests(rows), coalesce=False)
    engine, env, recorder = simulation.engine, simulation.env, simulation.recorder
    env.process(engine.run())
    integral, taken = 0.0, 0
    while env.peek() < np.inf:
        env.step()
        arrived = len(rows) - engine.arrivals.left
        integral += sum(env.now - rows[new][0] for new in range(taken, arrived) if recorder.status[new] != REJECTED)
        taken = arrived
        # the engine is at the end of the step it has begun: who ends with it is still here until then (but for rounding)
        present = len(engine.queue) + len(engine.running) + sum(end > env.now * (1 + 1e-12) for end in recorder.finished)
        if env.peek() < np.inf:
            integral += present * (env.peek() - env.now)
    sojourns = sum(end - row[0] for end, row in zip(recorder.finished, rows, strict=True) if not np.isnan(end))
    assert integral == pytest.approx(sojourns, rel=1e-9)


# --- break one thing: the invariant that watches it must speak ----------------------------------------------------------

WORLD: World = (
    pool(l1=8, l3=8, l2=4)
    | {"scheduler.watermark": 0.0, "kv.codec": {"ratio": 1.5, "compress_at": "gpu", "decompress_at": "gpu"}}
    | {"prefetch": {"predictor": "statistical", "depth": 2, "coverage": 0.8, "accuracy": 0.7}},
    draw(3, 20, 20000.0),
)
Patch = Callable[[pytest.MonkeyPatch], None]


def after(owner: Any, name: str, change: Callable[..., Any]) -> Patch:
    """`change(result, *arguments)` is what `owner.name(*arguments)` gives."""
    original = getattr(owner, name)

    def changed(*arguments: Any, **named: Any) -> Any:
        return change(original(*arguments, **named), *arguments)

    return lambda monkeypatch: monkeypatch.setattr(owner, name, changed)


def _unfinished(_: None, replica: Replica, request: int) -> None:
    if request == 5:
        replica.recorder.status[request] = 0


def _half_the_stall(step: FarStep, *_: Any) -> FarStep:
    step.stall *= 0.5
    return step


def _demand_lost(outcome: Any, *arguments: Any) -> Any:
    counts = arguments[-1]
    counts.demand -= min(1, counts.demand)
    return outcome


def _useless_lost(_: int, carry: Carry, page_time: float, counts: Any) -> int:
    counts.useless += 1
    return 0


def _early(outcome: Any, *_: Any) -> Any:
    outcome.end -= 1e-6
    return outcome


def _greedy_write(rates: list[float], *_: Any) -> list[float]:
    """Write-back beside reads gets twice its rate."""
    return [rates[0], *[2 * rate for rate in rates[1:]]]


def _page_not_homed(_: None, split: Split, blocks: int) -> None:
    split.homed -= 1


def _leak(_: None, split: Split, request: int, blocks: int) -> None:
    split.l1_used += request == 3


def _late(columns: dict[str, Any], *_: Any) -> dict[str, Any]:
    columns["admitted_s"] = columns["finished_s"] + 1.0
    return columns


def _launches_twice(law: StepLaw, *_: Any) -> StepLaw:
    return replace(law, shapes={shape: replace(times, launch=2 * times.launch) for shape, times in law.shapes.items()})


def _longer_sojourn(columns: dict[str, Any], *_: Any) -> dict[str, Any]:
    """One request ends a second later than it did, consistently in all its columns."""
    for name in ("finished_s", "e2e_s", "queue_s"):
        columns[name] = columns[name].copy()
        columns[name][2] += 1.0
    return columns


BROKEN: dict[str, tuple[str, Patch]] = {
    "a request that never ends": ("INV-REQUESTS", after(Replica, "_finish", _unfinished)),
    "one token too many": (
        "INV-TOKENS",
        lambda mp: mp.setattr(DecodeBatch, "join", _with_one_more_step(DecodeBatch.join)),
    ),
    "admitted after the end": ("INV-TOKENS", after(measured, "request_columns", _late)),
    "L1 counts room it does not have": ("INV-CAPACITY", after(Split, "near_room", lambda room, *_: room + 3)),
    "a block that is never given back": ("INV-CAPACITY", after(Split, "release", _leak)),
    "a demanded page not counted": ("INV-BYTES", after(far, "streamed", _demand_lost)),
    "write-back that loses bytes": (
        "INV-BYTES",
        lambda mp: mp.setattr(FarMemory, "_make_room", _forgetful(FarMemory._make_room)),
    ),
    "a page that was never written home": ("INV-COHERENCE", after(Split, "_home", _page_not_homed)),
    "write-back beyond the rate of its link": ("INV-RATES", after(paths, "fair_rates", _greedy_write)),
    "a step that ends before its pages are there": ("INV-PRESENT", after(far, "on_demand", _early)),
    "half of a stall": ("INV-ATTRIBUTION", after(FarMemory, "step", _half_the_stall)),
    "a wrong part": ("INV-ATTRIBUTION", after(Server, "law", _launches_twice)),
    "host overhead forgotten": ("INV-ATTRIBUTION", lambda mp: mp.setattr(measured, "Steps", _without_host(measured.Steps))),
    "cancelled prefetches counted twice": ("INV-PREFETCH", after(Carry, "cancel", _useless_lost)),
    "a sojourn longer than it was": ("INV-LITTLE", after(measured, "request_columns", _longer_sojourn)),
}


def _with_one_more_step(join: Callable[..., None]) -> Callable[..., None]:
    return lambda batch, request, cached, steps: join(batch, request, cached, steps + (request == 4))


def _forgetful(make_room: Callable[[FarMemory], float]) -> Callable[[FarMemory], float]:
    def forget(memory: FarMemory) -> float:
        waited = make_room(memory)
        memory.backlog *= 0.99
        return waited

    return forget


def _without_host(steps: Any) -> Any:
    def build(recorder: Recorder, law: StepLaw) -> Any:
        return steps(recorder, replace(law, host=0.0))

    return build


def test_nothing_fires_in_the_unbroken_world():
    """And what is broken below occurs in it: preemption, write-back, far reads, useless prefetches, several requests."""
    result = served(WORLD[0] | {"scheduler.host_overhead": "20 us"}, WORLD[1])
    assert result.summary["requests"]["preemptions"] > 0
    assert result.summary["prefetch"]["demand"] > 0
    assert result.summary["prefetch"]["wasted_bytes"] > 0
    assert result.summary["compression"]["bytes_raw"] > 0


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_thing_is_named(what: str, monkeypatch: pytest.MonkeyPatch):
    """Would catch: an invariant that cannot fail, because it compares a number with itself or is never called."""
    name, breaks = BROKEN[what]
    breaks(monkeypatch)
    with pytest.raises(InvariantError, match=name):
        served(WORLD[0] | {"scheduler.host_overhead": "20 us"}, WORLD[1])


def test_checking_changes_no_number():
    """Would catch: a check that touches what it looks at."""
    values = {"kv.l1": blocks(14), "scheduler.watermark": 0.0, "workload.synthetic": {
        "requests": 40, "arrivals": {"process": "poisson", "rate": "3000 /s"},
        "input": {"dist": "uniform", "low": "1 token", "high": "80 tokens"},
        "output": {"dist": "uniform", "low": "1 token", "high": "60 tokens"},
    }}  # fmt: skip
    checked, unchecked = (run_scenario(scenario(values), check=check) for check in (True, False))
    assert {**checked.summary, "simulation": {}} == {**unchecked.summary, "simulation": {}}
    assert checked.requests.equals(unchecked.requests)
