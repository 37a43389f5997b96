"""Run one scenario from its requests to its summary, tables and checks; run it with several prefetchers (arms)."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simulator.errors import InputError, Problem
from simulator.experiments.simulation import Simulation, stream
from simulator.metrics import invariants, summary
from simulator.metrics.cost import energy, usd_per_hour
from simulator.metrics.occupancy import blocks_by_step
from simulator.metrics.requests import request_columns, token_gaps
from simulator.metrics.steps import WAITS, WORK, Steps
from simulator.metrics.timeseries import timeseries
from simulator.metrics.traffic import StageUse, Traffic
from simulator.scenario.resolved import Prefetch, ScenarioResolved
from simulator.workload.synthetic import build

if TYPE_CHECKING:
    import pandas as pd

    from simulator.scenario import Scenario

Progress = Callable[[float, str], None]


@dataclass
class RunResult:
    """What a run gives: the summary, a row per request, the run over time."""

    scenario: Scenario
    summary: dict[str, Any]
    columns: dict[str, NDArray[Any]]
    series: dict[str, NDArray[Any]]

    @cached_property
    def requests(self) -> pd.DataFrame:
        """A row a request; columns as in `simulator.metrics.requests.COLUMNS`."""
        import pandas as pd

        return pd.DataFrame(self.columns)

    @cached_property
    def timeseries(self) -> pd.DataFrame:
        """A row a bin of time; columns as in `simulator.metrics.timeseries.COLUMNS`."""
        import pandas as pd

        return pd.DataFrame(self.series)


@dataclass
class Measured:
    """A finished simulation and what it took."""

    simulation: Simulation
    steps: Steps
    columns: dict[str, NDArray[Any]]
    makespan: float
    traffic: Traffic


def run_scenario(scenario: Scenario, check: bool = False, progress: Progress | None = None, coalesce: bool = True) -> RunResult:
    """Simulate and summarise. `coalesce=False` takes every step singly (the same bytes but for `simulation`)."""
    resolved, began = scenario.resolved, time.perf_counter()
    measured = _simulate(resolved, progress, coalesce, check)
    simulation, steps, columns, traffic = measured.simulation, measured.steps, measured.columns, measured.traffic
    recorder, geometry, makespan = simulation.recorder, simulation.geometry, measured.makespan
    held = _tiers(measured)
    tokens = int(steps.rows.sum())
    observed = max(makespan, simulation.engine.clock)  # write-back goes on until the last arrival, even if it is rejected
    use = {stage.name: stage.utilization(observed) for stage in traffic.stages}
    board_use = max((share for name, share in use.items() if name.startswith("pool.")), default=0.0)
    power = energy(resolved, steps, makespan, board_use)
    hourly = usd_per_hour(resolved, power, makespan)
    busy = float(sum(steps.parts[part].sum() for part in WORK))
    near = int(steps.far["near"].sum())
    stored = traffic.sent_bytes
    result: dict[str, Any] = {
        "name": resolved.name,
        "throughput": summary.throughput(steps, columns, makespan),
        "latency": summary.latency(recorder, steps, columns),
        "goodput": summary.goodput(columns, resolved.slo, makespan),
        "requests": summary.counts(recorder),
        "prefetch": summary.prefetch(traffic),
        "kv_access": summary.kv_access(traffic, near),
        "compression": {
            "ratio": geometry.ratio,
            "bytes_raw": stored,
            "bytes_stored": stored / geometry.ratio,
        },
        "stall": summary.stall(columns),
        "tiers": summary.tiers(held, steps.duration, makespan),
        "utilization": {"gpu": busy / makespan if makespan else 0.0} | use,
        "energy": summary.joules(power, tokens),
        "cost": summary.money(hourly, tokens, makespan, resolved.cost.as_of, resolved.cost.basis),
        "faults": [],
        "bound_by": summary.bound_by(steps, makespan),
        "warnings": _warnings(scenario, simulation, columns),
        "simulation": {},
        "provenance": {"scenario_sha256": scenario.sha256, "version": _version(), "seed": resolved.seed},
    }
    l1, l3 = held["l1"][1], held["l3"][1] if "l3" in held else np.zeros(len(steps.run))
    accepted = columns["status"] != "rejected"
    series = timeseries(steps, columns["arrival_s"][accepted], columns["admitted_s"], l1, l3, makespan)
    if check:
        _check(measured, held)
    wall = time.perf_counter() - began
    result["simulation"] = {
        "simulated_s": makespan,
        "wall_s": wall,
        "events": simulation.engine.events,
        "steps": simulation.engine.steps,
        "mean_batch": summary.ratio(int(steps.decodes.sum()), int((steps.decodes > 0).sum())),
        "output_tokens_per_wall_s": summary.ratio(tokens, wall),
        "peak_rss_bytes": _peak_rss(),
    }
    return RunResult(scenario, result, columns, series)


def _simulate(resolved: ScenarioResolved, progress: Progress | None, coalesce: bool, check: bool) -> Measured:
    if progress:
        progress(0.0, "reading the workload")
    requests = build(resolved.workload, stream(resolved.seed, "arrivals"), stream(resolved.seed, "lengths"))
    if len(requests) == 0:
        message = f"{requests.source}: no request is left after the window and the limit"
        raise InputError(Problem("workload", "", message))
    simulation = Simulation(resolved, requests, coalesce, check)
    simulation.run(progress)
    recorder = simulation.recorder
    steps = Steps(recorder, simulation.law())
    columns = request_columns(recorder, steps, requests.arrival, requests.input_tokens, requests.output_tokens)
    makespan = float(steps.end[-1]) if len(steps.end) else 0.0
    return Measured(simulation, steps, columns, makespan, _traffic(simulation))


def run_arms(scenario: Scenario, arms: list[str], check: bool = False) -> list[dict[str, Any]]:
    """The scenario with several prefetchers on common random numbers; its own is always among them.

    gain_share = (T_none - T) / (T_none - T_oracle) on the mean decode step time; null if they differ by less than 0.1 %.
    """
    own = scenario.resolved.prefetch
    wanted = list(dict.fromkeys([own.predictor, *arms]))
    times: dict[str, float] = {}
    rows = {}
    for arm in dict.fromkeys([*wanted, "none", "oracle"]):
        spec = own if arm == own.predictor else Prefetch(arm, max(own.depth, 1), own.coverage, own.accuracy, 0.0)
        measured = _simulate(replace(scenario.resolved, prefetch=spec), None, True, check)
        if check:
            _check(measured, _tiers(measured))
        steps, decoding = measured.steps, measured.steps.decodes > 0
        times[arm] = float(steps.duration[decoding].mean()) if decoding.any() else 0.0
        waits = np.sum([steps.parts[part] for part in WAITS], axis=0)
        rows[arm] = {
            "arm": arm,
            "step_time_s": times[arm],
            "stall_s": float(waits[decoding].mean()) if decoding.any() else 0.0,
            "output_tokens_per_s": summary.ratio(int(steps.rows.sum()), measured.makespan),
            "prefetch": summary.prefetch(measured.traffic),
        }
    possible = times["none"] - times["oracle"]
    for arm, row in rows.items():
        significant = abs(possible) >= 1e-3 * times["none"]
        row["gain_share"] = (times["none"] - times[arm]) / possible if significant else None
    return [rows[arm] for arm in wanted]


def _tiers(measured: Measured) -> dict[str, tuple[float, NDArray[Any]]]:
    """Tier -> (capacity, bytes in use during each step)."""
    simulation, steps = measured.simulation, measured.steps
    geometry, recorder, pool = simulation.geometry, simulation.recorder, simulation.scenario.pool
    blocks = blocks_by_step(recorder, steps, geometry.block_tokens)
    block = geometry.block_bytes
    if not pool:
        return {"l1": (geometry.l1_blocks * block, blocks * block)}
    far = steps.runs["far_blocks"][steps.run]
    near = np.minimum(blocks, geometry.l1_blocks) if simulation.scenario.kv.eviction == "lru" else blocks - far
    staged = np.zeros(len(steps.run))
    staged[steps.first[steps.far["run"]]] = steps.far["staged"]
    return {
        "l1": (geometry.l1_blocks * block, near * block),
        "l2": (geometry.l2_bytes, staged),
        "l3": (geometry.l3_bytes, far * (block / geometry.ratio)),
    }


def _traffic(simulation: Simulation) -> Traffic:
    """Totals of far memory, from its counters."""
    far, geometry, gpu = simulation.far, simulation.geometry, simulation.scenario.gpus.gpu
    burst = geometry.burst
    near = gpu.memory_latency + burst / (gpu.attention_bandwidth_efficiency * gpu.memory_bandwidth)
    if far is None:
        return Traffic(l1_access_s=near)
    counts, path = far.counts, far.path
    carried: dict[str, list[float]] = {}
    for crossings, raw in ((path.read, far.moved * geometry.layer_bytes), (path.write, far.written)):
        for stage, rate, weight in crossings:
            carried.setdefault(stage, [rate, 0.0])[1] += raw * weight
    return Traffic(
        page_bytes=geometry.layer_bytes,
        asked=counts.asked, demand=counts.demand, in_time=counts.in_time, late=counts.late,
        proposed=counts.proposed, issued=counts.issued, dropped=counts.dropped, useless=counts.useless,
        moved=far.moved, written_bytes=far.written, backlog_bytes=far.backlog, sent_bytes=far.sent,
        homed=simulation.engine.residency.homed,
        wait_s=far.wait, waited=far.waited, l1_access_s=near,
        l3_access_s=path.read_latency + burst / path.burst_rate,
        rates=tuple(path.rates()),
        stages=tuple(StageUse(stage, rate, total) for stage, (rate, total) in carried.items()),
    )  # fmt: skip


def _check(measured: Measured, held: dict[str, tuple[float, NDArray[Any]]]) -> None:
    simulation, steps, columns = measured.simulation, measured.steps, measured.columns
    recorder, requests = simulation.recorder, simulation.requests
    invariants.check_requests(recorder, columns)
    invariants.check_tokens(recorder, steps, requests.input_tokens, requests.output_tokens)
    invariants.check_steps(steps)
    invariants.check_attribution(columns)
    for name, (capacity, used) in held.items():
        invariants.check_capacity(name, used, capacity)
    residency = simulation.engine.residency
    left = residency.l1_used + residency.l3_used
    invariants.require("INV-CAPACITY", left == 0, f"{left} blocks are still held after the last request")
    invariants.check_traffic(measured.traffic)
    values, weights = token_gaps(recorder, steps)
    invariants.check_little(columns, simulation.engine.presence, float(np.dot(values, weights)))


def _warnings(scenario: Scenario, simulation: Simulation, columns: dict[str, NDArray[Any]]) -> list[str]:
    warnings = list(simulation.notes)
    if not scenario.resolved.gpus.gpu.calibrated:
        warnings.append(f"uncalibrated: no measurements of {scenario.resolved.gpus.gpu.name} stand behind its efficiencies")
    queue, arrival = columns["queue_s"], columns["arrival_s"]
    done = ~np.isnan(queue)
    if done.sum() >= 100 and arrival[-1] > 0:
        quarter = max(1, int(done.sum()) // 4)
        early, late = queue[done][:quarter].mean(), queue[done][-quarter:].mean()
        if late > 5.0 and late > 2 * early:
            warnings.append(
                f"offered load exceeds capacity: the queue grew from {early:.1f} s to {late:.1f} s; latencies depend on the "
                "length of the run"
            )
    return warnings


def _version() -> str:
    from simulator import __version__

    return __version__


def _peak_rss() -> int:
    """Peak resident memory of this process so far: bytes (kB on Linux, bytes on macOS)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
