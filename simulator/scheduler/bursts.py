"""Layers of a step and write-back in events: the rules of `prefetch.pipeline`, with bytes that really move.

A layer asks, waits until every page that it reads has been delivered, and computes; prefetches of layer l + window are issued
when layer l asks; what a layer finds missing is demand; a prefetch that a layer waits for becomes demand; what was prefetched
for the next step stays under way. Write-back holds L2 until its bytes are in the pool, and a step waits while L2 is full of it.
Nothing is computed in advance: waits follow from queues, credits, walks and turnarounds.
Late is a page whose bytes had not all come when its layer asked; those of a transfer come in the order of its bursts.
The bytes are moved by a `System`: the detailed devices (`hardware.detailed`), or flows of a shared fabric (`shared.py`).
Events: those of the system, and one or two a layer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, inf
from typing import Any, Protocol

import simpy

from simulator.hardware.fabric import DEMAND, PREFETCH
from simulator.kvcache.geometry import Geometry
from simulator.prefetch.pipeline import Counts

LAYER_SPACE = float(1 << 42)  # bytes of addresses for each layer, so that the same page has the same address in every step
STEPS_OF_L2 = 1024  # L2 becomes free by trains of at most so small a part of it
WRITE_SPACE = float(1 << 50)  # written KV lies elsewhere

Events = Generator[simpy.Event, Any, None]


class Transfer(Protocol):
    """Bytes that are waited for together; `done` fires when the last has been delivered."""

    size: float  # raw bytes
    done: simpy.Event

    @property
    def arrived(self) -> float:
        """Of them, delivered so far."""

    @property
    def moments(self) -> float:
        """The sum of the delivered bytes, each times the second when it was."""


class System(Protocol):
    """What moves bytes; sizes are raw bytes of one of its `slices` equal parts."""

    @property
    def slices(self) -> int: ...

    @property
    def count(self) -> int:
        """Boards of a slice."""

    def read(self, size: float, priority: int, address: float, deadline: float = inf, delay: float = 0.0) -> Any:
        """A `Transfer` towards the GPUs, asked for after `delay`; `address`: where the bytes lie."""

    def write(self, size: float, address: float, told: Callable[[float], None] | None = None, most: float = inf) -> Any:
        """Write back; `told` hears of bytes that are in the pool, at most `most` at a time."""

    def promote(self, transfer: Any) -> None:
        """Somebody waits for it now."""

    def release(self, transfer: Any) -> None:
        """Its bytes have been used."""

    def cancel(self, transfer: Any) -> float:
        """Nobody will read it any more: the raw bytes that never move."""


@dataclass(eq=False, slots=True)
class Segment:
    """The prefetched pages of one layer, of which `right` will be read."""

    right: int
    pages: int
    transfers: list[Transfer]


class FarBursts:
    """What one replica has on the devices; counters in pages (per rank bundle) and raw bytes of a slice."""

    def __init__(
        self, env: simpy.Environment, system: System, geometry: Geometry, delay: float, wraps: bool, knows: bool
    ):  # fmt: skip
        """`delay`: s from asking the predictor to issuing; `wraps`, `knows`: as in `prefetch.predictors.Predictor`."""
        self.env, self.system, self._geometry = env, system, geometry
        self.delay, self.wraps, self.knows = delay, wraps, knows
        self._connected = True
        self._step_of_l2 = geometry.l2_bytes / geometry.ranks / STEPS_OF_L2
        self.backlog = self.written = 0.0  # write-back under way, and in the pool
        self.kept = 0.0  # bytes of L2 for sessions
        self.counts = Counts()
        self.stall = 0.0  # s that layers waited
        self.wait = 0.0  # page-seconds between a layer's asking and the arrival of what it had to wait for
        self.waited = self.moved = 0  # pages that were waited for; that were set in motion and not cancelled
        self._asked_to_write = 0.0
        self._segments: deque[Segment] = deque()
        self._drained: simpy.Event | None = None

    @property
    def slices(self) -> int:
        return self.system.slices

    @property
    def page(self) -> float:
        """Raw bytes of one page on the ranks of the slice."""
        return self._geometry.layer_bytes / self.slices

    @property
    def limit(self) -> float:
        """Write-back that leaves L2 room for one burst a rank."""
        return max(0.0, (self._geometry.l2_bytes - self._geometry.burst * self._geometry.ranks) / self.slices - self.kept)

    def use(self, system: System | None) -> None:
        """Other devices from now on (None: none for the time being), to which write-back that is under way is sent again."""
        self._connected = system is not None
        if system is None:
            return
        scale, waiting = self.slices / system.slices, self.backlog
        self.system, self.backlog = system, 0.0
        self.written *= scale
        self._asked_to_write *= scale
        self.write(waiting * scale)

    @property
    def carried(self) -> int:
        """Layers of the next step that have something under way."""
        return len(self._segments)

    def on_demand(self, far: Sequence[int], compute: Sequence[float], room: int) -> Events:
        """All layers, each with as many waves as its pages need in `room` pages of staging."""
        wave = max(1, room)
        for layer, pages in enumerate(far):
            read = 0
            while read < pages:
                part, asked = min(wave, pages - read), self.env.now
                transfer = self._demand(layer, read, part)
                yield transfer.done
                self._waited_for(part, [transfer], 0.0, 0.0, asked)
                self.stall += self.env.now - asked
                self.system.release(transfer)
                read += part
            self.counts.asked += pages
            yield self.env.timeout(compute[layer])

    def ahead(
        self, far: Sequence[int], compute: Sequence[float], window: int, right: Sequence[int], wrong: Sequence[int],
        following: Sequence[int],
    ) -> Events:  # fmt: skip
        """All layers, prefetching `window` layers ahead; `following`: pages that the next step's first layers will ask for,
        used where the predictor knows them."""
        env, layers, counts = self.env, len(far), self.counts
        last = layers + window - 1 if self.wraps else layers - 1
        if self.knows:  # what is set in motion for the next step is what that will ask for, as far as it fits
            right = [*right[:layers], *following[:window], *[0] * (window - len(following[:window]))]
        for layer in range(layers):
            issued = layer + len(self._segments)
            if issued == layer:  # asked for before anything could be issued
                self._issue(layer, 0, 0)
                issued += 1
            for later in range(issued, min(layer + window, last) + 1):
                self._issue(later % layers, right[later], wrong[later])
            segment, asked = self._segments[0], env.now
            used = min(far[layer], segment.right)
            waits, late = list(segment.transfers), 0
            size, got = (sum([getattr(one, part) for one in waits]) for part in ("size", "arrived"))
            moments = sum([one.moments for one in waits])
            if any(not one.done.triggered for one in waits):
                late = ceil(used * (1.0 - got / size) - 1e-9)
            if missing := far[layer] - used:
                waits.append(self._demand(layer, used, missing))
            for transfer in segment.transfers:
                if not transfer.done.triggered:
                    self.system.promote(transfer)
            for transfer in waits:
                if not transfer.done.processed:
                    yield transfer.done
            if late:
                self._waited_for(late, segment.transfers, got, moments, asked)
            if missing:
                self._waited_for(missing, waits[-1:], 0.0, 0.0, asked)
            self.stall += env.now - asked
            counts.asked += far[layer]
            counts.late += late
            counts.in_time += used - late
            counts.useless += segment.pages - used
            yield env.timeout(compute[layer])
            for transfer in waits:
                self.system.release(transfer)
            self._segments.popleft()

    def reveal(self, far: Sequence[int], room: int) -> int:
        """The step begins, and who knows the future had to guess it: asks for what is missing of the first layers, as far as
        `room` pages of staging allow. The pages that this adds."""
        added = 0
        for layer, segment in enumerate(self._segments):
            wanted = min(far[layer], room)
            more = wanted - segment.right
            room -= max(wanted, segment.right)
            if more > 0:
                segment.transfers.append(self._read(layer, segment.right, more, PREFETCH))
                segment.right += more
                segment.pages += more
                self.moved += more
                added += more
        return added

    def lose(self, share: float) -> None:
        """A share of the sequences ended: their pages were fetched for nothing."""
        for segment in self._segments:
            segment.right -= ceil(segment.right * share - 1e-9)

    def drop(self) -> None:
        """What was prefetched for a step that does not come."""
        for segment in self._segments:
            self.counts.useless += segment.pages
            unmoved = sum([self.system.cancel(one) for one in segment.transfers if not one.done.triggered])
            self.moved -= int(unmoved / self.page + 0.5)
        self._segments.clear()

    def write(self, size: float) -> None:
        """Write back `size` raw bytes of the slice."""
        if size <= 0.0:
            return
        self.backlog += size
        if self._connected:
            told = partial(self._gone, self.system)
            self.system.write(size, WRITE_SPACE + self._asked_to_write / self.system.count, told, self._step_of_l2)
            self._asked_to_write += size

    def drained(self) -> Events:
        """Until write-back leaves L2 room for one burst a rank."""
        while self._connected and self.backlog > self.limit + 1e-6:
            self._drained = self.env.event()
            yield self._drained

    def _gone(self, system: System, size: float) -> None:
        if system is not self.system or not self._connected:
            return  # it is sent again
        self.backlog = max(0.0, self.backlog - size)
        self.written += size
        if self._drained is not None and self.backlog <= self.limit + 1e-6:
            drained, self._drained = self._drained, None
            drained.succeed()

    def _demand(self, layer: int, first: int, pages: int) -> Transfer:
        self.counts.demand += pages
        self.moved += pages
        return self._read(layer, first, pages, DEMAND)

    def _issue(self, layer: int, right: int, wrong: int) -> None:
        self.moved += right + wrong
        self._segments.append(Segment(right, right + wrong, [self._read(layer, 0, right + wrong, PREFETCH, self.delay)]))

    def _read(self, layer: int, first: int, pages: int, priority: int, delay: float = 0.0) -> Transfer:
        address = layer * LAYER_SPACE + first * self.page / self.system.count
        transfer: Transfer = self.system.read(pages * self.page, priority, address, deadline=self.env.now, delay=delay)
        return transfer

    def _waited_for(self, pages: int, transfers: Sequence[Transfer], got: float, moments: float, asked: float) -> None:
        """Pages of which `got` bytes had come, at moments that sum to `moments`, when they were asked for; now all have."""
        rest = sum([one.size for one in transfers]) - got
        mean = (sum([one.moments for one in transfers]) - moments) / rest
        self.waited += pages
        self.wait += pages * max(0.0, mean - asked)
