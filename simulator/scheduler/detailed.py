"""Far memory whose transfers are events, in closed loop (design 3.7): the same interface and counters as `FarMemory`.

Every step of the engine runs its layers and its write-back on a system that moves bytes (`bursts.py`) and takes as long as that
takes; admission, batches and everything after follow from it. Two systems:

    DetailedFar  the detailed devices (`hardware.detailed`). They have a clock of their own, which is brought to the engine's
                 whenever the engine asks for something: write-back and prefetches go on in between.
    SharedFar    flows of the fabric that several replicas share (`shared.py`), on the clock of the simulation: a step is played
                 by the engine's own process.

Descriptors of a transfer beyond `PIECES` for each rank move in trains (`hardware.detailed.dma`).
`oracle`: events cannot be taken back, so what it prefetches for the first layers of the next step is what this step asked
for, put right at the beginning of that step.
Not modelled: copy engines and page identity (such scenarios are refused).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import numpy as np
import simpy

from simulator.hardware.detailed.system import FarSystem
from simulator.hardware.interference import UNDISTURBED, Slow
from simulator.hardware.pool import FarPath
from simulator.kvcache.geometry import Geometry
from simulator.metrics.invariants import RELATIVE, close, require
from simulator.prefetch.pipeline import Counts
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.bursts import FarBursts, System
from simulator.scheduler.far import FarMemory, FarStep

Played = Generator[simpy.Event, Any, FarStep]


class EventFar(FarMemory):
    """What both have in common; `env` is the clock on which `system` moves bytes."""

    def __init__(
        self, scenario: ScenarioResolved, geometry: Geometry, rng: np.random.Generator, env: simpy.Environment, system: System
    ):  # fmt: skip
        super().__init__(scenario, geometry, rng)
        self.env = env
        predictor = self.predictor
        self.bursts = FarBursts(env, system, geometry, 0.0, predictor.wraps, predictor.knows_the_future)
        self.counts = self.bursts.counts

    def play(
        self, far: list[int], lost: float, host: float, layer: float, head: float, produced: float, sequences: int = 1,
        scores: float = 0.0,
    ) -> Played:  # fmt: skip
        """`step`, in time."""
        bursts, page, env = self.bursts, self.geometry.layer_bytes, self.env
        began = env.now
        yield from bursts.drained()
        waited = env.now - began
        self._take_over()
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
            following = plan.right[len(far) : len(far) + plan.window]  # cut to what fits, as it was counted
            events = bursts.ahead(far, compute, plan.window, plan.right, plan.wrong, following)
        else:
            bursts.drop()
            staged = min(max(1, room), max(far))
            events = bursts.on_demand(far, compute, room)
        staged_bytes = min(self.backlog + self.kept + staged * page, self.geometry.l2_bytes)
        yield env.timeout(host)
        yield from events
        yield env.timeout(head)
        self._take_over()
        if lost:
            bursts.lose(lost)
        self._send(produced * self.geometry.block_bytes)
        drained = env.now
        yield from bursts.drained()
        writeback = env.now - drained
        self._take_over()
        stall = bursts.stall - stalled
        duration = waited + host + sum(compute) + stall + head + writeback
        counts = _since(before, self.counts)
        self._steer(counts, stall, self.moved - moved, duration, len(far))
        return FarStep(duration, stall, codec, waited + writeback, staged_bytes, counts, 0.0, predicting)

    def play_unread(self, produced: float, duration: float) -> Played:
        """`unread`, in time."""
        self.cancel()
        raw, pack, env = produced * self.geometry.block_bytes, self._pack * produced, self.env
        began = env.now
        yield from self.bursts.drained()
        waited = env.now - began
        self._take_over()
        staged = min(self.backlog + self.kept + raw, self.geometry.l2_bytes)
        yield env.timeout(duration + pack)
        self._take_over()
        self._send(raw)
        drained = env.now
        yield from self.bursts.drained()
        writeback = env.now - drained
        self._take_over()
        return FarStep(waited + duration + pack + writeback, 0.0, pack, waited + writeback, staged, Counts())

    def quiet(self, duration: float) -> None:
        """The devices go on; what they did is seen when the engine next asks for something."""
        self.cancel()

    def passes_on(self, size: float) -> None:
        self.bursts.moved += round(size / self.geometry.layer_bytes)
        self._take_over()

    def cancel(self) -> None:
        self._catch_up()
        self.bursts.drop()
        self._take_over()

    def keep(self, raw: float) -> None:
        super().keep(raw)
        self.bursts.kept = raw / self.bursts.slices

    def fetched(self, pages: int) -> None:
        self.bursts.moved += pages
        self._take_over()

    def in_pool(self) -> float:
        self._catch_up()
        self._take_over()
        return self.written

    @property
    def _carried(self) -> int:
        return self.bursts.carried

    def _beyond(self, far: list[int], window: int) -> list[int]:
        return far[:window]

    def _catch_up(self) -> None:
        """The devices go on to the engine's clock."""

    def _take_over(self) -> None:
        bursts, slices = self.bursts, self.bursts.slices
        self.backlog, self.written = bursts.backlog * slices, bursts.written * slices
        self.moved, self.wait, self.waited = bursts.moved, bursts.wait, bursts.waited

    def _send(self, raw: float) -> None:
        self._catch_up()
        self.sent += raw
        self.bursts.write(raw / self.bursts.slices)
        self._take_over()


