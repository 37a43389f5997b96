"""Whether a run reached a steady state, from when its requests arrived, were admitted and ended.

warm-up      MSER-5 (White 1997): of the times to first token in order of arrival, averaged in fives, the first d are cut that
             make the variance of the rest / (number of the rest)^2 least; at most half
backlog      requests that have arrived and were not admitted yet, averaged over each quarter of the time from the first to the
             last arrival; its growth is the difference of the last and the second quarter

    OVERLOADED  the backlog grew from each of these quarters to the next, by more than 2 % of the requests that arrived
                meanwhile, and either the load exceeds what the system can serve (`utilization` > 1), or it grew by more than
                chance would explain: 3 sqrt(2 n), n arrivals meanwhile (three deviations of a difference of two Poisson counts)
    BACKLOGGED  it did not grow so, but the mean request after the warm-up waits longer for admission than it is served, or
                several came all at once: means belong to this backlog, not to a rate
    STABLE      neither

`utilization` is the rate of arrivals over the rate that a full batch would serve (`scheduler/saturation.py`, an estimate);
null where there is no rate (all at once, a closed loop). Rejected and aborted requests count as arrivals; rejected ones leave
no backlog. A run shorter than its own transient shows neither growth nor a steady state: the rule cannot know.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.metrics.requests import mean

Floats = NDArray[np.float64]

STABLE, BACKLOGGED, OVERLOADED = "STABLE", "BACKLOGGED", "OVERLOADED"
GROWTH = 0.02  # of the arrivals
DEVIATIONS = 3.0
FIVE = 5


@dataclass(frozen=True)
class Stability:
    verdict: str
    utilization: float | None
    capacity: float | None  # requests/s
    warmup: int  # requests, the first ones
    warmup_until: float  # s, arrival of the first one after them
    growth: float | None  # of the backlog, per arrival
    steady: dict[str, float | None]  # mean latencies after the warm-up

    @property
    def summary(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "utilization": self.utilization,
            "capacity_requests_per_s": self.capacity,
            "warmup_requests": self.warmup,
            "warmup_s": self.warmup_until,
            "backlog_growth": self.growth,
            "after_warmup": self.steady,
        }

    @property
    def warning(self) -> str:
        """Empty unless overloaded."""
        if self.verdict == OVERLOADED:
            load = f"; offered load is about {self.utilization:.2f} of it" if self.utilization else ""
            grew = f"the backlog grew by {self.growth:.2f} requests with each arrival"
            return f"OVERLOADED: offered load exceeds capacity ({grew}{load}); mean latencies grow with the length of the run"
        return ""


def stability(columns: dict[str, NDArray[Any]], capacity: float | None, is_open: bool) -> Stability:
    """`capacity`: requests/s that a full batch would serve; `is_open`: arrivals do not depend on ends."""
    arrival, admitted = columns["arrival_s"], columns["admitted_s"]
    order = np.argsort(arrival, kind="stable")
    ttft = columns["ttft_s"][order]
    cut = mser5(ttft[~np.isnan(ttft)])
    finished = order[~np.isnan(ttft)]
    kept = finished[cut:]
    span = float(arrival.max() - arrival.min()) if len(arrival) else 0.0
    rate = (len(arrival) - 1) / span if span > 0 and is_open else None
    load = rate / capacity if rate and capacity else None
    growth, grows = _growth(arrival, admitted, columns["status"] != "rejected", load)
    queue, whole = columns["queue_s"][kept], columns["e2e_s"][kept]
    waits = len(kept) > 0 and float(queue.mean()) > float((whole - queue).mean())
    at_once = span == 0.0 and len(arrival) > 1
    verdict = OVERLOADED if grows and is_open else BACKLOGGED if waits or at_once else STABLE
    steady = {name: mean(columns[name][kept]) for name in ("ttft_s", "tpot_s", "e2e_s")}
    until = float(arrival[kept[0]]) if len(kept) else 0.0
    return Stability(verdict, load, capacity, cut, until, growth, steady)


def mser5(series: Floats) -> int:
    """Values to cut off the beginning, a multiple of five."""
    batches = len(series) // FIVE
    if batches < 2:
        return 0
    means = series[: batches * FIVE].reshape(batches, FIVE).mean(axis=1)
    count = np.arange(batches, 0, -1)  # of what is left from each on
    total, squares = np.cumsum(means[::-1])[::-1], np.cumsum((means**2)[::-1])[::-1]
    score = np.maximum(squares - total**2 / count, 0.0) / count.astype(float) ** 2
    return FIVE * int(np.argmin(score[: batches // 2 + 1]))


def _growth(arrival: Floats, admitted: Floats, accepted: NDArray[np.bool_], load: float | None) -> tuple[float | None, bool]:
    """Growth of the backlog per arrival over the second half of the window, and whether it is an overload."""
    came = np.sort(arrival[accepted])
    begin, end = (float(came[0]), float(came[-1])) if len(came) else (0.0, 0.0)
    if end <= begin:
        return None, False
    entered = np.sort(np.where(np.isnan(admitted), np.inf, admitted)[accepted])
    edges = np.linspace(begin, end, 5)
    second, third, fourth = (
        _until(came, high) - _until(came, low) - _until(entered, high) + _until(entered, low)
        for low, high in pairwise(edges[1:])
    )
    quarter = (end - begin) / 4
    meanwhile = int(((came > begin + 1.5 * quarter) & (came <= begin + 3.5 * quarter)).sum())
    if not meanwhile:
        return None, False
    grown = float(fourth - second) / quarter
    beyond_chance = grown > DEVIATIONS * sqrt(2 * meanwhile)
    grows = second < third < fourth and grown > GROWTH * meanwhile and (beyond_chance or (load is not None and load > 1.0))
    return grown / meanwhile, bool(grows)


def _until(times: Floats, until: float) -> float:
    """Integral of the number of `times` that have passed, up to `until`."""
    passed = times[: np.searchsorted(times, until, side="right")]
    return len(passed) * until - float(passed.sum())
