"""The fluid model against the detailed devices on the same requests (design 3.7).

A run with the fluid model records what every step asked of far memory (`tape`). A window of at least 50 steps (if the run has
as many) whose far traffic is the median of all such windows is replayed with bursts that move through the detailed devices
(`replay`, `hardware.detailed`). Batches and steps are those of the recording; their durations differ. Metrics of both:

    output_tokens_per_s   tokens that the window emits / its time
    itl_s                 duration of each step, once for each sequence that decodes in it: mean and P99
    ttft_s                of requests whose first token falls into the window, from their arrival: mean and P99
    step_s                mean step, and mean of those that read far pages

`X_diff_pct` = 100 (detailed - fluid) / fluid; null where the window has no such sample.
Where the window would be more than `most` bursts, several descriptors of a transfer move as one train; devices that work for
each descriptor still do (`hardware.detailed.dma`). `valid` and `reasons` are said before either model runs (`validity`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from simulator.errors import InputError, Problem
from simulator.experiments.replay import Replay, Row
from simulator.experiments.simulation import Simulation, stream
from simulator.experiments.tape import Entry, Tape
from simulator.experiments.validity import reasons
from simulator.hardware.detailed.system import FarSystem, slices
from simulator.kvcache.geometry import Geometry
from simulator.metrics.requests import request_columns
from simulator.metrics.steps import Steps
from simulator.scenario.far_events import unfit
from simulator.scenario.resolved import ScenarioResolved
from simulator.scenario.scenario import Scenario
from simulator.workload.synthetic import build

STEPS = 50  # of the window, at least
LEAD = 2  # steps before it that are replayed and not counted: what they prefetched is under way when it begins
MOST_BURSTS = 80_000  # bursts of a window
FINER, PER_LAYER = 3, 8

Floats = NDArray[np.float64]
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Window:
    """Recorded rows [first, last), of which those before `counted` are the lead-in."""

    first: int
    counted: int
    last: int


def crosscheck(
    scenario: Scenario, steps: int = STEPS, most: int = MOST_BURSTS, progress: Progress | None = None
) -> dict[str, Any]:
    """Both models over one window, as plain data.

    `InputError` without a pool or far reads, and for what the replay does not have: copy engines, pages by identity.
    """
    resolved = scenario.resolved
    problems = list(_unfit(resolved))
    if problems:
        raise InputError(problems)
    outside = reasons(resolved)
    if progress:
        progress(0.0, "fluid model")
    requests = build(resolved.workload, stream(resolved.seed, "arrivals"), stream(resolved.seed, "lengths"))
    simulation = Simulation(resolved, requests, far_memory=Tape)
    simulation.run()
    tape = simulation.far
    assert isinstance(tape, Tape)
    if not any(entry.far for entry in tape.entries):
        raise InputError(Problem("kv.l1", "", "no step of this run reads from the pool, so there is nothing to compare"))
    recorder = simulation.recorder
    columns = Steps(recorder, simulation.law())
    entries = dict(zip(columns.far["run"].tolist(), tape.entries))
    window = _window(columns, steps)
    rows = [_row(columns, entries, number) for number in range(window.first, window.last)]
    train = train_of(resolved, simulation.geometry, rows, most)
    if progress:
        progress(0.2, f"detailed devices, {window.last - window.counted} rows of steps")
    env = simpy.Environment()
    system = FarSystem(env, resolved, simulation.geometry.page_bytes, stream(resolved.seed, "placement"), train)
    predictor = tape.predictor
    replay = Replay(env, system, simulation.geometry, resolved.prefetch.latency, predictor.wraps, predictor.knows_the_future)
    replay.run(rows)
    times = request_columns(recorder, columns, requests.arrival, requests.input_tokens, requests.output_tokens)
    lead = window.counted - window.first
    counted_rows = slice(window.counted, window.last)
    fluid = _metrics(columns, window, columns.runs["start"][counted_rows], _ends(columns, window), times)
    detailed = _metrics(columns, window, np.array(replay.starts[lead:]), np.array(replay.ends[lead:]), times)
    counted = [row.entry for row in rows[lead:] if row.entry and row.entry.far]
    return {
        "name": resolved.name,
        "sha256": scenario.sha256,
        "valid": not outside,
        "reasons": outside,
        "window": {
            "first_step": int(columns.first[window.counted]),
            "steps": int(columns.first[window.last] - columns.first[window.counted]),
            "far_steps": len(counted),
            "start_s": float(columns.runs["start"][window.counted]),
            "fluid_s": fluid["seconds"],
            "detailed_s": detailed["seconds"],
            "far_bytes": float(sum(sum(entry.far) for entry in counted) * simulation.geometry.layer_bytes),
        },
        "burst_bytes": resolved.kv.burst,
        "descriptors_per_train": train,
        "slices": system.slices,
        "events": {"bursts": sum(device.bursts for device in system.devices()), "transfers": system.transfers},
        "fluid": {name: value for name, value in fluid.items() if name != "seconds"},
        "detailed": {name: value for name, value in detailed.items() if name != "seconds"},
        **{f"{name}_diff_pct": _diff(fluid[name], detailed[name]) for name in fluid if name != "seconds"},
        "devices": _devices(system, env.now),
    }


def _unfit(scenario: ScenarioResolved) -> Iterator[Problem]:
    """What cannot be replayed: all that detailed devices do not serve, and what a recording of one replica does not have."""
    if scenario.pool is None:
        yield Problem("cluster.kv_pool", "", "crosscheck compares models of far memory, and there is no kv_pool")
        return
    for where, message, use in unfit(scenario):
        yield Problem(".".join(where), "", message, use)
    others: tuple[tuple[str, bool, str], ...] = (
        ("cluster", bool(scenario.cluster.groups), "replays one replica; write replicas: 1"),
        ("prefetch.service", scenario.prefetch.service > 0.0, "replays prefetches as they are issued; write service: 0 s"),
        ("prefetch.score", scenario.prefetch.score > 0.0, "replays steps that do not score pages; write score: 0"),
        ("faults", bool(scenario.faults), "replays devices that work; remove faults (--set faults=[])"),
    )
    for field, found, message in others:
        if found:
            yield Problem(field, "", f"crosscheck {message}")


def _row(columns: Steps, entries: dict[int, Entry], number: int) -> Row:
    start = float(columns.runs["start"][number])
    return Row(start, float(columns.end[columns.first[number + 1] - 1]) - start, entries.get(number))


def _window(columns: Steps, steps: int) -> Window:
    """The window of `steps` consecutive far steps, and what lies between them, whose far traffic is the median of all such."""
    rows, asked = columns.far["run"], columns.far["asked"]
    rows, asked = rows[asked > 0], asked[asked > 0]
    count = min(steps, len(rows))
    moved = np.concatenate([[0], np.cumsum(asked)])
    traffic = moved[count:] - moved[:-count]
    span = rows[count - 1 :] - rows[: len(rows) - count + 1]
    close = np.flatnonzero(span < 2 * count)  # without long times of nothing far, if there are such
    among = close if len(close) else np.arange(len(traffic))
    order = among[np.argsort(traffic[among], kind="stable")]
    chosen = int(order[len(order) // 2])
    first, last = int(rows[chosen]), int(rows[chosen + count - 1]) + 1
    while columns.first[last] - columns.first[first] < steps and (first > 0 or last < len(columns.first) - 1):
        first, last = max(0, first - 1), min(len(columns.first) - 1, last + 1)  # a run with few far steps
    return Window(max(0, first - LEAD), first, last)


def train_of(scenario: ScenarioResolved, geometry: Geometry, rows: list[Row], most: int) -> int:
    """Descriptors that move as one burst: a power of two, so that the window has about `most` bursts, or up to `FINER` times
    as many where that leaves a rank fewer than `PER_LAYER` bursts of a mean layer."""
    reads = [row.entry for row in rows if row.entry and row.entry.far]
    pages = sum(sum(entry.far) + sum(entry.wrong) for entry in reads)
    sent = sum(row.entry.sent + row.entry.produced for row in rows if row.entry)
    total = (pages * geometry.layer_bytes + sent) / slices(scenario)
    layer = pages * geometry.page_bytes / max(1, sum(len(entry.far) for entry in reads))  # raw bytes on one rank
    train = 1
    while total / (geometry.burst * train) > most:
        train *= 2
    while train > 1 and geometry.burst * train * PER_LAYER > layer and total / (geometry.burst * train) < 0.5 * FINER * most:
        train //= 2
    return train


def _ends(columns: Steps, window: Window) -> Floats:
    """When the counted rows ended."""
    ends: Floats = columns.end[columns.first[window.counted + 1 : window.last + 1] - 1]
    return ends


def _metrics(
    columns: Steps, window: Window, begins: Floats, ends: Floats, times: dict[str, NDArray[Any]]
) -> dict[str, float | None]:
    """Metrics of the window when its rows begin and end then (s)."""
    recorded = _ends(columns, window)
    first, last = columns.first[window.counted], columns.first[window.last]
    row = columns.run[first:last] - window.counted  # row of each step
    length = recorded - columns.runs["start"][window.counted : window.last]
    stretch = (ends - begins) / np.where(length > 0, length, 1.0)
    steps = columns.duration[first:last] * stretch[row]
    decodes, rows = columns.decodes[first:last], columns.rows[first:last]
    far = np.isin(columns.run[first:last], columns.far["run"][columns.far["asked"] > 0])
    ttft = _ttft(columns, window, begins, ends, times)
    seconds = float(ends[-1] - begins[0])
    return {
        "seconds": seconds,
        "output_tokens_per_s": float(rows.sum()) / seconds,
        "itl_s_mean": float(np.average(steps, weights=decodes)) if decodes.sum() else None,
        "itl_s_p99": _quantile(steps, decodes, 0.99) if decodes.sum() else None,
        "ttft_s_mean": float(ttft.mean()) if len(ttft) else None,
        "ttft_s_p99": float(np.quantile(ttft, 0.99)) if len(ttft) else None,
        "step_s_mean": float(steps.mean()),
        "far_step_s_mean": float(steps[far].mean()),
    }


def _ttft(columns: Steps, window: Window, begins: Floats, ends: Floats, times: dict[str, NDArray[Any]]) -> Floats:
    """Of requests whose first token came with the end of a row of the window. Batches are those of the recording, so an
    arrival keeps its place between the steps, and moves with them."""
    recorded, starts = _ends(columns, window), columns.runs["start"][window.counted : window.last]
    arrival, ttft = times["arrival_s"], times["ttft_s"]
    known = ~np.isnan(ttft)
    arrival, token = arrival[known], arrival[known] + ttft[known]
    at = np.minimum(np.searchsorted(recorded, token * (1 - 1e-12)), len(recorded) - 1)
    inside = np.abs(recorded[at] - token) <= 1e-9 * np.maximum(1.0, token)
    old = np.ravel(np.column_stack([starts, recorded]))
    new = np.ravel(np.column_stack([begins, ends]))
    moved = np.where(arrival < old[0], arrival + new[0] - old[0], np.interp(arrival, old, new))
    shifted: Floats = ends[at[inside]] - moved[inside]
    return shifted


def _quantile(values: Floats, weights: NDArray[np.int64], share: float) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, ceil(share * reached[-1] - 1e-9))])


def _diff(fluid: float | None, detailed: float | None) -> float | None:
    return 100.0 * (detailed - fluid) / fluid if fluid and detailed is not None else None


def _devices(system: FarSystem, seconds: float) -> list[dict[str, Any]]:
    """Counters of the detailed devices that did something."""
    rows: list[dict[str, Any]] = [
        {
            "device": device.name,
            "bursts": device.bursts,
            "wire_bytes": device.carried,
            "utilization": min(1.0, device.busy / seconds) if seconds else 0.0,
            "blocked_s": device.blocked,
        }
        for device in system.devices()
        if device.bursts
    ]
    return rows
