"""A pool that replicas share breaks for all of them at one moment: the rates of its stages change then, for transfers under way
as well, which are flows (`shared.py`).

What becomes of requests and pages is each replica's own affair, and takes effect with its next step (`faults.py`). Stages have
the rates of the degraded devices (`hardware/faults.py`); links that are down for a time carry nothing, and who is on the way
waits there. Transfers from boards that are lost end at the rates of what is left, at least one board: their step is the last
that has these pages. Descriptors in flight count by the first replica's round trip. L3 is as large as what is left of it.
Not modelled: bytes that are lost on their way.
Events: one per change.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from math import inf

import simpy

from simulator.hardware.faults import Health, Schedule, degraded
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.moments import FIRST, At
from simulator.scheduler.shared import Crossing, Room, SharedFabric, far_crossings

KINDS = {"link": ("pool.link",), "switch": ("switch",), "port": ("gpu.port",)}  # of health -> its stages


class BrokenFabric:
    """The stages of a shared fabric through the faults of a run."""

    def __init__(
        self, env: simpy.Environment, fabric: SharedFabric, replicas: Sequence[ScenarioResolved], schedules: Sequence[Schedule],
        room: Room | None, over: Callable[[], bool],
    ):  # fmt: skip
        """`schedules`: what breaks for each replica, shared things at the same times; `over`: whether the run has ended; no
        `room` where the pool holds what nobody reads now."""
        self.env, self.fabric, self._replicas, self._schedules = env, fabric, replicas, schedules
        self._room, self._blocks, self._over = room, room.blocks if room is not None else 0, over
        self._nominal = {
            (name, user): weight
            for number, own in enumerate(replicas)
            for name, _, user, weight in far_crossings(own, number)
        }  # fmt: skip

    def run(self) -> Generator[simpy.Event, None, None]:
        """The SimPy process: until nothing changes any more, or the run has ended."""
        while (at := min([schedule.next_at for schedule in self._schedules])) < inf:
            yield At(self.env, at, FIRST)
            if self._over():
                return
            for schedule in self._schedules:
                while schedule.next_at <= at:
                    schedule.turn()
            self._set()

    def _set(self) -> None:
        first = self._schedules[0]
        if self._room is not None:
            self._room.blocks = self._blocks * first.health.boards // first.pool.boards
        rates: dict[str, float] = {}
        for number, (own, schedule) in enumerate(zip(self._replicas, self._schedules, strict=True)):
            for name, rate, user, weight in crossings_left(own, number, schedule.health):
                rates.setdefault(name, rate * self._nominal[name, user] / weight)
        for name, stage in self.fabric.stages.items():
            if name in rates and stage.rate != rates[name]:
                self.fabric.fabric.set_rate(stage, rates[name])


def crossings_left(scenario: ScenarioResolved, number: int, left: Health) -> list[Crossing]:
    """As `far_crossings`, of what a fault has left."""
    shares = {kind: getattr(left, kind) for kind in KINDS}
    up = replace(left, boards=max(1, left.boards), **{kind: share or 1.0 for kind, share in shares.items()})
    down = tuple(stage for kind, share in shares.items() if not share for stage in KINDS[kind])
    return [
        (name, 0.0 if name.startswith(down) else rate, user, weight)
        for name, rate, user, weight in far_crossings(degraded(scenario, up), number)
    ]
