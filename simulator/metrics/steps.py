"""From recorded runs to steps: when each began and ended, and what its time was made of.

The parts of a step are computed from the same expressions as its duration, so they sum to it (INV-ATTRIBUTION):

    compute, hbm  operators bound by FLOPs, by HBM bandwidth
    collective    all-reduces            launch   kernels inside the replayed graph
    host          engine overhead        link, pool_memory, dma, staging   exposed waits for far pages, by the stage that
    decompress    GPU codec kernels, and exposed waits where the FPGA engines bound the path
    writeback     waits for L2 space
Kernels that run longer beside transfers wait for HBM: that time is in `hbm`. A predictor on the GPU is in `compute`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.metrics.recorder import Recorder

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WORK = ("compute", "hbm", "collective", "launch")  # the GPUs are at it
WAITS = ("link", "pool_memory", "dma", "staging", "decompress", "writeback")  # for far memory
PARTS = (*WORK, "host", *WAITS)


@dataclass(frozen=True)
class StepTimes:
    """What the step model says of one kind of step, without the work of attention: seconds by part, and by what draws power."""

    base: float
    compute: float
    hbm: float
    collective: float
    launch: float
    attention: float  # s per token of decode context, all layers
    streaming: float  # HBM s at full rate
    computing: float  # tensor-core s at full rate


@dataclass(frozen=True)
class StepLaw:
    """The step model as the metrics need it; told by who ran the simulation."""

    host: float  # s of host time per step
    host_per_row: float  # and per token given out
    attention_part: str  # the part that decode attention belongs to
    context_load: tuple[float, float]  # (HBM s, tensor-core s) at full rate per token of decode context, all layers
    shapes: dict[tuple[int, int, int], StepTimes]  # (tokens, rows, attention kernels) -> times
    stall_kind: str  # the part that exposed waits for far pages belong to
    swap_kind: str = "link"  # and waits for copies of preempted sequences


def shapes(runs: dict[str, np.ndarray]) -> tuple[list[tuple[int, int, int]], Ints]:
    """What the base time of a step depends on, (tokens, rows, attention kernels in each layer): those that occur, and which
    of them each recorded run has."""
    kernels = (runs["decodes"] > 0).astype(np.int64) + (runs["prefill"] > 0)
    code = ((runs["decodes"] + runs["prefill"]) << 32) + (runs["rows"] << 2) + kernels  # one number sorts faster than three
    unique, index = np.unique(code, return_inverse=True)
    return [(one >> 32, (one >> 2) & (1 << 30) - 1, one & 3) for one in unique.tolist()], index


class StepColumns(Protocol):
    """What all steps have, of one replica or of several."""

    @property
    def decodes(self) -> Ints: ...
    @property
    def prefill(self) -> Ints: ...
    @property
    def rows(self) -> Ints: ...
    @property
    def duration(self) -> Floats: ...
    @property
    def end(self) -> Floats: ...
    @property
    def parts(self) -> dict[str, Floats]: ...
    @property
    def near(self) -> int: ...


class Steps:
    """All steps of a run as columns; `run` maps each to its recorded row."""

    def __init__(self, recorder: Recorder, law: StepLaw):
        runs, far = recorder.runs.arrays(), recorder.far.arrays()
        self.runs, self.far, self.law = runs, far, law
        count: Ints = runs["steps"]
        self.run: Ints = np.repeat(np.arange(len(count)), count)
        self.first: Ints = np.concatenate([[0], np.cumsum(count)])  # step index at which each run begins
        within = np.arange(len(self.run)) - self.first[self.run]
        self.decodes: Ints = runs["decodes"][self.run]
        self.prefill: Ints = runs["prefill"][self.run]
        self.rows: Ints = runs["rows"][self.run]
        context = runs["context"][self.run] + runs["growth"][self.run] * within
        found, self._shape = shapes(runs)
        self._times = [law.shapes[shape] for shape in found]
        base = self._column("base")
        extra = (runs["prefill_compute"] + runs["prefill_hbm"])[self.run]
        self.attention: Floats = self._column("attention") * context
        self.duration: Floats = base + self.attention + extra
        self.duration[self.first[far["run"]]] = far["duration"]
        self.given = recorder.given.arrays()
        self._bounds = recorder.bounds
        self._given_at: Ints = self.first[self.given["run"]]
        self.duration[self._given_at] = self.given["duration"]
        self.context: Ints = context

    @property
    def near(self) -> int:
        """Pages read from L1 by steps with far memory."""
        return int(self.far["near"].sum())

    def _column(self, name: str) -> Floats:
        values = np.array([getattr(times, name) for times in self._times])
        return values[self._shape[self.run]] if len(values) else np.zeros(0)

    @cached_property
    def end(self) -> Floats:
        """When each step ended: the sequential sum from the start of its run, as the engine's clock."""
        ends = np.empty_like(self.duration)
        start, first = self.runs["start"], self.first
        single = self.runs["steps"] == 1
        index = first[:-1][single]
        ends[index] = start[single] + self.duration[index]
        for run in np.flatnonzero(~single):
            span = self.duration[first[run] : first[run + 1]].copy()
            span[0] += start[run]
            ends[first[run] : first[run + 1]] = np.add.accumulate(span)
        return ends

    @cached_property
    def parts(self) -> dict[str, Floats]:
        """Seconds of each step by part."""
        runs, law = self.runs, self.law
        compute = self._column("compute") + runs["prefill_compute"][self.run]
        hbm = self._column("hbm") + runs["prefill_hbm"][self.run]
        if law.attention_part == "compute":
            compute = compute + self.attention
        elif law.attention_part == "hbm":
            hbm = hbm + self.attention
        zero: Floats = np.zeros(len(self.run))
        host: Floats = np.asarray(law.host + law.host_per_row * self.rows, dtype=np.float64)
        parts = dict.fromkeys(PARTS, zero)
        parts |= {
            "compute": compute, "hbm": hbm, "collective": self._column("collective"), "launch": self._column("launch"),
            "host": host,
        }  # fmt: skip
        if law.attention_part not in WORK:
            parts[law.attention_part] = self.attention
        if len(self.far["run"]):
            at = self.first[self.far["run"]]
            for kind in dict.fromkeys((law.stall_kind, *(kind for _, kind in self._bounds))):
                parts[kind] = parts[kind].copy()
                parts[kind][at] += np.where(self._bound_by(kind), self.far["stall"], 0.0)
            waits = (
                ("decompress", "codec"),
                ("writeback", "writeback"),
                ("hbm", "dragged"),
                ("compute", "predicting"),
                (law.swap_kind, "swapped"),
            )
            for name, column in waits:
                parts[name] = parts[name].copy()
                parts[name][at] += self.far[column]
        for name in (*WORK, "host") if len(self._given_at) else ():
            parts[name] = parts[name].copy()
            parts[name][self._given_at] = self.given[name]
        return parts

    def _bound_by(self, kind: str) -> NDArray[np.bool_]:
        """The rows of `far` in which exposed waits belong to this part: what bounds far reads changes with faults."""
        kinds = np.array([self.law.stall_kind, *(kind for _, kind in self._bounds)])
        latest = np.searchsorted([run for run, _ in self._bounds], self.far["run"], side="right")
        found: NDArray[np.bool_] = kinds[latest] == kind
        return found

    @cached_property
    def load(self) -> tuple[Floats, Floats]:
        """(HBM seconds, tensor-core seconds) of each step, each at its full rate; prefill attention counts as it runs."""
        per_token = self.law.context_load
        streaming, computing = (
            self._column(name) + per_token[kind] * self.context for kind, name in enumerate(("streaming", "computing"))
        )
        streaming = streaming + self.runs["prefill_hbm"][self.run]
        computing = computing + self.runs["prefill_compute"][self.run]
        streaming[self._given_at], computing[self._given_at] = self.given["streaming"], self.given["computing"]
        return streaming, computing

    @cached_property
    def until_run(self) -> dict[str, Floats]:
        """Seconds by part of all steps before run i, for i from 0 to the number of runs."""
        return {name: np.concatenate([[0.0], np.cumsum(column)])[self.first] for name, column in self.parts.items()}
