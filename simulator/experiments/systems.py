"""Published systems side by side on one workload and one hardware: a sweep whose axis is `kv.system`.

A row a system (and a value of each other axis, and arm): what fits, how fast, at which latency and cost, what bounds it, and
what was published about its quality, which is never simulated. A system with values that nobody published is a row that says
which it needs; an arm may give them:

    arms: {instinfer: {kv.system: instinfer, kv.placement.compute.memory: 8 TB, ...}}

`sequences` is how many requests of the workload's mean length KV memory holds, all of it used that can hold sequences that run:
L1, and a pool that is not for preempted or parked ones. `relative` is throughput against
the system `none` at the same other values, else against the first system that ran.
Runs and results are those of `sweep`: the same folder, the same journal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from simulator import catalog
from simulator.errors import InputError, Problem
from simulator.experiments.streams import stream
from simulator.experiments.studies.load import Study
from simulator.experiments.studies.points import Point
from simulator.experiments.studies.runner import Report
from simulator.experiments.studies.sweep import SweepResult, load, sweep
from simulator.kvcache.geometry import geometry
from simulator.kvcache.policies.retention import prompt_share
from simulator.scenario.resolved import ScenarioResolved, Workload

SYSTEM = "kv.system"
BASELINE = "none"
METRICS = {  # column -> key of a summary
    "output_tokens_per_s": "throughput.output_tokens_per_s",
    "tpot_s": "latency.tpot_s.mean",
    "ttft_p99_s": "latency.ttft_s.p99",
    "usd_per_million_output_tokens": "cost.usd_per_million_output_tokens",
    "joules_per_output_token": "energy.joules_per_output_token",
    "mean_batch": "simulation.mean_batch",
}
Row = dict[str, Any]


@dataclass
class SystemsResult:
    rows: list[Row]
    sweep: SweepResult

    @property
    def folder(self) -> Path:
        return self.sweep.folder


def systems(
    study: str | Path | Mapping[str, Any] | Study,
    out: str | Path | None = None,
    jobs: int | None = None,
    backend: str = "local",
    scheduler: str | None = None,
    report: Report | None = None,
) -> SystemsResult:
    """InputError if the study does not compare systems."""
    loaded = load(study)
    named = SYSTEM in loaded.axes or any(SYSTEM in arm for arm in loaded.arms.values())
    if not named:
        message = "no axis and no arm sets kv.system; write for example axes: {kv.system: [none, kivi, duoattention]}"
        raise InputError(Problem(loaded.name, "axes", message, "`speckvsim catalog kv_systems` lists the systems"))
    _check_names(loaded)
    result = sweep(loaded, out, jobs, backend, scheduler, report)
    rows = _distinct([_row(point, result) for point in result.points])
    for row in rows:
        row["relative"] = _relative(row, rows)
    return SystemsResult(rows, result)


def _check_names(study: Study) -> None:
    """InputError with every name that is no system, before anything runs."""
    asked = [(name, study.places[SYSTEM]) for name in study.axes[SYSTEM].values] if SYSTEM in study.axes else []
    asked += [arm[SYSTEM] for arm in study.arms.values() if SYSTEM in arm]
    problems = []
    for name, place in dict.fromkeys((str(name), str(place)) for name, place in asked):
        try:
            catalog.load("kv_systems", name)
        except catalog.UnknownName as error:
            problems.append(Problem(place, SYSTEM, error.message, error.hint))
    if problems:
        raise InputError(problems)


def _distinct(rows: list[Row]) -> list[Row]:
    """An arm that names its system does so at every value of the axis: once is enough."""
    keys = [str([value for key, value in row.items() if key not in ("status", "relative")]) for row in rows]
    return list(dict(zip(keys, rows)).values())


def system_of(point: Point) -> str:
    given = point.settings.get(SYSTEM)
    return str(given[0] if given else point.study.resolved.kv.system)


def _row(point: Point, result: SweepResult) -> Row:
    name = system_of(point)
    entry = catalog.load("kv_systems", name)
    mine = [row for row in result.rows if row["point_id"] == point.id]
    good = [row for row in mine if row["status"] == "finished"]
    error = next((row["error"] for row in mine if row["error"]), None)
    needs = [path for path in entry.unknown if point.problem and path in point.problem]
    row: Row = {"system": name, "arm": point.arm} | {path: value for path, value in point.si.items() if path != SYSTEM}
    row |= {"status": "finished" if good else "needs" if needs else "failed", "needs": needs}
    row |= {"error": None if needs else error, "title": entry.title}
    row |= {column: _mean([one.get(key) for one in good]) for column, key in METRICS.items()}
    row["sequences"] = sequences(point.resolved) if good else None
    row["bound_by"] = good[0]["bound_by"] if good else None
    return row | {"quality": entry.about["quality"]}


def _mean(values: list[Any]) -> float | None:
    found = [float(value) for value in values if value is not None]
    return sum(found) / len(found) if found else None


def _relative(row: Row, rows: list[Row]) -> float | None:
    own = ("system", "arm", "status", "needs", "error", "title", "sequences", "bound_by", "quality", "relative", *METRICS)
    keys = [key for key in row if key not in own]
    same = [one for one in rows if one["status"] == "finished" and all(one[key] == row[key] for key in keys)]
    if row["output_tokens_per_s"] is None or not same:
        return None
    against = next((one for one in same if one["system"] == BASELINE), same[0])["output_tokens_per_s"]
    return row["output_tokens_per_s"] / against if against else None


def sequences(scenario: ScenarioResolved) -> int:
    """Sequences of the workload's mean length that KV memory holds."""
    prompt, output = _lengths(scenario.workload, scenario.seed)
    sizes = geometry(scenario)
    tokens = round(prompt * prompt_share(scenario.kv.policies.retention) + output)
    blocks, near = max(1, sizes.blocks(tokens)), sizes.l1_blocks
    if not scenario.far_in_place:
        return near // blocks
    both = near + sizes.l3_blocks if scenario.kv.eviction == "split" else max(near, sizes.l3_blocks)  # else inclusive
    return min(both // blocks, near // min(blocks, sizes.near_blocks))


@lru_cache(maxsize=8)
def _lengths(workload: Workload, seed: int) -> tuple[float, float]:
    """(prompt, output) tokens of the mean request."""
    from simulator.workload.synthetic import build

    found = build(workload, stream(seed, "arrivals"), stream(seed, "lengths"))
    return float(found.input_tokens.mean()), float(found.output_tokens.mean())
