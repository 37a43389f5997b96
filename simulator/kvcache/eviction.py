"""Which pages leave a tier first: eviction policies as pure key functions (used by `tier.Tier`; the lowest key leaves).

    lru       the least recently used
    fifo      the one that came in first
    lfu       the least often used, ever; among equals the least recently used
    hot       pages used at most `threshold` times before those used more often; among both the least recently used. With
              `adapt`, the threshold goes up after a window in which more hot pages came in than pages were hit, and down
              when fewer than 1 in 16 did
    cost      the cheapest to fetch again: GreedyDual on value = bytes x refetch time (key = key of the last victim + value)
    share     per-sequence split: an equal number of blocks of every sequence, its first ones. A scan displaces nothing
    priority  blocks of the sequence that was admitted last, and of it the newest
    belady    the one whose next use is farthest; among equals the deepest block of a chain. Needs the future, so only for
              recorded streams: an upper bound

Dense attention reads all blocks of all sequences in turn, a cyclic scan: lru, fifo, lfu and cost then miss everything as soon
as the scan exceeds the tier, share and priority keep what fits.

A policy sees the tier (its `batch` number, keys and held pages) and what its constructor was given; a plug-in is a class
with these methods and one line in `POLICIES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.kvcache.tier import Bools, Ids, Tier

Keys = NDArray[np.float64]

STEP = 2.0**32  # one unit of the first criterion; the second stays below
MOST_USES = 2**20
COLD = 2.0**52  # above every stamp
WINDOW = 1024  # uses after which an adapting threshold is looked at


class Pages(Protocol):
    """What policies may know of pages besides the keys: columns by page number (`Columns` holds plain arrays)."""

    def uses_of(self, ids: Ids) -> NDArray[np.int64]: ...

    def index_of(self, ids: Ids) -> NDArray[np.int64]: ...

    def order_of(self, ids: Ids) -> NDArray[np.int64]: ...

    def value_of(self, ids: Ids) -> Keys: ...


class Policy(Protocol):
    sequential: bool  # what a scan brings in displaces what the scan has not reached yet
    static: bool  # a page that stays keeps its key
    ascending: bool  # every key that it gives is above all that it gave before; keys below 0 and others apart

    def keys(self, tier: Tier, ids: Ids, held: Bools) -> Keys:
        """Keys of a batch of pages, in the order of use; `held`: which were in the tier."""

    def evicted(self, tier: Tier, ids: Ids, keys: Keys) -> None:
        """These pages leave, or did not come in."""


def _ordered(first: NDArray[np.int64], then: NDArray[np.int64]) -> Keys:
    """Keys by two criteria."""
    return first.astype(np.float64) * STEP + then.astype(np.float64)


class _Plain:
    """Learns nothing from evictions."""

    sequential = True
    static = ascending = False

    def __init__(self, pages: Pages):
        self.pages = pages

    def evicted(self, tier: Tier, ids: Ids, keys: Keys) -> None:
        return None


class Lru(_Plain):
    ascending = True

    def __init__(self, pages: Pages):
        super().__init__(pages)
        self._stamp = 0

    def keys(self, tier: Tier, ids: Ids, held: Bools) -> Keys:
        self._stamp += len(ids)
        return np.arange(self._stamp - len(ids), self._stamp, dtype=np.float64)


class Fifo(Lru):
    static = True


class Lfu(_Plain):
    def keys(self, tier: Tier, ids: Ids, held: Bools) -> Keys:
        return _ordered(np.minimum(self.pages.uses_of(ids), MOST_USES), np.full(len(ids), tier.batch))


class Hot(Lru):
    def __init__(self, pages: Pages, threshold: int = 10, adapt: bool = False):
        super().__init__(pages)
        self.threshold, self.adapt = threshold, adapt
        self._seen = self._hits = self._came = 0

    def keys(self, tier: Tier, ids: Ids, held: Bools) -> Keys:
        hot = self.pages.uses_of(ids) > self.threshold
        if self.adapt:
            self._seen += len(ids)
            self._hits += int(held.sum())
            self._came += int((hot & ~held).sum())
            if self._seen >= WINDOW:
                if self._came > self._hits:
                    self.threshold += 1
                elif 16 * self._came < self._hits:
                    self.threshold = max(0, self.threshold - 1)
                self._seen = self._hits = self._came = 0
        return super().keys(tier, ids, held) - np.where(hot, 0.0, COLD)


class Cost(_Plain):
    def __init__(self, pages: Pages):
        super().__init__(pages)
        self._floor = 0.0

    def keys(self, tier: Tier, ids: Ids, held: Bools) -> Keys:
        return self._floor + self.pages.value_of(ids)

    def evicted(self, tier: Tier, ids: Ids, keys: Keys) -> None:
        self._floor = max(self._floor, float(keys.max(initial=0.0)))


class Share(_Plain):
    sequential = False
    static = True

    def keys(self, tier: Tier, ids: Ids, held: Bools) -> Keys:
        return -_ordered(self.pages.index_of(ids), self.pages.order_of(ids))


class Priority(_Plain):
    sequential = False
    static = True

    def keys(self, tier: Tier, ids: Ids, held: Bools) -> Keys:
        return -_ordered(self.pages.order_of(ids), self.pages.index_of(ids))


class Belady(_Plain):
    """`following[b]`: for each page of batch b, in the order of use, the batch of its next use (`NEVER` if none)."""

    sequential = False

    def __init__(self, pages: Pages, following: Sequence[NDArray[np.int64]]):
        super().__init__(pages)
        self._following = following

    def keys(self, tier: Tier, ids: Ids, held: Bools) -> Keys:
        return -self._following[tier.batch - 1].astype(np.float64) * MOST_USES - self.pages.index_of(ids)


NEVER = 2**31


def next_uses(batches: Sequence[Ids]) -> list[NDArray[np.int64]]:
    """For each page of each batch, the number of the next batch that uses it."""
    following: list[NDArray[np.int64]] = []
    last = np.full(1 + max((int(batch.max(initial=0)) for batch in batches), default=0), NEVER, np.int64)
    for number in range(len(batches) - 1, -1, -1):
        following.append(last[batches[number]])
        last[batches[number]] = number
    return following[::-1]


POLICIES: dict[str, type[Lru | Lfu | Cost | Share | Priority]] = {
    "lru": Lru, "fifo": Fifo, "lfu": Lfu, "hot": Hot, "cost": Cost, "share": Share, "priority": Priority,
}  # fmt: skip
