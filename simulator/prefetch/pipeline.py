"""Replay of one step's layers against the read stream of far pages (design 3.4, 3.5).

Modelled: a layer starts when the layer before it has finished and its pages are in HBM,

    finish_l = max(finish_{l-1}, arrive_l) + c_l ,

and the difference is exposed stall. One read stream per replica moves pages at the rate the fabric gives it. Pages that
are prefetched are served in the order of use; pages that a layer finds missing are demand and go first, and a prefetch
that a layer waits for is served before any later one, so prefetch never delays demand. A read becomes serviceable one
latency after it was issued, counted once per chain: transfers that are already in flight hide the latency of the next.
Prefetches of layer l + window are decided when layer l is asked for, and issued when the predictor has answered, so they
overlap its computation; a window that crosses the end of a step continues into the next one (the carry). A layer does not
wait for a predictor: what was not issued when it asks is demand, and its proposals are dropped.

Without priority (`fifo`) pages go in the order in which they were asked for, and demand queues behind the prefetches that were
issued before it: what that costs is why there is a priority.

Staging: a layer's pages, right or wrong, hold their space from issue until the layer has finished. The window is cut
to what fits. A layer larger than the staging space is read on demand in waves (attention over pages is associative),
each paying the latency.

Transfers cost the kernels beside them bandwidth and SMs: while the stream is busy, a layer computes at 1 - `drag` of its
speed (`hardware/interference.py`). Each layer's transfer also holds the stream for `setup` seconds, where a copy engine has
to be told of every copy. A layer whose products run at the power limit saves power while it waits and then runs at higher
clocks: of a wait, up to `boost` seconds are won back, and do not count as stall.

Events: none; the replay is arithmetic over the layers, exact while no other flow shares a stage of the path with equal
or higher priority.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from operator import add

TICK = 1e-12  # s: less is rounding


class ByLayer:
    """Pages by fate and layer of all steps, where layers differ in what they read."""

    def __init__(self, layers: int):
        self.asked, self.demand, self.late, self.useless = ([0] * layers for _ in range(4))

    def saw(self, far: Sequence[int], seen: Sequence[tuple[int, int]]) -> None:
        """`seen`: demanded and late pages of a step up to each layer."""
        demanded = late = 0
        for layer, (pages, (so_far, behind)) in enumerate(zip(far, seen, strict=True)):
            self.asked[layer] += pages
            self.demand[layer] += so_far - demanded
            self.late[layer] += behind - late
            demanded, late = so_far, behind


@dataclass(slots=True)
class Counts:
    """Pages (per rank bundle) of one step, by fate; the terms of INV-PREFETCH and INV-BYTES."""

    asked: int = 0  # far pages that the layers needed
    demand: int = 0  # of them, never prefetched
    in_time: int = 0  # prefetched and complete when asked for
    late: int = 0  # prefetched, still in flight when asked for
    proposed: int = 0
    issued: int = 0
    dropped: int = 0  # proposed, no staging space
    useless: int = 0  # issued, never used
    layers: ByLayer | None = None  # where they are told apart

    def add(self, other: Counts) -> None:
        self.asked += other.asked
        self.demand += other.demand
        self.in_time += other.in_time
        self.late += other.late
        self.proposed += other.proposed
        self.issued += other.issued
        self.dropped += other.dropped
        self.useless += other.useless


@dataclass(slots=True)
class Outcome:
    """Result of a step: when it ended, how much of it was exposed stall, what was moved."""

    end: float  # s after the start of the step
    stall: float  # s of all layers' waits
    moved: int  # pages moved or set in motion in this step
    wait: float  # page-seconds between a layer's asking and the arrival of what it had to wait for
    waited: int  # pages that had to be waited for
    dragged: float = 0.0  # s that layers took longer beside transfers


@dataclass(slots=True)
class Carry:
    """Prefetches for the first layers of the next step: pages and remaining transfer seconds, times from its start."""

    right: list[int] = field(default_factory=list)
    wrong: list[int] = field(default_factory=list)
    left: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)  # when the transfer may start
    free: float = 0.0  # when the stream is free
    setup: float = 0.0  # s for which the pages of a layer hold the stream beside their bytes

    def reveal(self, far: Sequence[int], room: int, page_time: float) -> int:
        """For who knows the future: what was set in motion for this step's first layers is what they ask for, as far as it
        fits `room` pages of staging. Its pages."""
        self.right = []
        for pages, _ in zip(far, self.ready, strict=False):
            self.right.append(min(pages, room))
            room -= self.right[-1]
        self.wrong = [0] * len(self.right)
        self.left = [_transfer(pages, page_time, self.setup) for pages in self.right]
        return sum(self.right)

    def lose(self, share: float, counts: Counts) -> None:
        """A share of the sequences ended: their pages were fetched for nothing and still use the stream."""
        for layer, pages in enumerate(self.right):
            gone = ceil(pages * share - 1e-9)
            self.right[layer] -= gone
            counts.useless += gone
            if counts.layers is not None:
                counts.layers.useless[layer] += gone

    def cancel(self, page_time: float, counts: Counts) -> int:
        """Nothing will read these pages any more: drop them; returns the pages that were never moved."""
        counts.useless += sum(self.right) + sum(self.wrong)
        if counts.layers is not None:
            for layer, pages in enumerate(map(add, self.right, self.wrong)):
                counts.layers.useless[layer] += pages
        left = sum([max(0.0, seconds - self.setup) for seconds in self.left])  # the set-up comes before the pages
        unmoved = int(left / page_time + 0.5) if page_time > 0.0 else 0
        self.right, self.wrong, self.left, self.ready, self.free = [], [], [], [], 0.0
        return unmoved


def _transfer(pages: int, page_time: float, setup: float) -> float:
    """Seconds for which the stream is held by the pages of one layer."""
    return pages * page_time + setup if pages else 0.0


def _beside(work: float, now: float, drag: float, free: float, ready: Sequence[float], left: Sequence[float]) -> float:
    """Seconds that `work` begun at `now` takes beside the transfers ahead, which are served in turn from `free` on."""
    begun, slow = now, 1.0 - drag
    for earliest, seconds in zip(ready, left):
        begin = free if free > earliest else earliest
        free = begin + seconds
        if free <= now:
            continue
        if begin > now:  # nothing moves until then
            if work <= begin - now:
                break
            work -= begin - now
            now = begin
        done = (free - now) * slow
        if work <= done:
            return now + work / slow - begun
        work -= done
        now = free
    return now + work - begun


def on_demand(
    far: Sequence[int], compute: Sequence[float], host: float, head: float, page_time: float, latency: float,
    pages_per_wave: int, counts: Counts, boost: float = 0.0,
) -> Outcome:  # fmt: skip
    """No prefetch: every layer asks for its pages when it is about to start, and waits for the last one.

    The arrival of the bytes within a wave is uniform, hence the mean wait of half its transfer.
    """
    end, stall, wait, asked = host, 0.0, 0.0, 0
    for pages, seconds in zip(far, compute):
        if pages:
            exposed = -(-pages // pages_per_wave) * latency + pages * page_time
            if boost:
                exposed -= min(exposed, boost)
            stall += exposed
            end += exposed
            asked += pages
            wait += pages * (latency + 0.5 * min(pages, pages_per_wave) * page_time)
        end += seconds
    counts.asked += asked
    counts.demand += asked
    if counts.layers is not None:
        for layer, pages in enumerate(far):
            counts.layers.asked[layer] += pages
            counts.layers.demand[layer] += pages
    return Outcome(end + head, stall, asked, wait, asked)


def streamed(
    far: Sequence[int], compute: Sequence[float], host: float, head: float, page_time: float, latency: float,
    issue_delay: float, window: int, right: Sequence[int], wrong: Sequence[int], wrap: bool, carry: Carry,
    counts: Counts, drag: float = 0.0, boost: float = 0.0, fifo: bool = False,
) -> Outcome:  # fmt: skip
    """Prefetch `window` layers ahead.

    `right[g]` (at most what the layer asks for), `wrong[g]` are the pages to issue for layer g of this step (g < layers)
    and, where `wrap` is set, for layer g - layers of the next one. Entries for layers already issued by the carry are
    ignored. `issue_delay` is the predictor's latency before a prefetch is issued. `carry` is read and replaced.
    """
    layers = len(far)
    # every layer up to `last` is issued in this step, those of the carry were before it; layer 0 without carry never is
    last = layers + window if wrap else layers
    before = len(carry.right)
    unasked = 0 if before else 1
    first = before + unasked
    issued_right = carry.right + [0] * unasked + list(right[first:last])
    issued_wrong = carry.wrong + [0] * unasked + list(wrong[first:last])
    left = carry.left + [0.0] * unasked
    totals = zip(issued_right[first:], issued_wrong[first:], strict=True)
    if carry.setup:
        left += [_transfer(pages + useless, page_time, carry.setup) for pages, useless in totals]
    else:
        left += [(pages + useless) * page_time for pages, useless in totals]
    moved = sum(issued_right[first:]) + sum(issued_wrong[first:])
    ready_at = carry.ready + [0.0] * unasked
    free, issued, current = carry.free, first, 0
    stall = wait = dragged = 0.0
    waited = asked = demanded = late = 0
    end = host
    seen: list[tuple[int, int]] | None = None if counts.layers is None else []
    delay = issue_delay + latency
    for layer in range(layers):
        ask = end
        while issued <= layer + window and issued < last:
            ready_at.append(ask + delay)
            issued += 1
        if ready_at[layer] > ask + latency + TICK:  # the predictor is still at it
            gone = issued_right[layer] + issued_wrong[layer]
            issued_right[layer] = issued_wrong[layer] = 0
            left[layer] = 0.0
            moved -= gone
            counts.issued -= gone
            counts.dropped += gone
        pages = far[layer]
        missing = pages - issued_right[layer]
        asked += pages
        start = ask
        if missing <= 0:
            if current <= layer:
                segment, remaining = issued_right[layer] + issued_wrong[layer], left[layer]
                if segment or remaining:  # pages that were lost still cross before the others
                    begin = ready_at[layer]
                    if free > begin:
                        begin = free
                    free = begin + remaining
                    if free > ask:
                        start = free
                        if begin < ask:
                            begin, remaining = ask, free - ask
                        full = segment * page_time
                        behind = pages if remaining >= full else ceil(pages * (remaining / full) - 1e-9)
                        late += behind
                        waited += behind
                        wait += behind * (0.5 * (begin + free) - ask)
                current = layer + 1
        else:
            demanded += missing
            arrive = ask + latency
            need = missing * page_time
            start = arrive + need
            overlaps = not fifo  # later prefetches use the stream until the demand arrives
            if fifo:
                while current < issued and ready_at[current] <= arrive + TICK:
                    begin = ready_at[current]
                    if free > begin:
                        begin = free
                    free = begin + left[current]
                    if current == layer and free > ask:
                        own, full = issued_right[layer], (issued_right[layer] + issued_wrong[layer]) * page_time
                        remaining = free - (begin if begin > ask else ask)
                        behind = own if remaining >= full else ceil(own * (remaining / full) - 1e-9)
                        late += behind
                        waited += behind
                        wait += behind * (free - 0.5 * remaining - ask)
                    current += 1
                if current <= layer:
                    current = layer + 1
                start = free = (free if free > arrive else arrive) + need
                wait += missing * (start - need - arrive)
            elif current <= layer:
                current = layer + 1
                segment, remaining = issued_right[layer] + issued_wrong[layer], left[layer]
                if segment or remaining:
                    begin = ready_at[layer]
                    if free > begin:
                        begin = free
                    finish = begin + remaining
                    if begin < ask:
                        begin, remaining = ask, finish - ask
                    early = 0.0  # s of the rest that go before the demand
                    if finish > arrive:  # the demand overtakes what is left of the layer's own prefetch
                        if begin < arrive:
                            early = arrive - begin
                            finish += need
                        else:
                            finish = (begin if begin > start else start) + remaining
                        start, overlaps = finish, False
                    elif remaining > 0.0:
                        early = remaining
                    free = finish
                    if finish > ask:
                        own, full = issued_right[layer], segment * page_time
                        behind = own if remaining >= full else ceil(own * (remaining / full) - 1e-9)
                        late += behind
                        waited += behind
                        after = remaining - early
                        lag = early * (begin + 0.5 * early) + after * (finish - 0.5 * after)
                        wait += behind * ((lag / remaining if remaining > 0.0 else finish) - ask)
            waited += missing
            wait += missing * (latency + 0.5 * need)
            if overlaps:
                while current < issued:
                    begin = ready_at[current]
                    if free > begin:
                        begin = free
                    if begin >= arrive:
                        break
                    finish = begin + left[current]
                    if finish <= arrive:
                        free = finish
                        current += 1
                    else:
                        left[current] -= arrive - begin
                        break
                free = start
        if seen is not None:
            seen.append((demanded, late))
        seconds, won = compute[layer], 0.0
        if boost and start > ask:
            won = min(start - ask, boost)
            seconds -= won
        stall += start - ask - won
        end = start + seconds
        if drag and current < issued:
            longer = _beside(seconds, start, drag, free, ready_at[current:issued], left[current:issued])
            dragged += longer - seconds
            end = start + longer
    end += head
    counts.asked += asked
    counts.demand += demanded
    counts.late += late
    counts.in_time += asked - demanded - late
    counts.useless += sum(issued_wrong[:layers])
    for layer in range(before):  # what was prefetched for sequences that are gone
        if issued_right[layer] > far[layer]:
            counts.useless += issued_right[layer] - far[layer]
            if counts.layers is not None:
                counts.layers.useless[layer] += issued_right[layer] - far[layer]
    if counts.layers is not None and seen is not None:
        counts.layers.saw(far, seen)
        for layer, useless in enumerate(issued_wrong[:layers]):
            counts.layers.useless[layer] += useless
    if wrap:
        done = current - layers  # leading segments of the next step that are complete
        carry.right, carry.wrong = issued_right[layers:], issued_wrong[layers:]
        carry.left = [0.0 if index < done else seconds for index, seconds in enumerate(left[layers:])]
        carry.ready = [moment - end for moment in ready_at[layers:]]
        carry.free = free - end
    else:
        carry.right, carry.wrong, carry.left, carry.ready, carry.free = [], [], [], [], 0.0
    return Outcome(end, stall, moved + demanded, wait, waited, dragged)
