"""Who gets how much of a shared stage: max-min fair rates in wire bytes, with strict priority between classes.

Modelled: a demand raises its raw rate x until its cap, or until a stage on its path is full. A stage carries `weight`
wire bytes per raw byte of it (1/ratio where data is compressed, 1 where it is raw) and divides what higher classes
leave over evenly *in wire bytes*, as a link arbiter that serves equal packets in turn does. So a stage s has a level
l_s, infinite while it is not full, and a demand gets

    x = min(cap, min over s of share * l_s / weight_s);      sum over demands of weight_s * x = room_s where l_s is finite.

`share`, 1 unless arbiters are weighted, is for how many equal demands one counts: a demand of share 2 gets twice the wire rate
of one of share 1 where the same stage limits both.

A demand is thus measured by its weight on *its own bottleneck*, not by its largest weight: a compressed flow that
also crosses a decompressor (weight 1 there) gets the same link bytes as a raw flow when the link limits both;
normalising by the largest weight would be fairness in raw bytes. Two demands limited by one stage have wire rates in
proportion to their shares there. Where all weights are equal every such reading is classical max-min.
Certificate: a demand is at its cap, or crosses a full stage on which no demand of its class has a larger wire rate per share.
Not modelled: minimum guarantees for lower classes, packets.

Method: (1) Rounds. A stage on which all rising demands are tightest, when every stage is split evenly, is a
bottleneck for good (the shares of other stages can only grow): its demands freeze, and so do those whose cap is below
all their shares. With equal weights the scarcest stage always qualifies, and this is progressive filling (Bertsekas
and Gallager, Data Networks, 2nd ed., section 6.5.2). (2) Where weights differ so that no stage qualifies, the levels
are relaxed stage by stage to the fixed point above. Demands with one path object, cap, class and share are computed once.
Order is that of the arguments, never hash order.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import inf
from typing import Generic, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)
S_co = TypeVar("S_co", bound=Hashable, covariant=True)

ROUNDING = 1e-12  # a stage with less than this part of its capacity left is full: what is left is rounding
SWEEPS = 200  # 30 settle nearly all random cases with weights from 0.05 to 5; what is not settled is scaled to fit


class Demand(Protocol[S_co]):
    """What wants a rate: (stage, wire bytes per raw byte) pairs, a cap in raw bytes/s, a class (lower goes first), a share."""

    @property
    def path(self) -> tuple[tuple[S_co, float], ...]: ...
    @property
    def cap(self) -> float: ...
    @property
    def priority(self) -> int: ...
    @property
    def share(self) -> float: ...


class _Kind(Generic[S]):
    """Demands of the same class, cap and share with one path object."""

    __slots__ = ("cap", "count", "given", "neck", "path", "rate", "share")

    def __init__(self, path: tuple[tuple[S, float], ...], cap: float, share: float):
        self.given = path  # kept alive: its identity is its key
        self.path = tuple([(stage, weight) for stage, weight in path if weight > 0.0])
        self.cap, self.share = cap, share
        self.count = 1
        self.rate = 0.0
        self.neck: S | None = None  # the stage where it is tightest; None where that is its own cap


def fair_rates(capacity: Mapping[S, float], demands: Sequence[Demand[S]]) -> list[float]:
    """Raw bytes/s of each demand, in their order; `inf` where neither a cap nor a finite stage binds.

    `capacity` has the wire bytes/s (0 to inf) of every stage that is crossed with a weight above 0.
    """
    kinds: dict[tuple[int, float, float, int], _Kind[S]] = {}
    classes: dict[int, list[_Kind[S]]] = {}
    chosen = []
    for demand in demands:
        key = (demand.priority, demand.cap, demand.share, id(demand.path))
        kind = kinds.get(key)
        if kind is None:
            kind = kinds[key] = _Kind(demand.path, demand.cap, demand.share)
            classes.setdefault(demand.priority, []).append(kind)
        else:
            kind.count += 1
        chosen.append(kind)
    room = dict(capacity)
    for priority in sorted(classes):
        _fill(capacity, room, classes[priority])
    return [kind.rate for kind in chosen]


def _fill(capacity: Mapping[S, float], room: dict[S, float], rising: list[_Kind[S]]) -> None:
    """Give one class its rates and take them from `room`."""
    while rising:
        crossed: dict[S, float] = {}
        for kind in rising:
            shares = kind.count * kind.share
            for stage, _ in kind.path:
                crossed[stage] = crossed.get(stage, 0.0) + shares
        level = {stage: room[stage] / shares for stage, shares in crossed.items()}
        elsewhere: set[S] = set()  # stages that do not limit all who cross them; only asked for membership
        for kind in rising:
            rate, neck = kind.cap, None
            for stage, weight in kind.path:
                if level[stage] * kind.share < rate * weight:
                    rate, neck = level[stage] * kind.share / weight, stage
            kind.rate, kind.neck = rate, neck
            for stage, _ in kind.path:
                if stage != neck:
                    elsewhere.add(stage)
        waiting: list[_Kind[S]] = []
        frozen: list[_Kind[S]] = []
        for kind in rising:
            (waiting if kind.neck is not None and kind.neck in elsewhere else frozen).append(kind)
        if not frozen:
            _relax(room, rising, list(crossed))
            waiting, frozen = [], rising
        for kind in frozen:
            total = kind.rate * kind.count
            for stage, weight in kind.path:
                if room[stage] != inf:
                    rest = room[stage] - total * weight
                    room[stage] = rest if rest > ROUNDING * capacity[stage] else 0.0
        rising = waiting


def _relax(room: Mapping[S, float], rising: list[_Kind[S]], stages: list[S]) -> None:
    """Find the levels of all stages at once: each in turn takes the level that fills it, given the others'."""
    level = dict.fromkeys(stages, inf)
    users: dict[S, list[tuple[_Kind[S], float]]] = {stage: [] for stage in stages}
    for kind in rising:
        for stage, weight in kind.path:
            users[stage].append((kind, weight))
    for _ in range(SWEEPS):
        moving = False
        for stage in stages:
            old, level[stage] = level[stage], inf
            level[stage] = new = _level(
                [(w * _rate(kind, level) / kind.share, kind.count * kind.share) for kind, w in users[stage]], room[stage]
            )
            moving = moving or (new != old and not abs(new - old) <= 1e-14 * old < inf)
        if not moving:
            break
    for kind in rising:
        kind.rate = _rate(kind, level)
    load = {stage: sum(weight * kind.rate * kind.count for kind, weight in users[stage]) for stage in stages}
    fit = {stage: room[stage] / load[stage] for stage in stages if load[stage] > room[stage]}
    for kind in rising:
        kind.rate *= min([fit[stage] for stage, _ in kind.path if stage in fit], default=1.0)


def _rate(kind: _Kind[S], level: Mapping[S, float]) -> float:
    return min(kind.cap, min([level[stage] * kind.share / weight for stage, weight in kind.path]))


def _level(wanted: list[tuple[float, float]], room: float) -> float:
    """The level l at which the sum of shares x min(wanted per share, l) fills the room; inf where all that is wanted fits."""
    if sum([want * count for want, count in wanted]) <= room:
        return inf
    takers = sum([count for _, count in wanted])
    for want, count in sorted(wanted):
        if want * takers >= room or count == takers:
            break
        room -= want * count
        takers -= count
    return room / takers
