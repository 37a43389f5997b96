"""Far memory in numbers: pages by fate, bytes by stage, what an access costs. Told by who ran the simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class StageUse:
    """One stage of the fabric: capacity (wire bytes/s), wire bytes it carried."""

    name: str
    rate: float
    carried: float

    def utilization(self, seconds: float) -> float:
        return self.carried / (self.rate * seconds) if self.rate > 0 and seconds > 0 else 0.0


def carried(
    read: Sequence[tuple[str, float, float]], write: Sequence[tuple[str, float, float]], came: float, went: float
) -> tuple[StageUse, ...]:  # fmt: skip
    """What each stage (name, rate, weight) of both ways carried, of raw bytes that came and went."""
    found: dict[str, list[float]] = {}
    for crossings, raw in ((read, came), (write, went)):
        for stage, rate, weight in crossings:
            found.setdefault(stage, [rate, 0.0])[1] += raw * weight
    return tuple(StageUse(stage, rate, total) for stage, (rate, total) in found.items())


FATES = ("near", "kept", "demand", "in_time", "late", "useless")


@dataclass(frozen=True)
class GroupUse:
    """Layers that share their page sets: pages that steps with far memory read from L1, from L2 (kept there after an earlier
    use), and from L3 by fate; and those that were prefetched for nothing."""

    first: int
    layers: int
    selects: bool
    near: int
    kept: int
    demand: int
    in_time: int
    late: int
    useless: int

    @staticmethod
    def together(each: Sequence[GroupUse]) -> GroupUse:
        """The same layers of several replicas."""
        first = each[0]
        return GroupUse(first.first, first.layers, first.selects, *(sum(getattr(one, name) for one in each) for name in FATES))


@dataclass(frozen=True)
class Traffic:
    """Totals of a run; pages are per rank bundle, bytes raw unless said otherwise."""

    page_bytes: float = 0.0
    asked: int = 0
    demand: int = 0
    in_time: int = 0
    late: int = 0
    proposed: int = 0
    issued: int = 0
    dropped: int = 0
    useless: int = 0
    in_flight: int = 0
    l2_hits: int = 0  # pages that L2 kept after an earlier use
    polluted: int = 0  # far pages asked for that a prefetch had displaced from L2
    moved: int = 0
    written_bytes: float = 0.0
    backlog_bytes: float = 0.0
    sent_bytes: float = 0.0  # all that was ever given to write-back
    homed: int = 0  # pages that were ever given a home in L3
    wait_s: float = 0.0  # page-seconds that layers waited for pages
    waited: int = 0  # those pages
    near: int = 0  # pages read from L1, by steps with far memory
    groups: tuple[GroupUse, ...] = ()  # of layers
    l1_access_s: float = 0.0  # one burst, unloaded
    l3_access_s: float | None = None
    rates: tuple[tuple[str, float, float], ...] = ()  # stage, sum of rates while all classes run, capacity
    stages: tuple[StageUse, ...] = field(default=())
