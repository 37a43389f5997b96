"""Run one scenario from its requests to its summary, tables and checks."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simulator.errors import InputError, Problem
from simulator.experiments import uncalibrated
from simulator.experiments.simulation import Simulation, stream
from simulator.experiments.validity import unmodelled
from simulator.metrics import invariants, summary
from simulator.metrics.cost import energy, usd_per_hour
from simulator.metrics.faults import fault_rows
from simulator.metrics.occupancy import blocks_by_step
from simulator.metrics.requests import request_columns, token_gaps
from simulator.metrics.steps import WORK, Steps
from simulator.metrics.timeline import StageWeights
from simulator.metrics.timeline import timeline as draw
from simulator.metrics.timeseries import timeseries
from simulator.metrics.traffic import StageUse, Traffic
from simulator.prefetch.token_model.measured import claims
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.detailed import DetailedFar
from simulator.workload.synthetic import build

if TYPE_CHECKING:
    import pandas as pd

    from simulator.scenario import Scenario

Progress = Callable[[float, str], None]
Window = tuple[float, float]  # s of simulated time


@dataclass
class RunResult:
    """What a run gives: the summary, a row per request, the run over time."""

    scenario: Scenario
    summary: dict[str, Any]
    columns: dict[str, NDArray[Any]]
    series: dict[str, NDArray[Any]]
    timeline: dict[str, Any] | None = None  # a Chrome trace

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


def run_scenario(
    scenario: Scenario, check: bool = False, progress: Progress | None = None, coalesce: bool = True,
    timeline: Window | None = None,
) -> RunResult:  # fmt: skip
    """Simulate and summarise. `coalesce=False` takes every step singly (the same bytes but for `simulation`); `timeline`: the
    seconds of simulated time to draw."""
    resolved, began = scenario.resolved, time.perf_counter()
    measured = simulate_resolved(resolved, progress, coalesce, check, timeline is not None)
    simulation, steps, columns, traffic = measured.simulation, measured.steps, measured.columns, measured.traffic
    recorder, geometry, makespan = simulation.recorder, simulation.geometry, measured.makespan
    held = tiers_of(measured)
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
        "prefix_cache": summary.prefix_cache(recorder, columns, simulation.engine.replicas[0].prefix is not None),
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
        "faults": fault_rows(recorder.faults, steps, makespan),
        "bound_by": summary.bound_by(steps, makespan),
        "warnings": _warnings(scenario, simulation, columns),
        "simulation": {},
        "provenance": {"scenario_sha256": scenario.sha256, "version": _version(), "seed": resolved.seed},
    }
    l1, l2, l3 = (held[name][1] if name in held else np.zeros(len(steps.run)) for name in ("l1", "l2", "l3"))
    accepted = columns["status"] != "rejected"
    series = timeseries(steps, columns["arrival_s"][accepted], columns["admitted_s"], l1, l3, makespan, l2, traffic)
    if check:
        check_run(measured, held)
    wall = time.perf_counter() - began
    result["simulation"] = {
        "simulated_s": makespan,
        "wall_s": wall,
        "events": simulation.engine.events,
        "steps": simulation.engine.steps,
        "mean_batch": summary.ratio(int(steps.decodes.sum()), int((steps.decodes > 0).sum())),
        "output_tokens_per_wall_s": summary.ratio(tokens, wall),
        "peak_rss_bytes": _peak_rss(),
        "checked": check,
    }
    drawn = None
    if timeline is not None:
        drawn = draw(recorder, steps, columns, held, traffic, _weights(simulation), timeline)
    return RunResult(scenario, result, columns, series, drawn)


def _weights(simulation: Simulation) -> list[StageWeights]:
    """Stages of both ways, those of the reads from the GPU's end first."""
    if simulation.far is None:
        return []
    path = simulation.far.path
    found: dict[str, StageWeights] = {}
    for name, rate, weight in reversed(path.read):
        found[name] = StageWeights(name, rate, weight, 0.0)
    for name, rate, weight in path.write:
        read = found[name].read if name in found else 0.0
        found[name] = StageWeights(name, rate, read, weight)
    return list(found.values())


