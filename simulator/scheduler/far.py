"""Far memory of one replica during its steps: reads ahead of the layers, write-back behind them (design 3.2 to 3.6).

Per step with far pages: the codec's GPU operators lengthen the layers (reads compressed, writes raw, at the measured rate),
the predictor proposes, `prefetch.pipeline` replays the layers, and the write-back backlog drains with what the reads leave
it. New blocks with a home in L3 are written back after the step that produced them; until then they hold L2 space, and a
step that would overflow L2 waits (`writeback`). Staging space for reads is what the backlog leaves of L2, at least one
burst a rank.

Not modelled: write-back of single pages as they fill up inside a step; latency that grows with load.
Events: none of its own.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.hardware.pool import FarPath, far_path
from simulator.kvcache.geometry import Geometry
from simulator.metrics.invariants import close, require
from simulator.prefetch.pipeline import Carry, Counts, Outcome, on_demand, streamed
from simulator.prefetch.predictors import PREDICTORS
from simulator.prefetch.reference import replay_by_events
from simulator.scenario.resolved import ScenarioResolved

SAMPLE = 128


@dataclass(slots=True)
class FarStep:
    """What far memory did to one step."""

    duration: float
    stall: float  # s, exposed
    codec: float  # s of GPU (de)compression in the layers
    writeback: float  # s waited for L2 space
    staged: float  # bytes of L2 in use, at most
    reads: Counts


class FarMemory:
    def __init__(self, scenario: ScenarioResolved, geometry: Geometry, rng: np.random.Generator, checked: bool = False):
        """`checked` replays a sample of the steps event by event and compares (INV-PRESENT); changes no number."""
        self._checked, self._far_steps = checked, 0
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

    def step(self, far: list[int], continuing: list[int], host: float, layer: float, head: float, produced: float) -> FarStep:
        """One step. `far`: pages each layer reads; `continuing`: those of them that belong to sequences which go on;
        `layer`: seconds of one layer's computation; `produced`: blocks with a home in L3 that the step writes."""
        geometry, layers, counts = self.geometry, len(far), Counts()
        waited = self._make_room()
        unpack, pack = self._unpack, self._pack * produced / layers
        if unpack or pack:
            compute = [layer + pages * unpack + pack for pages in far]
            codec = sum(far) * unpack + layers * pack
        else:
            compute, codec = [layer] * layers, 0.0
        room = self.room
        slot = max(far) * geometry.layer_bytes
        fit = int(room // slot) if slot else layers + 1
        window = min(self.predictor.window(layers), max(fit - 1, 1)) if fit else 0
        if window:
            # room for one layer and part of the next: that part can be prefetched
            outcome = self._ahead(far, continuing, compute, host, head, window, room / slot - 1.0 if fit == 1 else 1.0, counts)
        else:
            self.cancel()
            wave = max(1, int(room / geometry.layer_bytes))
            outcome = on_demand(far, compute, host, head, self._page_time, self.path.read_latency, wave, counts)
            if self._sampled():
                self._verify(outcome, far, compute, host, head, pages_per_wave=wave)
        staged = self.backlog + min(room, slot * (window + 1))
        self.counts.add(counts)
        self.moved += outcome.moved
        self.wait += outcome.wait
        self.waited += outcome.waited
        writeback = self._write(produced * geometry.block_bytes, outcome.end, outcome.moved * self._page_time)
        return FarStep(waited + outcome.end + writeback, outcome.stall, codec, waited + writeback, staged, counts)

    def _ahead(
        self, far: list[int], continuing: list[int], compute: list[float], host: float, head: float, window: int,
        part: float, counts: Counts,
    ) -> Outcome:  # fmt: skip
        predictor, carry = self.predictor, self._carry
        first = max(1, len(carry.right))
        ahead = far + (continuing if predictor.knows_the_future else far)[:window] if predictor.wraps else far
        right, wrong = predictor.propose(ahead)
        proposed = sum(right[first:]) + sum(wrong[first:])
        if part < 1.0:
            right, wrong = [int(pages * part) for pages in right], [int(pages * part) for pages in wrong]
        counts.proposed += proposed
        issued = sum(right[first:]) + sum(wrong[first:])
        counts.issued += issued
        counts.dropped += proposed - issued
        before = deepcopy(carry) if self._sampled() else None
        outcome = streamed(
            far, compute, host, head, self._page_time, self.path.read_latency, predictor.latency, window,
            right, wrong, predictor.wraps, carry, counts,
        )  # fmt: skip
        if before is not None:
            self._verify(
                outcome, far, compute, host, head, window=window, right=right, wrong=wrong, wrap=predictor.wraps, carry=before,
                issue_delay=predictor.latency,
            )  # fmt: skip
        if carry.right and continuing is not far and not predictor.knows_the_future:
            carry.lose(1.0 - continuing[0] / far[0], counts)
        return outcome

    def _sampled(self) -> bool:
        """One step in `SAMPLE` is verified."""
        self._far_steps += 1
        return self._checked and self._far_steps % SAMPLE == 1

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
        if self._carry.right:
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
