"""Far memory on the detailed devices, in closed loop (design 3.7): the same interface and counters as `FarMemory`.

Every step of the engine runs its layers and its write-back on `hardware.detailed` (`bursts.py`) and takes as long as that
takes; admission, batches and everything after follow from it. The devices have a clock of their own, which is brought to the
engine's whenever the engine asks for something: write-back and prefetches go on in between.

Descriptors of a transfer beyond `PIECES` for each rank move in trains (`hardware.detailed.dma`).
`oracle`: events cannot be taken back, so what it prefetches for the first layers of the next step is what this step asked
for, put right at the beginning of that step.
Not modelled: copy engines and page identity (such scenarios are refused).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import simpy

from simulator.hardware.detailed.system import FarSystem
from simulator.hardware.interference import UNDISTURBED, Slow
from simulator.kvcache.geometry import Geometry
from simulator.metrics.invariants import RELATIVE, close, require
from simulator.prefetch.pipeline import Counts
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.bursts import Events, FarBursts
from simulator.scheduler.far import FarMemory, FarStep


class DetailedFar(FarMemory):
    def __init__(
        self, scenario: ScenarioResolved, geometry: Geometry, rng: np.random.Generator, placing: np.random.Generator,
        clock: Callable[[], float],
    ):  # fmt: skip
        """`placing`: random numbers of the devices; `clock`: of the engine, s."""
        super().__init__(scenario, geometry, rng)
        self._clock = clock
        self.env = simpy.Environment()
        self.system = FarSystem(self.env, scenario, geometry.page_bytes, placing, train=None)
        predictor = self.predictor
        self.bursts = FarBursts(
            self.env, self.system, geometry, 0.0, predictor.wraps, predictor.knows_the_future
        )  # fmt: skip
        self.counts = self.bursts.counts

    def step(
        self, far: list[int], lost: float, host: float, layer: float, head: float, produced: float, slow: Slow = UNDISTURBED,
        sequences: int = 1, scores: float = 0.0,
    ) -> FarStep:  # fmt: skip
        bursts, page = self.bursts, self.geometry.layer_bytes
        self._catch_up()
        waited = self._run(bursts.drained())
        answer, predicting = self._ask(sequences, layer, len(far), scores)
        compute, codec = self._compute(far, layer + predicting / len(far), produced)
        room = int(self.room / page)  # pages
        before, stalled, moved = replace(self.counts), bursts.stall, self.moved
        if self.predictor.knows_the_future:
            revealed = bursts.reveal(far, room)
            self.counts.add(Counts(proposed=revealed, issued=revealed))
        proposed = Counts()
        plan = self._plan(far, room, proposed, sequences, answer)
        self.counts.add(proposed)
        bursts.delay = plan.delay
        if plan.window:
            staged = plan.staged
            events = bursts.ahead(far, compute, plan.window, plan.right, plan.wrong, far[: plan.window])
        else:
            bursts.drop()
            staged = min(max(1, room), max(far))
            events = bursts.on_demand(far, compute, room)
        staged_bytes = min(self.backlog + staged * page, self.geometry.l2_bytes)
        self._run(self._between(host, events, head))
        if lost:
            bursts.lose(lost)
        self._send(produced * self.geometry.block_bytes)
        writeback = self._run(bursts.drained())
        stall = bursts.stall - stalled
        duration = waited + host + sum(compute) + stall + head + writeback
        counts = _since(before, self.counts)
        self._steer(counts, stall, self.moved - moved, duration, len(far))
        return FarStep(duration, stall, codec, waited + writeback, staged_bytes, counts, 0.0, predicting)

    def unread(self, produced: float, duration: float, slow: Slow = UNDISTURBED) -> FarStep:
        self.cancel()
        raw, pack = produced * self.geometry.block_bytes, self._pack * produced
        waited = self._run(self.bursts.drained())
        staged = min(self.backlog + raw, self.geometry.l2_bytes)
        self._run(self._between(duration + pack, iter(()), 0.0))
        self._send(raw)
        writeback = self._run(self.bursts.drained())
        return FarStep(waited + duration + pack + writeback, 0.0, pack, waited + writeback, staged, Counts())

    def quiet(self, duration: float) -> None:
        """The devices go on; what they did is seen when the engine next asks for something."""
        self.cancel()

    def cancel(self) -> None:
        self._catch_up()
        self.bursts.drop()
        self._take_over()

    @property
    def _carried(self) -> int:
        return self.bursts.carried

    def _beyond(self, far: list[int], window: int) -> list[int]:
        return far[:window]

    def _between(self, before: float, events: Any, after: float) -> Events:
        yield self.env.timeout(before)
        yield from events
        yield self.env.timeout(after)

    def _run(self, events: Events) -> float:
        """Seconds that these events take on the devices."""
        began = self.env.now
        self.env.run(until=self.env.process(events))
        self._take_over()
        return self.env.now - began

    def _catch_up(self) -> None:
        """The devices go on to the engine's clock."""
        now = self._clock()
        if now > self.env.now:
            self.env.run(until=now)
        self._take_over()

    def _take_over(self) -> None:
        bursts, slices = self.bursts, self.system.slices
        self.backlog, self.written = bursts.backlog * slices, bursts.written * slices
        self.moved, self.wait, self.waited = bursts.moved, bursts.wait, bursts.waited

    def _send(self, raw: float) -> None:
        self._catch_up()
        self.sent += raw
        self.bursts.write(raw / self.system.slices)
        self._take_over()

    def check(self) -> None:
        """INV-BYTES and INV-RATES on every device, after the run: lets what is under way arrive first."""
        self.env.run()
        system, now = self.system, self.env.now
        for name, raw, carried in system.crossed():
            require("INV-BYTES", close(raw, carried), f"{name} carried {carried:g} of {raw:g} raw bytes")
        for device in system.devices() if now else ():
            most, carried = device.rate * now, device.carried
            require("INV-RATES", carried <= most * (1 + RELATIVE), f"{device.name} carried {carried:g} of {most:g} bytes")


def _since(before: Counts, now: Counts) -> Counts:
    names = ("asked", "demand", "in_time", "late", "proposed", "issued", "dropped", "useless")
    return Counts(**{name: getattr(now, name) - getattr(before, name) for name in names})
