"""An operator of a step: its work on one rank, and the time the roofline gives it.

    time = max(compute, memory) + exposed * min(compute, memory)

`exposed` is the share of the shorter side that does not hide behind the longer one (prologue and epilogue of the tiles:
near the knee a matrix product reaches neither roof); 0 is the plain roofline.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Operator:
    """FLOPs and bytes are those the algorithm needs; the seconds contain what the kernel wastes."""

    name: str
    flops: float
    bytes: float
    compute_s: float
    memory_s: float
    exposed: float = 0.0

    @property
    def time(self) -> float:
        longer, shorter = max(self.compute_s, self.memory_s), min(self.compute_s, self.memory_s)
        return longer + self.exposed * shorter

    @property
    def bound(self) -> str:
        return "compute" if self.compute_s > self.memory_s else "hbm"


@dataclass(frozen=True)
class Parts:
    """Seconds of a step by what bounds them."""

    compute: float
    hbm: float
    collective: float
    launch: float

    @property
    def total(self) -> float:
        return self.compute + self.hbm + self.collective + self.launch


PARTS = tuple(field.name for field in fields(Parts))


def add_up(operators: list[Operator], collective: float, launch: float) -> Parts:
    compute = sum(op.time for op in operators if op.bound == "compute")
    memory = sum(op.time for op in operators if op.bound == "hbm")
    return Parts(compute, memory, collective, launch)


def together(one: Operator, other: Operator) -> Operator:
    """Two operators run one after the other, under the name of the first."""
    return Operator(one.name, one.flops + other.flops, one.bytes + other.bytes, *_sides([(1.0, one), (1.0, other)]))


def mean(one: Operator, other: Operator, share: float) -> Operator:
    """The mean over layers of which `share` run `one`."""
    flops, moved = (share * getattr(one, work) + (1 - share) * getattr(other, work) for work in ("flops", "bytes"))
    return Operator(one.name, flops, moved, *_sides([(share, one), (1 - share, other)]))


def beyond(work: Operator, counted: Operator, latency: float, share: float = 1.0) -> Operator:
    """What an operator takes longer than a part of it that is counted elsewhere, with its latency; `share` of that part."""
    rest = max(0.0, work.time - share * counted.time - share * latency)
    sides = (rest, 0.0) if work.bound == "compute" else (0.0, rest)
    return Operator(work.name, work.flops - share * counted.flops, work.bytes - share * counted.bytes, *sides)


def _sides(weighted: list[tuple[float, Operator]]) -> tuple[float, float]:
    """(compute, HBM) seconds of operators that run one after the other: the time of all, on the side that bounds more."""
    total = sum(weight * operator.time for weight, operator in weighted)
    compute = sum(weight * operator.time for weight, operator in weighted if operator.bound == "compute")
    return (total, 0.0) if compute > total - compute else (0.0, total)
