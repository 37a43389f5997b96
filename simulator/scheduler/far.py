"""Far memory of one replica during its steps: reads ahead of the layers, write-back behind them (design 3.2 to 3.6).

Per step with far pages: the codec's GPU operators lengthen the layers (reads compressed, writes raw, at the measured rate),
the predictor proposes, `prefetch.pipeline` replays the layers, and the write-back backlog drains with what the reads leave
it. New blocks with a home in L3 are written back after the step that produced them; until then they hold L2 space, and a
step that would overflow L2 waits (`writeback`). Staging space for reads is what the backlog leaves of L2, at least one
burst a rank.

Where a scenario has a `copy_engine`, transfers slow the layers beside them (`hardware.interference`): reads as the replay
finds them overlapping, write-back by the time it takes, added at the end of the step.

Not modelled: write-back of single pages as they fill up inside a step; pages that are read while they wait in L2 for their
write-back (they are read from L3); latency that grows with load.
Events: none of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from operator import add
from typing import Any

import numpy as np

from simulator.hardware.codec import pack_rate, unpack_rate
from simulator.hardware.gpu import StepModel
from simulator.hardware.interference import UNDISTURBED, Interference, Slow
from simulator.hardware.pool import FarPath, far_path
from simulator.kvcache.geometry import Geometry
from simulator.metrics.invariants import close, require
from simulator.metrics.traffic import GroupUse
from simulator.prefetch.cxl_speckv import CxlSpecKv
from simulator.prefetch.depth import CONTROLS, DepthControl, Seen
from simulator.prefetch.pipeline import Carry, Counts, Outcome, on_demand, streamed
from simulator.prefetch.predictors import LAYER, PREDICTORS, Predictor
from simulator.prefetch.reference import replay_by_events
from simulator.prefetch.service import Answer, Server
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
    dragged: float = 0.0  # s that the layers took longer beside transfers
    predicting: float = 0.0  # s of the GPUs for the predictor


@dataclass(slots=True)
class Plan:
    """Prefetches of a step: layers ahead (0: none), pages of staging in use, right and wrong pages by layer."""

    window: int
    staged: int
    right: Sequence[int]
    wrong: Sequence[int]
    delay: float = 0.0  # s from being decided to being issued


def _interference(scenario: ScenarioResolved, path: FarPath) -> Interference | None:
    """Of the pages that cross the GPUs' ports; None where the scenario says nothing of what they cost."""
    mover, gpus = scenario.pool.mover if scenario.pool else None, scenario.gpus
    if mover is None:
        return None
    wire = {stage: weight for stage, _, weight in (*path.read, *path.write)}
    read, write = path.read_rate * wire["gpu.port.read"], path.write_rate * wire["gpu.port.write"]
    ranks = gpus.tensor_parallel
    return Interference(StepModel(scenario.model, gpus, 0.0), mover, read / ranks, write / ranks)


