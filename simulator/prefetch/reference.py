"""The layers of a step against far memory, replayed event by event: the slow, obviously right twin of `pipeline.py`.

Modelled: the same rules as `pipeline.on_demand` and `pipeline.streamed`, but every transfer is a flow of a private
`hardware.fabric.Fabric` over the real stages of the path, and nothing is computed in advance:

    layers    one process asks layer by layer, waits until every page the layer reads is there, then computes
    prefetch  one channel serves segments (the pages of one layer, right and wrong) in the order of use, class PREFETCH;
              a segment that a layer waits for is raised to DEMAND
    demand    what a layer finds missing is a flow of class DEMAND, which overtakes prefetches
    latency   between issue and first byte, once per chain: it passes while earlier transfers are under way
    waves     without prefetch, a layer larger than the staging space is read in waves, each paying the latency

What requests in flight sustain (Little's law) is a limit of the boards' descriptors, so all flows share it: a stage.
It also counts the pages that are held in staging, from issue until their layer has finished (design 3.4).
Not modelled: write-back, which has a lower class and takes nothing from reads; the counts by fate (`pipeline.Counts`).

Events: about ten a layer; for tests, and for a sample of steps under `--check` (INV-PRESENT).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import simpy

from simulator.hardware.fabric import DEMAND, PREFETCH, Fabric, Flow, Stage
from simulator.prefetch.pipeline import TICK, Carry

Stages = Iterable[tuple[str, float, float]]  # name, wire bytes/s, wire bytes per raw byte; `hardware.pool.Path` is one
Process = Generator[simpy.Event, Any, None]


class Replayed(NamedTuple):
    end: float  # s after the start of the step
    stalls: list[float]  # s that each layer waited for pages
    held: int  # most pages in staging at once


@dataclass(eq=False, slots=True)
class _Segment:
    """The prefetched pages of one layer."""

    right: int
    pages: int  # right and wrong: what holds staging space (of a carry without those that were lost)
    size: float  # raw bytes still to move
    ready: float  # when the first byte can move
    done: simpy.Event
    due: float  # `ready`, whatever else is under way
    flow: Flow | None = None
    awaited: bool = False


class EventReplay:
    """Steps of one replica in a private simulation; what was prefetched for the next step stays under way between them."""

    def __init__(
        self, stages: Stages, cap: float, page_bytes: float, latency: float, issue_delay: float = 0.0, now: float = 0.0,
        setup: float = 0.0, drag: float = 0.0, boost: float = 0.0, fifo: bool = False,
    ):  # fmt: skip
        """`cap`: raw bytes/s that outstanding requests sustain; `page_bytes`: raw bytes of one page on all ranks."""
        self.env = simpy.Environment(now)
        self.fabric = Fabric(self.env)
        outstanding = (Stage("outstanding", cap), 1.0)
        self.path = (*((Stage(name, rate), weight) for name, rate, weight in stages), outstanding)
        self.page_bytes, self.latency, self.issue_delay = page_bytes, latency, issue_delay
        self._segments: deque[_Segment] = deque()  # of the layers from the one at work on
        self._queue: deque[_Segment] = deque()  # for the channel
        self._setup, self._drag, self._boost, self._fifo = setup, drag, boost, fifo
        self._more, self._changed, self._busy = self.env.event(), self.env.event(), False
        self._overtaken = self.env.event()  # somebody took the place of the head of the queue
        self._held = self._most = 0
        self.env.process(self._channel())

    def on_demand(
        self, far: Sequence[int], compute: Sequence[float], host: float, head: float, pages_per_wave: int
    ) -> Replayed:  # fmt: skip
        """A step without prefetch."""
        stalls: list[float] = []
        return self._run(self._waves(far, compute, host, head, pages_per_wave, stalls), stalls)

    def streamed(
        self, far: Sequence[int], compute: Sequence[float], host: float, head: float, window: int,
        right: Sequence[int], wrong: Sequence[int], wrap: bool,
    ) -> Replayed:  # fmt: skip
        """A step with prefetch `window` layers ahead; arguments as in `pipeline.streamed`."""
        stalls: list[float] = []
        return self._run(self._layers(far, compute, host, head, window, right, wrong, wrap, stalls), stalls)

    def lose(self, share: float) -> None:
        """A share of the sequences ended: nobody will read what was prefetched for them, but it is still transferred."""
        for segment in self._segments:
            segment.right -= ceil(segment.right * share - 1e-9)

    def adopt(self, carry: Carry) -> None:
        """Take over what an earlier step, replayed elsewhere, had set in motion; its times count from this step's start, 0."""
        rate = min(stage.rate / weight for stage, weight in self.path)
        for right, wrong, left, ready in zip(carry.right, carry.wrong, carry.left, carry.ready):
            size = left * rate if left else 0.0
            self._segments.append(self._send(right, right + wrong, size, max(ready, carry.free), ready))
        if self.env.now < 0.0:
            self.env.run(until=0.0)

    def _run(self, step: Process, stalls: list[float]) -> Replayed:
        begin = self.env.now
        self._most = self._held
        self.env.run(until=self.env.process(step))
        return Replayed(self.env.now - begin, stalls, self._most)

    def _waves(
        self, far: Sequence[int], compute: Sequence[float], host: float, head: float, pages_per_wave: int, stalls: list[float]
    ) -> Process:  # fmt: skip
        env = self.env
        yield env.timeout(host)
        for pages, seconds in zip(far, compute):
            ask = env.now
            while pages:
                wave = min(pages, pages_per_wave)
                yield self._demand(wave)
                self._hold(-wave)  # attention over these pages is done before the next wave takes their place
                pages -= wave
            stalls.append(env.now - ask)
            yield env.timeout(seconds - min(env.now - ask, self._boost))
        yield env.timeout(head)

    def _layers(
        self, far: Sequence[int], compute: Sequence[float], host: float, head: float, window: int,
        right: Sequence[int], wrong: Sequence[int], wrap: bool, stalls: list[float],
    ) -> Process:  # fmt: skip
        env, layers = self.env, len(far)
        last = layers + window - 1 if wrap else layers - 1
        yield env.timeout(host)
        for layer in range(layers):
            ask = env.now
            issued = layer + len(self._segments)
            if issued == layer:  # asked for before anything could be issued
                self._issue(0, 0)
                issued += 1
            for later in range(issued, min(layer + window, last) + 1):
                self._issue(right[later], wrong[later])
            segment = self._segments[0]
            if segment.due > ask + self.latency + TICK:
                self._withdraw(segment)
            missing = max(0, far[layer] - segment.right)
            arrivals = []
            if missing and self._fifo:
                arrivals.append(self._queued(missing))
            elif missing:
                arrivals.append(self._demand(missing))
            if not segment.done.triggered:
                segment.awaited = True
                if segment.flow is not None:
                    self.fabric.raise_priority(segment.flow, DEMAND)
                arrivals.append(segment.done)
            yield env.all_of(arrivals)
            stalls.append(env.now - ask)
            yield from self._compute(compute[layer] - min(env.now - ask, self._boost))
            self._hold(-missing - segment.pages)
            self._segments.popleft()
        yield env.timeout(head)

    def _compute(self, work: float) -> Process:
        """Work at full speed while the channel is idle, slower by `drag` while it carries pages."""
        env = self.env
        if not self._drag:
            yield env.timeout(work)
            return
        while True:
            speed, begun = 1.0 - self._drag * self._busy, env.now
            done = env.timeout(work / speed)
            yield done | self._changed
            if done.processed:
                return
            work -= (env.now - begun) * speed

    def _demand(self, pages: int) -> simpy.Event:
        self._hold(pages)
        return self.fabric.move(pages * self.page_bytes, self.path, DEMAND, latency=self.latency, tag="demand").done

    def _queued(self, pages: int) -> simpy.Event:
        """Demand without priority: behind what was ready to go before it."""
        self._hold(pages)
        ready = self.env.now + self.latency
        segment = _Segment(0, 0, pages * self.page_bytes, ready, self.env.event(), ready)
        behind = 0
        while behind < len(self._queue) and self._queue[behind].due <= ready + TICK:
            behind += 1
        self._queue.insert(behind, segment)
        if behind == 0 and not self._overtaken.triggered:
            self._overtaken.succeed()
        if not self._more.triggered:
            self._more.succeed()
        return segment.done

    def _withdraw(self, segment: _Segment) -> None:
        """The predictor has not answered yet, and the layer asks for itself."""
        self._hold(-segment.pages)
        if segment in self._queue:
            self._queue.remove(segment)
            if not self._overtaken.triggered:
                self._overtaken.succeed()
        segment.right = segment.pages = 0
        if not segment.done.triggered:
            segment.done.succeed()

    def _issue(self, right: int, wrong: int) -> None:
        pages = right + wrong
        ready = self.env.now + self.issue_delay + self.latency
        # the set-up takes the stream's time as bytes would
        rate = min(stage.rate / weight for stage, weight in self.path) if self._setup and pages else 0.0
        self._segments.append(self._send(right, pages, pages * self.page_bytes + self._setup * rate, ready))

    def _send(self, right: int, pages: int, size: float, ready: float, due: float | None = None) -> _Segment:
        segment = _Segment(right, pages, size, ready, self.env.event(), ready if due is None else due)
        if not pages and not size:
            segment.done.succeed()
            return segment
        self._hold(pages)
        self._queue.append(segment)
        if not self._more.triggered:
            self._more.succeed()
        return segment

    def _channel(self) -> Process:
        """The prefetches, one segment after the other."""
        while True:
            while self._queue:
                segment = self._queue[0]
                self._overtaken = self.env.event()
                yield self.env.timeout(max(0.0, segment.ready - self.env.now)) | self._overtaken
                if self._overtaken.triggered:
                    continue
                self._queue.popleft()
                priority = DEMAND if segment.awaited else PREFETCH
                segment.flow = self.fabric.move(segment.size, self.path, priority, tag="prefetch")
                self._carrying(True)
                yield segment.flow.done
                self._carrying(False)
                segment.done.succeed()
            self._more = self.env.event()
            yield self._more

    def _carrying(self, busy: bool) -> None:
        self._busy = busy
        if self._drag:
            self._changed.succeed()
            self._changed = self.env.event()

    def _hold(self, pages: int) -> None:
        self._held += pages
        self._most = max(self._most, self._held)


def replay_by_events(
    far: Sequence[int], compute: Sequence[float], host: float, head: float, stages: Stages, cap: float, page_bytes: float,
    latency: float, issue_delay: float = 0.0, window: int = 0, right: Sequence[int] = (), wrong: Sequence[int] = (),
    wrap: bool = False, carry: Carry | None = None, pages_per_wave: int = 1 << 62, drag: float = 0.0, boost: float = 0.0,
    fifo: bool = False,
) -> Replayed:  # fmt: skip
    """One step by itself; window 0 is on demand. `carry` is the one given to `pipeline.streamed`, before the call."""
    carry = carry or Carry()
    early = min([0.0, carry.free, *carry.ready])  # what moved between the steps is played as well
    replay = EventReplay(stages, cap, page_bytes, latency, issue_delay, early, carry.setup, drag, boost, fifo)
    replay.adopt(carry)
    if window:
        return replay.streamed(far, compute, host, head, window, right, wrong, wrap)
    return replay.on_demand(far, compute, host, head, pages_per_wave)