class DetailedFar(EventFar):
    def __init__(
        self, scenario: ScenarioResolved, geometry: Geometry, rng: np.random.Generator, placing: np.random.Generator,
        clock: Callable[[], float],
    ):  # fmt: skip
        """`placing`: random numbers of the devices; `clock`: of the engine, s."""
        env = simpy.Environment()
        self._clock, self._placing = clock, placing
        self.systems = [FarSystem(env, scenario, geometry.page_bytes, placing, train=None)]  # the last one is at work
        super().__init__(scenario, geometry, rng, env, self.systems[0])

    def use(self, path: FarPath, devices: ScenarioResolved) -> None:
        super().use(path, devices)
        self.systems.append(FarSystem(self.env, devices, self.geometry.page_bytes, self._placing, train=None))
        self.bursts.use(self.systems[-1])

    def cut_off(self) -> None:
        super().cut_off()
        self.cancel()
        self.bursts.use(None)

    def step(
        self, far: list[int], lost: float, host: float, layer: float, head: float, produced: float, slow: Slow = UNDISTURBED,
        sequences: int = 1, scores: float = 0.0,
    ) -> FarStep:  # fmt: skip
        self._catch_up()
        return self._run(self.play(far, lost, host, layer, head, produced, sequences, scores))

    def unread(self, produced: float, duration: float, slow: Slow = UNDISTURBED) -> FarStep:
        self._catch_up()
        return self._run(self.play_unread(produced, duration))

    def _run(self, played: Played) -> FarStep:
        """What these events come to on the devices."""
        found = self.env.run(until=self.env.process(played))
        assert isinstance(found, FarStep)
        return found

    def _catch_up(self) -> None:
        now = self._clock()
        if now > self.env.now:
            self.env.run(until=now)
        self._take_over()

    def check(self) -> None:
        """INV-BYTES and INV-RATES on every device, after the run: lets what is under way arrive first."""
        self.env.run()
        now = self.env.now
        for system in self.systems:
            for name, raw, carried in system.crossed():
                require("INV-BYTES", close(raw, carried), f"{name} carried {carried:g} of {raw:g} raw bytes")
            for device in system.devices() if now else ():
                most, carried = device.rate * now, device.carried
                require("INV-RATES", carried <= most * (1 + RELATIVE), f"{device.name} carried {carried:g} of {most:g} bytes")


def _since(before: Counts, now: Counts) -> Counts:
    names = ("asked", "demand", "in_time", "late", "proposed", "issued", "dropped", "useless")
    return Counts(**{name: getattr(now, name) - getattr(before, name) for name in names})
