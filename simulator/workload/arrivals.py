"""Arrival processes: times of n requests at a mean rate, the first at 0.

Renewal processes: gaps are independent with mean 1 / rate. `gamma` has the coefficient of variation cv (shape 1 / cv^2;
cv = 1 is Poisson, above 1 is burstier). Gaps are drawn at rate 1 and then scaled, so that the same seed gives the same
pattern at every rate. Not modelled: daily cycles, correlated gaps.
A process is a function and one line in `PROCESSES`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simulator.workload.requests import Floats


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


def draw_arrivals(rng: np.random.Generator, process: str, count: int, rate: float, cv: float) -> Floats:
    """`count` arrival times in s; `rate` in requests/s (not used by at_once; inf puts all at 0)."""
    arrival = np.zeros(count)
    np.cumsum(PROCESSES[process](rng, count - 1, cv), out=arrival[1:])
    return arrival if process == "at_once" else arrival / rate
