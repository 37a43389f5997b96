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
from simulator.experiments import together, uncalibrated
from simulator.experiments.measured import Measured, Part, check_run, columns_together, part_of
from simulator.experiments.server import Server
from simulator.experiments.simulation import Simulation, stream
from simulator.experiments.validity import unmodelled
from simulator.metrics import classes, summary
from simulator.metrics.cost import energy, usd_per_hour
from simulator.metrics.faults import fault_rows
from simulator.metrics.requests import gap_histogram
from simulator.metrics.stability import Stability, stability
from simulator.metrics.steps import WORK
from simulator.metrics.timeline import StageWeights, Track
from simulator.metrics.timeline import timeline as draw
from simulator.prefetch.token_model.measured import claims
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.disaggregation import Disaggregated
from simulator.scheduler.saturation import Saturated
from simulator.workload.requests import Requests
from simulator.workload.synthetic import build

if TYPE_CHECKING:
    import pandas as pd

    from simulator.scenario import Scenario

Progress = Callable[[float, str], None]
Window = tuple[float, float]  # s of simulated time


@dataclass
class RunResult:
    """What a run gives: the summary, a row per request, the run over time, the gaps between tokens; and its requests."""

    scenario: Scenario
    summary: dict[str, Any]
    columns: dict[str, NDArray[Any]]
    series: dict[str, NDArray[Any]]
    gaps: dict[str, NDArray[Any]]
    work: Requests
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

    @cached_property
    def token_gaps(self) -> pd.DataFrame:
        """The distribution of ITL; columns as in `simulator.metrics.requests.GAP_COLUMNS`."""
        import pandas as pd

        return pd.DataFrame(self.gaps)


def run_scenario(
    scenario: Scenario, check: bool = False, progress: Progress | None = None, coalesce: bool = True,
    timeline: Window | None = None,
) -> RunResult:  # fmt: skip
    """Simulate and summarise. `coalesce=False` takes every step singly (the same bytes but for `simulation`); `timeline`: the
    seconds of simulated time to draw."""
    resolved, began = scenario.resolved, time.perf_counter()
    measured = simulate_resolved(resolved, progress, coalesce, check, timeline is not None)
    simulation, steps, columns, traffic = measured.simulation, measured.steps, measured.columns, measured.traffic
    geometry, makespan = simulation.geometry, measured.makespan
    tokens, replicas = int(steps.rows.sum()), len(measured.parts)
    observed = max(makespan, simulation.clock)  # write-back goes on until the last arrival, even if it is rejected
    use = {stage.name: stage.utilization(observed) for stage in traffic.stages}
    board_use = max((share for name, share in use.items() if name.startswith("pool.")), default=0.0)
    power = energy([(part.server.scenario, part.steps) for part in measured.parts], makespan, board_use)
    hourly = usd_per_hour([part.server.scenario for part in measured.parts], power, makespan)
    busy = float(sum(steps.parts[part].sum() for part in WORK))
    stored = traffic.sent_bytes
    kind, tenant = simulation.kind, simulation.tenant
    met = classes.good_by_class(columns, resolved.slo.classes, kind)
    stable = stability(columns, capacity_of(simulation), is_open=simulation.requests.loop is None)
    result: dict[str, Any] = {
        "name": resolved.name,
        "throughput": summary.throughput([part.steps for part in measured.parts], columns, makespan),
        "latency": summary.latency(columns, measured.gaps),
        "goodput": summary.goodput(met, resolved.slo, kind, makespan),
        "requests": summary.counts(columns),
        "stability": stable.summary,
        "classes": classes.by_name(columns, [one.name for one in resolved.slo.given], kind, met, makespan),
        "tenants": _tenants(simulation, columns, met, makespan),
        "fairness": classes.fairness(columns, resolved.tenants, tenant),
        "prefetch": summary.prefetch(traffic),
        "prefix_cache": summary.prefix_cache(
            columns, simulation.found_blocks, simulation.engine.replicas[0].prefix is not None
        ),
        "kv_access": summary.kv_access(traffic, steps.near),
        "compression": {
            "ratio": geometry.ratio,
            "bytes_raw": stored,
            "bytes_stored": stored / geometry.ratio,
        },
        "stall": summary.stall(columns),
        "tiers": summary.with_reads(measured.tiers(), traffic),
        "layer_groups": summary.layer_groups(traffic),
        "utilization": {"gpu": busy / (replicas * makespan) if makespan else 0.0} | use,
        "energy": summary.joules(power, tokens),
        "cost": summary.money(hourly, tokens, makespan, resolved.cost.as_of, resolved.cost.basis),
        "faults": fault_rows([(part.server.name, part.recorder.faults) for part in measured.parts], steps, makespan),
        "bound_by": summary.bound_by(steps, makespan, replicas),
        "warnings": _warnings(scenario, simulation, stable),
        "simulation": {},
        "provenance": {"scenario_sha256": scenario.sha256, "version": _version(), "seed": resolved.seed},
    }
    if resolved.cluster.groups:
        result |= summary.replicas([_row(part, makespan) for part in measured.parts], resolved.cluster.routing)
    split = simulation.frontend
    if isinstance(split, Disaggregated):
        result["handover"] = summary.handover(columns, len(split.remote), split.moved)
        result["utilization"] |= split.used(observed)
    series = measured.series()
    if check:
        check_run(measured)
    wall = time.perf_counter() - began
    result["simulation"] = {
        "simulated_s": makespan,
        "wall_s": wall,
        "events": simulation.events,
        "steps": simulation.steps,
        "mean_batch": summary.ratio(int(steps.decodes.sum()), int((steps.decodes > 0).sum())),
        "output_tokens_per_wall_s": summary.ratio(tokens, wall),
        "peak_rss_bytes": _peak_rss(),
        "checked": check,
    }
    drawn = None
    if timeline is not None:
        drawn = draw([_track(part, held) for part, held in zip(measured.parts, measured.held)], timeline)
    gaps = gap_histogram(*measured.gaps)
    return RunResult(scenario, result, columns, series, gaps, simulation.requests, drawn)


