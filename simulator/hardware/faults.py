"""What breaks between the GPUs and the pool, when, and what is left while it is broken.

    link_down      `count` links do not carry anything: of one board, uplinks of the switch, or one GPU's own port
    link_degraded  they carry `factor` of their rate
    board_lost     `count` boards are gone, with what they held; they come back empty
    latency_spike  a round trip between GPU and pool takes `latency` longer

Pages are striped over boards and every rank reads its own share, so the slowest board, or rank, sets the pace: a stage of n
boards with one at share s works at n * s. Uplinks of a switch stand in for each other. Several faults of one stage add up where
links are down, and multiply where they are slower. Links that are all down for good cut what is behind them off: one
board, or the pool.

When: at a time, or at random: `mean_time_between` is the mean of the exponential time from the end of one to the start of the
next, each entry with draws of its own. Of several replicas each has its own pool, or part of one, and ports: an entry without
`replica` breaks those of each, at times of its own where they are random. A pool that they share breaks for all at once.

Not modelled: partial loss of a board's memory, faults of GPUs, hosts and leaf switches, lost packets, detection times.
Events: none of its own; `scheduler/faults.py` asks for the next change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from math import inf, prod

import numpy as np

from simulator.scenario.resolved import Fault, Pool, ScenarioResolved


@dataclass(frozen=True)
class Health:
    """What is left of the pool and the way to it."""

    boards: int  # whose memory can be had, now or when links are back; 0: none, for good or until boards are back
    link: float  # share of their rate that the links of the worst board have
    switch: float  # the same of the uplinks
    port: float  # and of the worst GPU's port
    latency: float  # s more a round trip

    @property
    def reachable(self) -> bool:
        return self.boards > 0 and min(self.link, self.switch, self.port) > 0.0


@dataclass(frozen=True, eq=False)
class Occurrence:
    """One time that a fault happens."""

    fault: Fault
    at: float  # s
    end: float  # s; inf: for good


class Schedule:
    """The changes of health in order of time."""

    def __init__(self, pool: Pool, faults: Sequence[Fault], draws: Sequence[np.random.Generator]):
        """`draws`: random numbers of each fault."""
        self.pool = pool
        self.active: list[Occurrence] = []
        self._faults, self._draws = faults, draws
        self._changes: list[tuple[float, bool, int, Occurrence]] = []  # heap: time, whether it starts, entry, what
        for entry in range(len(faults)):
            self._plan(entry, 0.0)

    @property
    def next_at(self) -> float:
        """When something breaks or is repaired next; inf: never."""
        return self._changes[0][0] if self._changes else inf

    @property
    def health(self) -> Health:
        return health(self.pool, self.active)

    @property
    def lasting(self) -> Health:
        """Health once everything that will be repaired is repaired."""
        return health(self.pool, [one for one in self.active if one.end == inf])

    def turn(self) -> tuple[Occurrence, bool]:
        """The next change takes place: what, and whether it begins."""
        _, starts, entry, occurrence = heappop(self._changes)
        if starts:
            self.active.append(occurrence)
            if occurrence.end < inf:
                heappush(self._changes, (occurrence.end, False, entry, occurrence))
        else:
            self.active.remove(occurrence)
            if self._faults[entry].mean_time_between is not None:
                self._plan(entry, occurrence.end)
        return occurrence, starts

    def _plan(self, entry: int, after: float) -> None:
        fault, mean = self._faults[entry], self._faults[entry].mean_time_between
        at = fault.at if mean is None else after + float(self._draws[entry].exponential(mean))
        heappush(self._changes, (at, True, entry, Occurrence(fault, at, at + fault.duration)))


def health(pool: Pool, active: Iterable[Occurrence]) -> Health:
    """What these faults leave together."""
    broken = list(active)
    lost = sum(one.fault.count for one in broken if one.fault.what == "board_lost")
    uplinks = pool.switch.uplinks if pool.switch else 1
    shares = {}
    for link, count in (("board", pool.links_per_board), ("switch", uplinks), ("gpu", 1)):
        here = [one for one in broken if one.fault.link == link]
        down = [one for one in here if one.fault.what == "link_down"]
        if sum(one.fault.count for one in down if one.end == inf) >= count:
            lost += 1 if link == "board" else pool.boards
            down = [one for one in down if one.end < inf]
        up = max(0, count - sum(one.fault.count for one in down)) / count
        slower = [1 - one.fault.count * (1 - one.fault.factor) / count for one in here if one.fault.what == "link_degraded"]
        shares[link] = up * prod(slower)
    longer = sum(one.fault.latency for one in broken if one.fault.what == "latency_spike")
    return Health(max(0, pool.boards - lost), shares["board"], shares["switch"], shares["gpu"], longer)


def degraded(scenario: ScenarioResolved, left: Health) -> ScenarioResolved:
    """The scenario with what is left of its devices, for `pool.far_path`; `left` must be reachable."""
    pool, gpus = scenario.pool, scenario.gpus
    assert pool is not None
    link, port = pool.link, gpus.gpu.link
    link = replace(
        link, read_bandwidth=link.read_bandwidth * left.link, write_bandwidth=link.write_bandwidth * left.link,
        latency=link.latency + left.latency / 2,
    )  # fmt: skip
    port = replace(port, read_bandwidth=port.read_bandwidth * left.port, write_bandwidth=port.write_bandwidth * left.port)
    switch = pool.switch
    if switch is not None:
        # half an uplink is one at half its rate: `far_path` multiplies by them
        switch = replace(switch, uplinks=switch.uplinks * left.switch)  # type: ignore[arg-type]
    return replace(
        scenario,
        pool=replace(pool, boards=left.boards, link=link, switch=switch),
        gpus=replace(gpus, gpu=replace(gpus.gpu, link=port)),
    )
