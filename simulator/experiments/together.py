"""What several replicas did, as one: their steps, their requests, their traffic.

Times of steps are those of one clock, so columns of steps are simply put one after the other, replica by replica; whoever reads
them sums, or takes percentiles. A request belongs to the replica that served it; what a split gives to two of them is put
together in `metrics/handover.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.metrics.steps import PARTS, Steps
from simulator.metrics.timeseries import COLUMNS as SERIES
from simulator.metrics.traffic import GroupUse, StageUse, Traffic
from simulator.scheduler.shared import is_shared

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Columns = dict[str, NDArray[Any]]
Held = dict[str, tuple[float, NDArray[Any]]]  # tier -> (capacity, bytes in use during each step)

MEANS = {"gpu_share", "wait_share"}  # of a time series: means over replicas; the other shares are so where there is one
SHARES = {"l1_hit_share", "covered_share", "in_time_share"}
SAME = {"time_s", "queue"}


class StepsTogether:
    """The columns of `Steps` that do not depend on who made the step."""

    def __init__(self, each: Sequence[Steps]):
        self.each = each

    def _all(self, name: str) -> NDArray[Any]:
        return np.concatenate([getattr(steps, name) for steps in self.each])

    @cached_property
    def decodes(self) -> Ints:
        return self._all("decodes")

    @cached_property
    def prefill(self) -> Ints:
        return self._all("prefill")

    @cached_property
    def rows(self) -> Ints:
        return self._all("rows")

    @cached_property
    def duration(self) -> Floats:
        return self._all("duration")

    @cached_property
    def end(self) -> Floats:
        return self._all("end")

    @cached_property
    def parts(self) -> dict[str, Floats]:
        return {name: np.concatenate([steps.parts[name] for steps in self.each]) for name in PARTS}

    @cached_property
    def near(self) -> int:
        """Pages read from L1 by steps with far memory."""
        return sum(int(steps.far["near"].sum()) for steps in self.each)


def columns_of(count: int, each: Sequence[tuple[Sequence[int], Columns]]) -> Columns:
    """A row a request of all: `each` replica's requests and their columns."""
    found: Columns = {}
    for rows, columns in each:
        for name, values in columns.items():
            if name not in found:
                empty = np.nan if values.dtype.kind == "f" else 0
                found[name] = np.full(count, empty, dtype=values.dtype)
            if values.dtype.itemsize > found[name].dtype.itemsize:
                found[name] = found[name].astype(values.dtype)  # a longer text
            found[name][np.asarray(rows, dtype=np.int64)] = values
    found["request"] = np.arange(count)
    return found


def traffic_of(each: Sequence[Traffic], shared: bool) -> Traffic:
    """Sums; of stages that all replicas share the rate counts once, of others once for each."""
    sums = {
        field.name: sum(getattr(traffic, field.name) for traffic in each)
        for field in fields(Traffic)
        if field.name not in ("page_bytes", "l1_access_s", "l3_access_s", "rates", "stages", "groups")
    }
    carried: dict[str, list[float]] = {}
    for traffic in each:
        for stage in traffic.stages:
            total = carried.setdefault(stage.name, [0.0, 0.0])
            total[0] = stage.rate if shared and is_shared(stage.name) else total[0] + stage.rate
            total[1] += stage.carried
    stages = tuple(StageUse(name, rate, total) for name, (rate, total) in carried.items())
    groups = tuple(GroupUse.together(same) for same in zip(*(traffic.groups for traffic in each if traffic.groups)))
    return replace(each[0], **sums, stages=stages, groups=groups, rates=())


def tiers_together(each: Sequence[tuple[Steps, Held]], shared: bool) -> tuple[Held, Floats]:
    """Bytes in use by all replicas from each instant at which a step of one begins or ends, and for how long."""
    begins, ends = ([_begins(steps) for steps, _ in each], [steps.end for steps, _ in each])
    at = np.concatenate([*ends, *begins])
    order = np.argsort(at, kind="stable")  # at the same time what ends goes first
    found: Held = {}
    for name in dict.fromkeys(name for _, held in each for name in held):
        capacity = [held[name][0] for _, held in each if name in held]
        used = [held[name][1].astype(np.float64) if name in held else np.zeros(len(steps.end)) for steps, held in each]
        change = np.concatenate([*(-one for one in used), *used])[order]
        total = np.cumsum(change)
        total[np.abs(total) < 1e-9 * np.abs(change).max(initial=0.0)] = 0.0  # what is left of sums that cancel
        found[name] = (max(capacity) if shared and name == "l3" else sum(capacity), total)
    return found, np.diff(at[order], append=at[order][-1:])


def _begins(steps: Steps) -> Floats:
    """When each step began: not before the one before it had ended, whatever rounding says."""
    begins: Floats = steps.end - steps.duration
    begins[1:] = np.maximum(begins[1:], steps.end[:-1])
    return begins


def series_of(each: Sequence[Columns]) -> Columns:
    """The run over time: sums of what replicas do, means of what is a share."""
    found: Columns = {}
    for name in SERIES:
        table = np.array([columns[name] for columns in each], dtype=np.float64)
        if name in SAME:
            found[name] = each[0][name]
        elif name in MEANS:
            found[name] = table.mean(axis=0)
        elif name in SHARES:
            known = ~np.isnan(table)
            total = np.where(known, table, 0.0).sum(axis=0)
            found[name] = np.divide(total, known.sum(axis=0), out=np.full(table.shape[1], np.nan), where=known.any(axis=0))
        else:
            found[name] = table.sum(axis=0)
    return found
