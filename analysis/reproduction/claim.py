"""A claim, what the simulator gives for it, and a verdict that follows from the numbers.

Every claim has the reported value with its source and trust; the value simulated under the authors' assumptions (hardware,
codec, predictor as they state them) and under measured ones (links and codec as measured, a predictor whose hits were
counted); the regime in which it would hold, from a search; and the contradiction, where there is one. Numbers are computed
when the ledger is made. The verdict:

    holds                     simulated under measured assumptions within `WITHIN` of the reported value, or better
    holds as assumed          only under the authors' assumptions
    holds only elsewhere      neither, but the search found a regime
    not found                 none of these in the ranges that were searched
    taken as input            what was assumed is this very number, and measured it is not reached
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

WITHIN = 0.10  # of the reported value

REPORTED = "reported, unverified"  # trust: read in notes on the full text, or in texts that were withdrawn
ABSTRACT = "abstract"  # the paper's own words
PAPER = "CXL-SpecKV (FPGA '26, arXiv:2512.11920)"

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Finding:
    """A simulated value in the unit of the claim; `text` says how it came about."""

    value: float
    text: str


@dataclass(frozen=True)
class Regime:
    """Where it would hold: the value of the parameter that was searched; None: nowhere in the range."""

    value: float | None
    text: str


@dataclass(frozen=True)
class Claim:
    name: str
    claim: str  # what is reported, in a sentence
    reported: float
    unit: str
    source: str
    trust: str
    assumed: Finding  # under the authors' assumptions
    measured: Finding  # under measured ones
    regime: Regime
    contradiction: str = ""
    larger_is_better: bool = True
    given: bool = False  # the assumed value is an input of the simulation
    tables: dict[str, Rows] = field(default_factory=dict)  # title -> the runs behind it

    @property
    def verdict(self) -> str:
        if self._reached(self.measured.value):
            return "holds"
        if self.given:
            return "taken as input"
        if self._reached(self.assumed.value):
            return "holds as assumed"
        return "holds only elsewhere" if self.regime.value is not None else "not found"

    def _reached(self, value: float) -> bool:
        if self.larger_is_better:
            return value >= (1.0 - WITHIN) * self.reported
        return value <= (1.0 + WITHIN) * self.reported

    def row(self) -> dict[str, Any]:
        """For a table or JSON."""
        return {
            "name": self.name, "claim": self.claim, "reported": self.reported, "unit": self.unit, "source": self.source,
            "trust": self.trust, "assumed": self.assumed.value, "assumed_how": self.assumed.text,
            "measured": self.measured.value, "measured_how": self.measured.text, "regime": self.regime.value,
            "regime_how": self.regime.text, "contradiction": self.contradiction, "verdict": self.verdict,
        }  # fmt: skip


def largest(holds: Callable[[float], bool], low: float, high: float, rounds: int) -> float | None:
    """The largest x in [low, high] for which `holds(x)`, which holds up to some x, by bisection; None: not even low."""
    if not holds(low):
        return None
    if holds(high):
        return high
    for _ in range(rounds):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