def simulate_resolved(
    resolved: ScenarioResolved, progress: Progress | None, coalesce: bool, check: bool, pieces: bool = False
) -> Measured:
    if progress:
        progress(0.0, "reading the workload")
    requests = build(resolved.workload, stream(resolved.seed, "arrivals"), stream(resolved.seed, "lengths"))
    if len(requests) == 0:
        message = f"{requests.source}: no request is left after the window and the limit"
        raise InputError(Problem("workload", "", message))
    simulation = Simulation(resolved, requests, coalesce, check)
    simulation.recorder.pieces = [] if pieces else None
    simulation.run(progress)
    recorder = simulation.recorder
    steps = Steps(recorder, simulation.law())
    columns = request_columns(recorder, steps, requests.arrival, requests.input_tokens, requests.output_tokens)
    makespan = float(steps.end[-1]) if len(steps.end) else 0.0
    return Measured(simulation, steps, columns, makespan, _traffic(simulation))


def tiers_of(measured: Measured) -> dict[str, tuple[float, NDArray[Any]]]:
    """Tier -> (capacity, bytes in use during each step)."""
    simulation, steps = measured.simulation, measured.steps
    geometry, recorder, pool = simulation.geometry, simulation.recorder, simulation.scenario.pool
    blocks = blocks_by_step(recorder, steps, geometry.block_tokens, geometry.most_blocks)
    block = geometry.block_bytes
    if not pool:
        return {"l1": (len(simulation.engine.replicas) * geometry.l1_blocks * block, blocks * block)}
    far = steps.runs["far_blocks"][steps.run]
    near = blocks - far if simulation.scenario.kv.eviction == "split" else np.minimum(blocks, geometry.l1_blocks)
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
    counts, path = far.counts, far.nominal
    carried: dict[str, list[float]] = {}
    for crossings, raw in ((path.read, far.moved * geometry.layer_bytes), (path.write, far.written)):
        for stage, rate, weight in crossings:
            carried.setdefault(stage, [rate, 0.0])[1] += raw * weight
    return Traffic(
        page_bytes=geometry.layer_bytes,
        asked=counts.asked, demand=counts.demand, in_time=counts.in_time, late=counts.late,
        proposed=counts.proposed, issued=counts.issued, dropped=counts.dropped, useless=counts.useless,
        in_flight=far.unused, l2_hits=far.l2_hits, polluted=far.polluted,
        moved=far.moved, written_bytes=far.written, backlog_bytes=far.backlog, sent_bytes=far.sent,
        homed=simulation.engine.replicas[0].residency.homed,
        wait_s=far.wait, waited=far.waited, l1_access_s=near,
        l3_access_s=path.read_latency + burst / path.burst_rate,
        rates=tuple(path.rates()),
        stages=tuple(StageUse(stage, rate, total) for stage, (rate, total) in carried.items()),
    )  # fmt: skip


def check_run(measured: Measured, held: dict[str, tuple[float, NDArray[Any]]]) -> None:
    simulation, steps, columns = measured.simulation, measured.steps, measured.columns
    recorder, requests = simulation.recorder, simulation.requests
    invariants.check_requests(recorder, columns)
    invariants.check_tokens(recorder, steps, requests.input_tokens, requests.output_tokens)
    invariants.check_steps(steps)
    invariants.check_attribution(columns)
    for name, (capacity, used) in held.items():
        invariants.check_capacity(name, used, capacity)
    left = 0
    for replica in simulation.engine.replicas:
        left += replica.residency.l1_used + replica.residency.l3_used + (replica.prefix.used if replica.prefix else 0)
    invariants.require("INV-CAPACITY", left == 0, f"{left} blocks are still held after the last request")
    invariants.check_traffic(measured.traffic)
    if isinstance(simulation.far, DetailedFar):
        simulation.far.check()
    values, weights = token_gaps(recorder, steps)
    invariants.check_little(recorder, columns, simulation.engine.presence, float(np.dot(values, weights)))


def _warnings(scenario: Scenario, simulation: Simulation, columns: dict[str, NDArray[Any]]) -> list[str]:
    warnings = list(simulation.notes)
    if scenario.resolved.kv.sharing == "prefix" and simulation.engine.replicas[0].prefix is None:
        warnings.append("prefix reuse: not in the workload (no ids of blocks that fit kv.block); prompts are computed whole")
    if scenario.resolved.prefetch.predictor == "token_model":
        warnings.append(claims(scenario.resolved.prefetch.model))
    if not scenario.resolved.gpus.gpu.calibrated:
        warnings.append(uncalibrated.warning(scenario.resolved.gpus.gpu))
    warnings += unmodelled(scenario.resolved)
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
