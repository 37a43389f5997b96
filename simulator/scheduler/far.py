"""Far memory of one replica during its steps: reads ahead of the layers, write-back behind them (design 3.2 to 3.6).

Per step with far pages: the codec's GPU operators lengthen the layers (reads compressed, writes raw, at the measured rate),
the predictor proposes, `prefetch.pipeline` replays the layers, and the write-back backlog drains with what the reads leave
it. New blocks with a home in L3 are written back after the step that produced them; until then they hold L2 space, and a
step that would overflow L2 waits (`writeback`). Staging space for reads is what the backlog leaves of L2, at least one
burst a rank.

Not modelled: write-back of single pages as they fill up inside a step; pages that are read while they wait in L2 for
their write-back (they are read from L3); latency that grows with load.
Events: none of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from operator import add
from typing import Any

import numpy as np

from simulator.hardware.pool import FarPath, far_path
from simulator.kvcache.geometry import Geometry
from simulator.metrics.invariants import close, require
from simulator.prefetch.pipeline import Carry, Counts, Outcome, on_demand, streamed
from simulator.prefetch.predictors import PREDICTORS
from simulator.prefetch.reference import replay_by_events
from simulator.scenario.resolved import ScenarioResolved

FIRST, SAMPLE = 8, 128  # steps that are verified under --check: the first ones, then one in so many
MOST_WAVES = 2000  # steps with more waves are not


@dataclass(slots=True)
class FarStep:
    """What far memory did to one step."""

    duration: float
    stall: float  # s, exposed
    codec: float  # s of GPU (de)compression in the layers
    writeback: float  # s waited for L2 space
    staged: float  # bytes of L2 in use, at most
    reads: Counts


@dataclass(slots=True)
class _Plan:
    """Prefetches of a step: layers ahead (0: none), pages of staging in use, right and wrong pages by layer."""

    window: int
    staged: int
    right: Sequence[int]
    wrong: Sequence[int]


class FarMemory:
    def __init__(self, scenario: ScenarioResolved, geometry: Geometry, rng: np.random.Generator, checked: bool = False):
        """`checked` replays a sample of the steps event by event and compares (INV-PRESENT); changes no number."""
        self._checked, self._steps = checked, {"on demand": 0, "ahead": 0}
        self.path: FarPath = far_path(scenario)
        self.geometry = geometry
        self.predictor = PREDICTORS[scenario.prefetch.predictor](scenario.prefetch, rng)
        gpu, codec, ranks = scenario.gpus.gpu, scenario.kv.codec, scenario.gpus.tensor_parallel
        self._unpack = geometry.layer_bytes / (ranks * gpu.decompress_rate) if codec.decompress_at == "gpu" else 0.0
        self._pack = geometry.block_bytes / (ranks * gpu.compress_rate) if codec.compress_at == "gpu" else 0.0
        self._page_time = geometry.layer_bytes / self.path.read_rate
        self._carry = Carry()
        self.counts = Counts()
        self.backlog = 0.0  # raw bytes waiting for write-back, in L2
        self.moved = 0  # pages read, wrong ones included
        self.sent = 0.0  # raw bytes ever given to write-back
        self.written = 0.0  # of them, in the pool
        self.wait = 0.0  # page-seconds that layers waited, and the pages
        self.waited = 0

    @property
    def room(self) -> float:
        """Staging space for reads now: bytes."""
        return max(self.geometry.l2_bytes - self.backlog, self.geometry.burst * self.geometry.ranks)

    def step(self, far: list[int], lost: float, host: float, layer: float, head: float, produced: float) -> FarStep:
        """One step. `far`: pages each layer reads; `lost`: share of them that belongs to sequences which end with it;
        `layer`: seconds of one layer's computation; `produced`: blocks with a home in L3 that the step writes."""
        geometry, counts = self.geometry, Counts()
        waited = self._make_room()
        unpack, pack = self._unpack, self._pack * produced / len(far)
        if unpack or pack:
            compute = [layer + pages * unpack + pack for pages in far]
            codec = sum(far) * unpack + len(far) * pack
        else:
            compute, codec = [layer] * len(far), 0.0
        room = int(self.room / geometry.layer_bytes)  # pages
        plan = self._plan(far, room, counts)
        if plan.window:
            outcome = self._ahead(far, lost, compute, host, head, room, plan, counts)
            staged = plan.staged
        else:
            self.cancel()
            wave = max(1, room)
            outcome = on_demand(far, compute, host, head, self._page_time, self.path.read_latency, wave, counts)
            staged = min(wave, max(far))
            if self._sampled("on demand") and sum(far) // wave <= MOST_WAVES:
                self._verify(outcome, far, compute, host, head, pages_per_wave=wave)
        staged_bytes = min(self.backlog + staged * geometry.layer_bytes, geometry.l2_bytes)
        self.counts.add(counts)
        self.moved += outcome.moved
        self.wait += outcome.wait
        self.waited += outcome.waited
        writeback = self._write(produced * geometry.block_bytes, outcome.end, outcome.moved * self._page_time)
        return FarStep(waited + outcome.end + writeback, outcome.stall, codec, waited + writeback, staged_bytes, counts)

    def _plan(self, far: list[int], room: int, counts: Counts) -> _Plan:
        """What is proposed, and how many layers ahead of it fit `room` pages of staging, wrong pages included."""
        predictor, layers = self.predictor, len(far)
        window = predictor.window(layers)
        if not window:
            return _Plan(0, 0, [], [])
        beyond = [0] * window if predictor.knows_the_future else far[:window]  # the next step reveals what it asks for
        right, wrong = predictor.propose(far + beyond if predictor.wraps else far)
        # staging holds the pages of the layer at work, its wrong ones, and what is prefetched of those ahead
        most, waste, ahead = max(far), max(wrong), max(map(add, right, wrong))
        fit = (room - most - waste) // ahead if ahead else window
        part = 1.0
        if fit < 1 and room > most:  # a part of the next layer fits
            part, fit = min(1.0, (room - most) / (ahead + waste)), 1
            waste, ahead = int(waste * part), int(ahead * part)
        window = max(0, min(window, fit)) if most <= room else 0
        if window:
            # issued in this step is all but what the carry holds; layer 0 without carry is asked for before anything is
            issued = slice(max(1, len(self._carry.ready)), layers + window)
            counts.proposed = sum(right[issued]) + sum(wrong[issued])
            if part < 1.0:
                right, wrong = [int(pages * part) for pages in right], [int(pages * part) for pages in wrong]
            counts.issued = sum(right[issued]) + sum(wrong[issued])
            counts.dropped = counts.proposed - counts.issued
        return _Plan(window, most + waste + window * ahead, right, wrong)

    def _ahead(
        self, far: list[int], lost: float, compute: list[float], host: float, head: float, room: int, plan: _Plan,
        counts: Counts,
    ) -> Outcome:  # fmt: skip
        predictor, carry = self.predictor, self._carry
        if predictor.knows_the_future and carry.ready:
            revealed = carry.reveal(far, room, self._page_time)
            counts.proposed += revealed
            counts.issued += revealed
            self.moved += revealed
        before = deepcopy(carry) if self._sampled("ahead") else None
        outcome = streamed(
            far, compute, host, head, self._page_time, self.path.read_latency, predictor.latency, plan.window,
            plan.right, plan.wrong, predictor.wraps, carry, counts,
        )  # fmt: skip
        if before is not None:
            self._verify(
                outcome, far, compute, host, head, window=plan.window, right=plan.right, wrong=plan.wrong,
                wrap=predictor.wraps, carry=before, issue_delay=predictor.latency,
            )  # fmt: skip
        if lost:
            carry.lose(lost, counts)
        return outcome

    def _sampled(self, kind: str) -> bool:
        """The first few steps of a kind are verified, later one in `SAMPLE`."""
        self._steps[kind] = step = self._steps[kind] + 1
        return self._checked and (step <= FIRST or step % SAMPLE == 0)

    def _verify(self, outcome: Outcome, far: list[int], compute: list[float], host: float, head: float, **rules: Any) -> None:
        """INV-PRESENT: the event-driven twin, in which a layer waits for each of its pages, ends at the same time."""
        path, page = self.path, self.geometry.layer_bytes
        twin = replay_by_events(far, compute, host, head, path.read, path.read_cap, page, path.read_latency, **rules)
        require(
            "INV-PRESENT", close(twin.end, outcome.end), f"a step ends after {outcome.end!r} s, event by event {twin.end!r} s"
        )

    def quiet(self, duration: float) -> None:
        """A time without far reads and without new far blocks: the backlog drains."""
        self.cancel()
        if self.backlog:
            self._write(0.0, duration, 0.0)

    def unread(self, produced: float, duration: float) -> FarStep:
        """A step that reads nothing far, `duration` long without codec and waits."""
        self.cancel()
        waited = self._make_room()
        pack = self._pack * produced
        staged = min(self.backlog + produced * self.geometry.block_bytes, self.geometry.l2_bytes)
        writeback = self._write(produced * self.geometry.block_bytes, duration + pack, 0.0)
        return FarStep(waited + duration + pack + writeback, 0.0, pack, waited + writeback, staged, Counts())

    def evicted(self, pages: int) -> None:
        """Pages that were evicted from L1 for the first time join the backlog."""
        self._send(pages * self.geometry.layer_bytes)

    def demoted(self, blocks: int) -> None:
        """Blocks that gave up their place in L1 join the backlog."""
        self._send(blocks * self.geometry.block_bytes)

    def _send(self, raw: float) -> None:
        self.sent += raw
        self.backlog += raw

    def cancel(self) -> None:
        """What was prefetched for a step that will not come is lost."""
        if self._carry.ready:
            self.moved -= self._carry.cancel(self._page_time, self.counts)

    def _write(self, produced: float, duration: float, reading: float) -> float:
        """Drain the backlog for `duration`, of which `reading` with reads on the path, then add what was produced."""
        path = self.path
        reading = min(reading, duration)
        able = path.write_rate_reading * reading if reading else 0.0
        idle = duration - reading
        if idle > 0.0:
            able += path.write_rate * idle
        drained = min(self.backlog, able)
        self.written += drained
        self.backlog -= drained
        self._send(produced)
        return self._make_room()

    def _make_room(self) -> float:
        """Seconds until the backlog leaves room for one burst a rank in L2."""
        excess = self.backlog - max(0.0, self.geometry.l2_bytes - self.geometry.burst * self.geometry.ranks)
        if excess <= 0.0:
            return 0.0
        self.written += excess
        self.backlog -= excess
        return excess / self.path.write_rate