class FarMemory:
    def __init__(self, scenario: ScenarioResolved, geometry: Geometry, rng: np.random.Generator, checked: bool = False):
        """`checked` replays a sample of the steps event by event and compares (INV-PRESENT); changes no number."""
        self._checked, self._steps = checked, {"on demand": 0, "ahead": 0}
        self.rng = rng
        self.kept = 0.0  # bytes of L2 that hold, or are reserved for, what was fetched for sessions (`reuse`)
        self.path: FarPath = far_path(scenario)
        self.nominal = self.path  # what it is while nothing is broken
        self.reachable = True
        self.geometry, self._scenario = geometry, scenario
        self.predictor: Predictor = PREDICTORS[scenario.prefetch.predictor](scenario.prefetch, rng)
        self.spec = spec = scenario.prefetch
        self.control: DepthControl = CONTROLS[spec.control](spec, self.predictor.depth)
        self.server = Server(spec, 2.0 * scenario.gpus.gpu.link.latency)
        self._pace = 0.0  # s of a layer in the last step with far pages
        gpu, codec, ranks = scenario.gpus.gpu, scenario.kv.codec, scenario.gpus.tensor_parallel
        unpack, pack = unpack_rate(codec, gpu), pack_rate(codec, gpu)
        self._unpack = geometry.layer_bytes / (ranks * unpack) if codec.decompress_at == "gpu" else 0.0
        self._pack = geometry.block_bytes / (ranks * pack) if codec.compress_at == "gpu" else 0.0
        self._unpack_launch = gpu.launch if self._unpack else 0.0
        self._page_time = geometry.layer_bytes / self.path.read_rate
        self.interference = _interference(scenario, self.path)
        self._carry = Carry(setup=self.path.setup)
        self.counts = Counts()
        self.backlog = 0.0  # raw bytes waiting for write-back, in L2
        self.moved = 0  # pages read, wrong ones included
        self.sent = 0.0  # raw bytes ever given to write-back
        self.written = 0.0  # of them, in the pool
        self.wait = 0.0  # page-seconds that layers waited, and the pages
        self.waited = 0
        self.unused = self.l2_hits = self.polluted = 0  # pages that L2 keeps: only with page identity (`paged`)

    @property
    def room(self) -> float:
        """Staging space for reads now: bytes."""
        return max(self.geometry.l2_bytes - self.backlog - self.kept, self.geometry.burst * self.geometry.ranks)

    def use(self, path: FarPath, devices: ScenarioResolved) -> None:
        """Another path from now on, that of `devices`: something broke or was repaired."""
        self.cancel()
        self.reachable = True
        self.path = path
        self._page_time = self.geometry.layer_bytes / path.read_rate
        self.interference = _interference(self._scenario, path)
        self._carry.setup = path.setup

    def cut_off(self) -> None:
        """No path from now on: nothing is read or written until there is one to `use`."""
        self.reachable = False

    def step(
        self, far: list[int], lost: float, host: float, layer: float, head: float, produced: float, slow: Slow = UNDISTURBED,
        sequences: int = 1, scores: float = 0.0,
    ) -> FarStep:  # fmt: skip
        """One step. `far`: pages each layer reads; `lost`: share of them that belongs to sequences which end with it;
        `layer`: seconds of one layer's computation; `produced`: blocks with a home in L3 that the step writes; `slow`: what
        transfers cost a layer; `sequences` decode; `scores`: s to read all their KV of a layer."""
        geometry, counts = self.geometry, Counts(layers=self.counts.layers)
        waited = self._make_room()
        answer, predicting = self._ask(sequences, layer, len(far), scores)
        compute, codec = self._compute(far, layer + predicting / len(far), produced)
        room = int(self.room / geometry.layer_bytes)  # pages
        plan = self._plan(far, room, counts, sequences, answer)
        if plan.window:
            outcome = self._ahead(far, lost, compute, host, head, room, plan, counts, slow)
            staged = plan.staged
        else:
            self.cancel()
            wave = max(1, room)
            latency = self.path.read_latency
            outcome = on_demand(far, compute, host, head, self._page_time, latency, wave, counts, boost=slow.boost)
            staged = min(wave, max(far))
            if self._sampled("on demand") and sum(far) // wave <= MOST_WAVES:
                self._verify(outcome, far, compute, host, head, pages_per_wave=wave, boost=slow.boost)
        staged_bytes = min(self.backlog + self.kept + staged * geometry.layer_bytes, geometry.l2_bytes)
        self.counts.add(counts)
        self.moved += outcome.moved
        self.wait += outcome.wait
        self.waited += outcome.waited
        before = self.written
        reading = max(0, outcome.moved) * self._page_time  # less than none: of what the last step set in motion
        writeback = self._write(produced * geometry.block_bytes, outcome.end, reading)
        dragged = outcome.dragged + slow.writing * (self.written - before) / self.path.write_rate
        duration = waited + outcome.end + (dragged - outcome.dragged) + writeback
        self._steer(counts, outcome.stall, outcome.moved, duration, len(far))
        return FarStep(duration, outcome.stall, codec, waited + writeback, staged_bytes, counts, dragged, predicting)

    def _ask(self, sequences: int, layer: float, layers: int, scores: float) -> tuple[Answer, float]:
        """What the predictor answers of each round of hints in this step, and the GPU time of all of them."""
        if not self.predictor.window(layers):
            return Answer(1.0, 0.0, 0.0), 0.0
        each_layer = self.predictor.rounds == LAYER
        pace = max(layer, self._pace) * (1 if each_layer else layers)
        answer = self.server.answer(sequences, pace)
        return answer, answer.busy * (layers if each_layer else 1) + self.spec.score * scores * layers

    def _steer(self, counts: Counts, stall: float, moved: int, duration: float, layers: int) -> None:
        """What the step showed decides the depth of the next one."""
        self._pace = duration / layers
        link = moved * self._page_time / duration if duration else 0.0
        self.control.observe(
            Seen(counts.in_time + counts.late, counts.useless, stall, duration, counts.demand, link)
        )  # fmt: skip
        if self.spec.control != "fixed":
            self.predictor.depth = self.control.depth

    def _compute(self, far: list[int], layer: float, produced: float) -> tuple[list[float], float]:
        """Seconds of every layer with the codec's operators of the GPU, and of these alone."""
        unpack, pack = self._unpack, self._pack * produced / len(far)
        if not unpack and not pack:
            return [layer] * len(far), 0.0
        launch = self._unpack_launch
        compute = [layer + pages * unpack + (launch if pages else 0.0) + pack for pages in far]
        return compute, sum(compute) - len(far) * layer

    def _plan(self, far: list[int], room: int, counts: Counts, sequences: int, answer: Answer) -> Plan:
        """What is proposed, and how many layers ahead of it fit `room` pages of staging, wrong pages included."""
        predictor, layers = self.predictor, len(far)
        window = predictor.window(layers)
        if not window:
            return Plan(0, 0, [], [])
        beyond = self._beyond(far, window)
        right, wrong = predictor.propose(far + beyond if predictor.wraps else far, sequences)
        hoped = (right, wrong)
        if answer.share < 1.0:
            right, wrong = [int(pages * answer.share) for pages in right], [int(pages * answer.share) for pages in wrong]
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
            issued = slice(max(1, self._carried), layers + window)
            counts.proposed = sum(hoped[0][issued]) + sum(hoped[1][issued])
            if part < 1.0:
                if any(wrong):
                    right, wrong = [int(pages * part) for pages in right], [int(pages * part) for pages in wrong]
                else:  # as many of each layer as fit beside the one at work
                    right = [min(pages, room - most) for pages in right]
            counts.issued = sum(right[issued]) + sum(wrong[issued])
            if isinstance(predictor, CxlSpecKv):
                counts.proposed += predictor.nowhere(layers, sequences)
            counts.dropped = counts.proposed - counts.issued
        return Plan(window, most + waste + window * ahead, right, wrong, answer.delay)

    def _beyond(self, far: list[int], window: int) -> list[int]:
        """Pages that the first layers of the next step are taken to ask for."""
        return [0] * window if self.predictor.knows_the_future else far[:window]  # it reveals what it asks for

    @property
    def _carried(self) -> int:
        """Layers of the next step for which something is under way."""
        return len(self._carry.ready)

    def _ahead(
        self, far: list[int], lost: float, compute: list[float], host: float, head: float, room: int, plan: Plan,
        counts: Counts, slow: Slow,
    ) -> Outcome:  # fmt: skip
        predictor, carry = self.predictor, self._carry
        if predictor.knows_the_future and carry.ready:
            revealed = carry.reveal(far, room, self._page_time)
            counts.proposed += revealed
            counts.issued += revealed
            self.moved += revealed
        before = deepcopy(carry) if self._sampled("ahead") else None
        outcome = streamed(
            far, compute, host, head, self._page_time, self.path.read_latency, plan.delay, plan.window,
            plan.right, plan.wrong, predictor.wraps, carry, counts, drag=slow.reading, boost=slow.boost,
            fifo=self.spec.priority == "equal",
        )  # fmt: skip
        if before is not None:
            self._verify(
                outcome, far, compute, host, head, window=plan.window, right=plan.right, wrong=plan.wrong,
                wrap=predictor.wraps, carry=before, issue_delay=plan.delay, drag=slow.reading, boost=slow.boost,
                fifo=self.spec.priority == "equal",
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

    def unread(self, produced: float, duration: float, slow: Slow = UNDISTURBED) -> FarStep:
        """A step that reads nothing far, `duration` long without codec and waits."""
        self.cancel()
        waited = self._make_room()
        pack = self._pack * produced
        staged = min(self.backlog + self.kept + produced * self.geometry.block_bytes, self.geometry.l2_bytes)
        before = self.written
        writeback = self._write(produced * self.geometry.block_bytes, duration + pack, 0.0)
        dragged = slow.writing * (self.written - before) / self.path.write_rate
        return FarStep(waited + duration + pack + dragged + writeback, 0.0, pack, waited + writeback, staged, Counts(), dragged)

    def by_group(self) -> list[GroupUse]:
        """What the layers read, by group of layers that share their pages; all layers are one group where they are alike.
        Pages of L1 are not known here."""
        counts = self.counts
        whole = GroupUse(0, self.geometry.layers, False, 0, 0, counts.demand, counts.in_time, counts.late, counts.useless)
        return [whole]

    def passes_on(self, size: float) -> None:
        """Raw bytes of preempted sequences were read from L3 and went on to the host (`swap.py`)."""
        self.moved += round(size / self.geometry.layer_bytes)

    def evicted(self, pages: int) -> None:
        """Pages that were evicted from L1 for the first time join the backlog."""
        self._send(pages * self.geometry.layer_bytes)

    def demoted(self, blocks: int) -> None:
        """Blocks that gave up their place in L1 join the backlog."""
        self._send(blocks * self.geometry.block_bytes)

    def keep(self, raw: float) -> None:
        """So much of L2 holds, or is reserved for, what was fetched for sessions."""
        self.kept = raw

    def fetched(self, pages: int) -> None:
        """So many pages were read outside of the steps."""
        self.moved += pages

    def in_pool(self) -> float:
        """Raw bytes of write-back that are in the pool by now."""
        return self.written

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
        if not self.reachable:
            duration = 0.0
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

    @property
    def overflow(self) -> float:
        """Bytes of the backlog that have to be written before L2 has room for one burst a rank; at most 0: none."""
        return self.backlog - max(0.0, self.geometry.l2_bytes - self.kept - self.geometry.burst * self.geometry.ranks)

    def _make_room(self) -> float:
        """Seconds until the backlog leaves room for one burst a rank in L2."""
        excess = self.overflow
        if excess <= 0.0 or not self.reachable:
            return 0.0
        self.written += excess
        self.backlog -= excess
        return excess / self.path.write_rate
