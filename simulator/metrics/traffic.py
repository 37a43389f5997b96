"""Far memory in numbers: pages by fate, bytes by stage, what an access costs. Told by who ran the simulation."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class StageUse:
    """One stage of the fabric: capacity (wire bytes/s), wire bytes it carried."""

    name: str
    rate: float
    carried: float

    def utilization(self, seconds: float) -> float:
        return self.carried / (self.rate * seconds) if self.rate > 0 and seconds > 0 else 0.0


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
    l1_access_s: float = 0.0  # one burst, unloaded
    l3_access_s: float | None = None
    rates: tuple[tuple[str, float, float], ...] = ()  # stage, sum of rates while all classes run, capacity
    stages: tuple[StageUse, ...] = field(default=())
