"""Arrival processes: times of n requests, the first at 0.

Renewal processes, at a mean rate: gaps are independent with mean 1 / rate. `gamma` has the coefficient of variation cv
(shape 1 / cv^2; cv = 1 is Poisson, above 1 is burstier). Gaps are drawn at rate 1 and then scaled, so that the same seed gives
the same pattern at every rate.

Poisson processes whose rate r(t) varies: the times at which R(t), the integral of r, reaches those of one of rate 1.

    diurnal  r(t) = rate (1 - amplitude cos(2 pi t / period)): begins at the lowest point
    ramp     from rate to peak, linearly during `over`, then peak
    spike    rate, but peak from `at` on for `over`
    mmpp     Markov-modulated: stays in state s for an exponential time with mean dwell[s] at rates[s], then goes to any of the
             others with equal chance; begins in the first

A process is a function and one line in `PROCESSES` or `VARYING`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import pi
from typing import Protocol

import numpy as np

from simulator.workload.requests import Floats

HALVINGS = 60  # of the bracket of a time, down to the last bits


class Varying(Protocol):
    """What processes with a varying rate need beside `rate`."""

    @property
    def amplitude(self) -> float: ...
    @property
    def period(self) -> float: ...
    @property
    def peak(self) -> float: ...
    @property
    def at(self) -> float: ...
    @property
    def over(self) -> float: ...
    @property
    def rates(self) -> Sequence[float]: ...
    @property
    def dwell(self) -> Sequence[float]: ...


def poisson(rng: np.random.Generator, gaps: int, cv: float) -> Floats:
    return rng.standard_exponential(gaps)


def gamma(rng: np.random.Generator, gaps: int, cv: float) -> Floats:
    return rng.standard_gamma(1 / cv**2, gaps) * cv**2


def constant(rng: np.random.Generator, gaps: int, cv: float) -> Floats:
    return np.ones(gaps)


def at_once(rng: np.random.Generator, gaps: int, cv: float) -> Floats:
    return np.zeros(gaps)


# name -> gaps at rate 1, from a generator, their number, and cv (used by gamma only)
PROCESSES: dict[str, Callable[[np.random.Generator, int, float], Floats]] = {
    "at_once": at_once,
    "constant": constant,
    "gamma": gamma,
    "poisson": poisson,
}


def diurnal(rng: np.random.Generator, reached: Floats, rate: float, varying: Varying) -> Floats:
    swing = varying.amplitude * varying.period / (2 * pi)
    low, high = reached / rate - swing, reached / rate + swing
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        early = rate * (middle - swing * np.sin(2 * pi * middle / varying.period)) < reached
        low, high = np.where(early, middle, low), np.where(early, high, middle)
    return np.maximum(high, 0.0)


def ramp(rng: np.random.Generator, reached: Floats, rate: float, varying: Varying) -> Floats:
    peak, over = varying.peak, varying.over
    whole, slope = (rate + peak) / 2 * over, (peak - rate) / over
    inside = np.minimum(reached, whole)
    times = 2 * inside / (rate + np.sqrt(np.maximum(rate**2 + 2 * slope * inside, 0.0)))  # no cancellation at small slopes
    return np.where(reached <= whole, times, over + (reached - whole) / peak)


def spike(rng: np.random.Generator, reached: Floats, rate: float, varying: Varying) -> Floats:
    at, over = varying.at, varying.over
    before, within = rate * at, varying.peak * over
    inside = at + (reached - before) / varying.peak
    after = at + over + (reached - before - within) / rate
    return np.where(reached < before, reached / rate, np.where(reached < before + within, inside, after))


def mmpp(rng: np.random.Generator, reached: Floats, rate: float, varying: Varying) -> Floats:
    times, totals, state = [0.0], [0.0], 0
    while totals[-1] < reached[-1]:
        stay = rng.exponential(varying.dwell[state])
        times.append(times[-1] + stay)
        totals.append(totals[-1] + stay * varying.rates[state])
        state = (state + 1 + int(rng.integers(len(varying.rates) - 1))) % len(varying.rates)
    at: Floats = np.interp(reached, totals, times)
    return at


VARYING: dict[str, Callable[[np.random.Generator, Floats, float, Varying], Floats]] = {
    "diurnal": diurnal,
    "mmpp": mmpp,
    "ramp": ramp,
    "spike": spike,
}


def draw_arrivals(
    rng: np.random.Generator, process: str, count: int, rate: float, cv: float, varying: Varying | None = None
) -> Floats:  # fmt: skip
    """`count` arrival times in s; `rate` in requests/s (not used by at_once; inf puts all at 0)."""
    arrival = np.zeros(count)
    if process in VARYING:
        np.cumsum(poisson(rng, count - 1, cv), out=arrival[1:])
        assert varying is not None  # who asks for such a process says how it varies
        return VARYING[process](rng, arrival, rate, varying)
    np.cumsum(PROCESSES[process](rng, count - 1, cv), out=arrival[1:])
    return arrival if process == "at_once" else arrival / rate
