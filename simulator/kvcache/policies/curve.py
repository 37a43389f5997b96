"""Tokens (or bytes, or seconds) of one sequence as a function of its context.

Every policy here is a concave piecewise-linear function of the context n, so that a sum over sequences grows linearly
between the contexts at which one of them turns:

    f(n) = constant + sum_k slope_k * min(n, cap_k)

Sums, multiples, f(k n) and min(f, bound) stay in the family.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """`terms` are (cap, slope) with slope >= 0, caps in order and each once; the cap inf is a plain multiple of n."""

    terms: tuple[tuple[float, float], ...] = ()
    constant: float = 0.0

    @staticmethod
    def of(terms: Iterable[tuple[float, float]], constant: float = 0.0) -> Curve:
        """From terms in any order: equal caps are added, what is always 0 falls out."""
        total: dict[float, float] = {}
        for cap, slope in terms:
            if cap > 0.0 and slope > 0.0:
                total[cap] = total.get(cap, 0.0) + slope
        return Curve(tuple(sorted(total.items())), constant)

    def at(self, n: float) -> float:
        return self.constant + sum(slope * min(n, cap) for cap, slope in self.terms)

    def over(self, contexts: Ints) -> Floats:
        """f of each context."""
        values = np.full(len(contexts), self.constant)
        for cap, slope in self.terms:
            values += slope * np.minimum(contexts, cap)
        return values

    def slopes(self, contexts: Ints) -> Floats:
        """How much f grows with the next token."""
        values = np.zeros(len(contexts))
        for cap, slope in self.terms:
            values += slope * np.clip(cap - contexts, 0.0, 1.0)
        return values

    @property
    def slope(self) -> float:
        """For long contexts."""
        return sum(slope for cap, slope in self.terms if cap == inf)

    @property
    def bounded(self) -> Curve:
        """What it is beyond `slope` * n."""
        return Curve(tuple(term for term in self.terms if term[0] < inf), self.constant)

    @property
    def limit(self) -> float:
        """What f comes to for long contexts, where it stops growing."""
        return self.constant + sum(slope * cap for cap, slope in self.terms)

    def __add__(self, other: Curve) -> Curve:
        return Curve.of((*self.terms, *other.terms), self.constant + other.constant)

    def times(self, factor: float) -> Curve:
        return Curve.of(((cap, slope * factor) for cap, slope in self.terms), self.constant * factor)

    def stretched(self, factor: float) -> Curve:
        """f(factor * n)."""
        return Curve.of(((cap / factor, slope * factor) for cap, slope in self.terms), self.constant) if factor else Curve()

    def capped(self, bound: float) -> Curve:
        """min(f, bound); the constant has to be below the bound."""
        turn = self.reaches(bound)
        return Curve.of(((min(cap, turn), slope) for cap, slope in self.terms), self.constant)

    def reaches(self, bound: float) -> float:
        """The smallest n with f(n) = bound; inf if there is none."""
        value, before = self.constant, 0.0
        slope = sum(slope for _, slope in self.terms)
        for cap, part in self.terms:
            if slope > 0.0 and value + slope * (cap - before) >= bound:
                return before + (bound - value) / slope
            value, before, slope = value + slope * (cap - before), cap, slope - part
        return inf


def total(curves: Iterable[Curve]) -> Curve:
    found = Curve()
    for curve in curves:
        found = found + curve
    return found


IDENTITY = Curve(((inf, 1.0),))