def _tenants(
    simulation: Simulation, columns: dict[str, NDArray[Any]], met: NDArray[np.bool_], makespan: float
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """A row a tenant: its requests, and what crossed the fabric for them."""
    names, number = [one.name for one in simulation.scenario.tenants], simulation.tenant
    found = classes.by_name(columns, names, number, met, makespan)
    if (used := simulation.tenants) is not None:
        crossed = classes.on_fabric(columns, number, used.crossed, used.swapped, used.throttled)
        found = {name: row | more for (name, row), more in zip(found.items(), crossed, strict=True)}
    return found


def _row(part: Part, makespan: float) -> dict[str, Any]:
    """A replica in the summary."""
    steps, server = part.steps, part.server
    busy = float(sum(steps.parts[name].sum() for name in WORK))
    return {
        "replica": server.name,
        "group": server.group,
        "gpu": server.scenario.gpus.gpu.name,
        "gpus": server.scenario.gpus.count,
        "requests": len(part.columns["status"]),
        "output_tokens": int(steps.rows.sum()),
        "prompt_tokens": int(steps.prefill.sum()),
        "cached_tokens": int(part.columns["cached_tokens"].sum()),
        "mean_batch": summary.ratio(int(steps.decodes.sum()), int((steps.decodes > 0).sum())),
        "step_share": summary.ratio(float(steps.duration.sum()), makespan),
        "gpu_utilization": summary.ratio(busy, makespan),
        "far_read_bytes": part.traffic.moved * part.traffic.page_bytes,
        "bound_by": summary.bound_by(steps, makespan),
    }


def _track(part: Part, held: together.Held) -> Track:
    return Track(part.server.name, part.recorder, part.steps, part.columns, held, part.traffic, _weights(part.server))


def _weights(server: Server) -> list[StageWeights]:
    """Stages of both ways, those of the reads from the GPU's end first."""
    if server.far is None:
        return []
    path = server.far.path
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
    requests = simulation.requests
    for server in simulation.servers:
        server.recorder.pieces = [] if pieces else None
    simulation.run(progress)
    parts = [part_of(server, requests) for server in simulation.servers]
    columns = parts[0].columns
    if simulation.frontend is not None:
        columns = columns_together(parts, simulation.frontend, len(requests))
    if resolved.slo.given:
        columns["class"] = np.array([one.name for one in resolved.slo.given])[simulation.kind]
    if resolved.tenants:
        columns["tenant"] = np.array([one.name for one in resolved.tenants])[simulation.tenant]
    makespan = max([float(part.steps.end[-1]) for part in parts if len(part.steps.end)], default=0.0)
    return Measured(simulation, parts, columns, makespan)


def capacity_of(simulation: Simulation) -> float | None:
    """Requests/s that full batches would serve, of all replicas; null where prefill and decode are apart."""
    requests, total = simulation.requests, 0.0
    if any(group.role != "both" for group in simulation.scenario.cluster.groups):
        return None
    for server in simulation.servers:
        path, replicas = server.far.nominal if server.far else None, server.engine.replicas
        one = Saturated(replicas[0].model, server.scenario, server.geometry, path)
        total += len(replicas) * one.rate(requests.input_tokens, requests.output_tokens)
    return total


def _warnings(scenario: Scenario, simulation: Simulation, stable: Stability) -> list[str]:
    warnings = [stable.warning] if stable.warning else []
    warnings += simulation.notes
    if scenario.resolved.kv.sharing == "prefix" and simulation.engine.replicas[0].prefix is None:
        why = "not in the workload (no ids of blocks that fit kv.block)"
        if scenario.resolved.model.kept_tokens:
            why = "none where every layer has a window, which keeps no prefix"
        warnings.append(f"prefix reuse: {why}; prompts are computed whole")
    if scenario.resolved.prefetch.predictor == "token_model":
        warnings.append(claims(scenario.resolved.prefetch.model))
    if not scenario.resolved.gpus.gpu.calibrated:
        warnings.append(uncalibrated.warning(scenario.resolved.gpus.gpu))
    warnings += unmodelled(scenario.resolved)
    return warnings


def _version() -> str:
    from simulator import __version__

    return __version__


def _peak_rss() -> int:
    """Peak resident memory of this process so far: bytes (kB on Linux, bytes on macOS)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
