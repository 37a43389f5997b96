"""L1 as an LRU cache over L3 where all layers are dense: what `paged_cache` does, to the page, without a key per page.

A block is always used in all its layers: when a step scans it, when it is written, when it is pinned no longer. What is used
together is a batch (`batches`). Pages leave in the order of their last use, so all there is to keep is the batches, oldest
first, with the blocks that were not used since, and how far into the first one eviction has come. What lies before that is in
L3, what follows in L1. A scan counts, layer by layer,

    hits      its blocks in the batches that are left, those before the edge of the first aside
    evicted   pages in L1 beyond its capacity

and which pages these are follows from positions. Of each page a bit says whether it has a home in L3; blocks that have it in
all layers are not looked at.

Not modelled: page sets, predictors that propose pages by name (`paged_cache`).
Cost: per step a few vector operations over the blocks that it reads, and a few sums per layer. Memory per block: one bit per
layer and about 20 bytes, besides the table's row.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from simulator.kvcache.batches import Batch
from simulator.kvcache.paged_cache import Cache
from simulator.kvcache.table import PINNED, Ids
from simulator.kvcache.tier import Bools
from simulator.scenario.resolved import Placement, Selection

Bits = NDArray[np.uint8]


def _count(bits: Bits) -> int:
    return int.from_bytes(bits.tobytes()).bit_count()


class PagedLru(Cache):
    def __init__(
        self, l1_blocks: int, l3_blocks: int, layers: int, block_tokens: int, selection: Selection, placement: Placement,
        page_value: float, rng: np.random.Generator,
    ):  # fmt: skip
        super().__init__(l1_blocks, l3_blocks, layers, block_tokens, selection, placement, page_value, rng, False)
        self._room, self._used = l1_blocks * layers, 0  # pages
        self._queue: deque[Batch] = deque()
        self._all = np.packbits(np.ones(layers, np.bool_))
        self._homes = np.zeros((0, len(self._all)), np.uint8)  # of each row: layers with a home in L3
        self._clean = np.zeros(0, np.bool_)  # all of them
        self._marked = np.zeros(0, np.bool_)  # for the moment
        self.missed: list[int] = [0] * layers  # pages of each layer that the last scan did not find in L1
        self.missed_of = np.zeros(0, np.int64)  # of each slot

    def settled(self) -> bool:
        return self._used == self.table.live * self.layers_per_block and self._total <= self.l1_blocks

    # --- what is written, and ends

    def _enter(self, full: Ids, newest: Ids) -> None:
        more, layers = self.table.rows - len(self._clean), self.layers_per_block
        if more > 0:
            self._homes = np.concatenate([self._homes, np.zeros((more, len(self._all)), np.uint8)])
            self._clean = np.concatenate([self._clean, np.zeros(more, np.bool_)])
            self._marked = np.concatenate([self._marked, np.zeros(more, np.bool_)])
        self.table.flags[newest] |= PINNED
        self._used += len(newest) * layers
        self._shrink()
        if len(full):
            self._queue.append(Batch(full, layers))
            self._used += len(full) * layers
            self._shrink()
            self._full(full)

    def _unpin(self, rows: Ids) -> None:
        super()._unpin(rows)
        if len(rows):
            decoding = bool(self.table.active[rows].all())
            self._queue.append(Batch(rows, self.layers_per_block, by_block=True, decoding=decoding))
            self._full(rows)

    def _full(self, rows: Ids) -> None:
        """These blocks change no more."""
        if self._writes(len(rows) * self.layers_per_block):
            self._give_home(rows, np.tile(self._all, (len(rows), 1)))

    def _drop(self, rows: Ids) -> int:
        layers, marked = self.layers_per_block, self._marked
        marked[rows] = True
        self._used -= layers * int(np.count_nonzero(self.table.flags[rows] & PINNED))
        for batch in self._queue:
            gone = marked[batch.rows]
            if gone.any():
                self._used -= int(np.count_nonzero(batch.near(layers)[gone]))
                batch.drop(gone)
        self._queue = deque(batch for batch in self._queue if len(batch.rows))
        marked[rows] = False
        homed = _count(self._homes[rows])
        self._homes[rows], self._clean[rows] = 0, False
        return homed

    # --- reads and evictions

    def scan(self, rows: Ids, slots: Ids, decodes: bool) -> int:
        """A step reads these blocks, all but the pinned ones of these sequences, layer by layer; if it `decodes`, all decoding
        sequences are among them. Pages that were not in L1; also `missed`, `missed_of`."""
        layers, queue, size = self.layers_per_block, self._queue, len(rows)
        self.missed = [0] * layers
        self.missed_of = np.zeros(len(self.request_of), np.int64)
        if not size:
            return 0
        alone = decodes and len(slots) == len(self._decoding)
        self._split(rows, decodes)
        standing = sum([batch.count for batch in queue])  # blocks of the scan in the queue
        seen, own = list(queue), Batch(rows, 0, decoding=alone)
        queue.append(own)
        layer = 0
        while layer < layers:
            first, several = queue[0], 1
            if first is own or layer < first.layer:  # of the first batch nothing is found until the scan comes to its edge
                misses = size - (standing - first.count)
                last = layers if first is own else first.layer
                spare = ((last if first is own else first.end) - first.layer) * len(first.rows) - first.at
                fit = (self._room - self._used + spare) // misses if misses else last - layer
                if fit >= last - layer or first is not own:
                    several = max(1, min(last - layer, fit))
                first.missed += several
            else:
                misses = size - (standing - first.count) - first.hits(layer)
            self.missed[layer : layer + several] = [misses] * several
            self._used += misses * several
            own.end = layer + several
            for batch in self._evict(layer, seen):
                standing -= batch.count
                batch.missed += layers - 1 - layer
            layer += several
        self._moved(seen)
        self._moved([own])
        total = sum(self.missed)
        if total:
            self._attribute(slots, seen)
        self._queue = deque(batch for batch in queue if batch.count < len(batch.rows))
        for batch in self._queue:
            if batch.count:
                batch.drop(batch.again)
        return total

    def _split(self, rows: Ids, decodes: bool) -> None:
        """Tell the batches which of their rows a scan reads."""
        partly = []
        for batch in self._queue:
            if decodes and batch.decoding:
                batch.split(np.ones(len(batch.rows), np.bool_))
            else:
                partly.append(batch)
        if partly:
            self._marked[rows] = True
            for batch in partly:
                batch.split(self._marked[batch.rows])
            self._marked[rows] = False

    def _attribute(self, slots: Ids, seen: list[Batch]) -> None:
        """Misses of each sequence: all that it reads, but for what was found."""
        layers, missed = self.layers_per_block, self.missed_of
        missed[slots] = (self.table.blocks[slots] - 1) * layers
        for batch in seen:
            if batch.count and (batch.missed < layers or batch.cuts):
                of = self.table.sequence[batch.rows[batch.again]]
                missed -= np.bincount(of, layers - batch.misses(), len(missed)).astype(np.int64)

    def _shrink(self) -> None:
        if self._used > self._room:
            seen = list(self._queue)
            self._evict(-1, seen)
            self._moved(seen)

    def _evict(self, layer: int, seen: list[Batch]) -> list[Batch]:
        """Pages leave until the rest fits, while a scan is at `layer` (-1: none is). Batches of which nothing is left; those
        that come apart on the way are added to `seen`."""
        queue, ended = self._queue, []
        while self._used > self._room and queue:
            first = queue[0]
            if first.by_block and first.standing(layer) <= self._used - self._room:
                first.by_block = False  # all of it leaves: the order does not matter
            elif first.by_block:
                queue.popleft()
                singles = first.singles()
                queue.extendleft(reversed(singles))
                seen.extend(singles)
                first.count = 0
            elif first.layer < first.end:
                self._used -= first.take(self._used - self._room, layer, self._clean)
            elif first.end < self.layers_per_block:
                break  # only what is pinned is left
            else:
                ended.append(queue.popleft())
        return ended

    def _moved(self, batches: list[Batch]) -> None:
        """What left L1, of batches with distinct rows, gets a home where it has none."""
        moved = [one for batch in batches for one in batch.left(self.layers_per_block, self._clean)]
        if moved:
            rows, where = (np.concatenate(column) for column in zip(*moved))
            self._give_home(rows, np.packbits(where, axis=1))

    def _give_home(self, rows: Ids, bits: Bits) -> None:
        before = self._homes[rows]
        after = before | bits
        self._homes[rows] = after
        self._clean[rows] = (after == self._all).all(1)
        self._homed(_count(after ^ before))

    # --- where everything is

    def _near(self) -> Bits:
        """Of each row, the layers in L1."""
        found = np.zeros((self.table.rows, self.layers_per_block), np.bool_)
        found[self.table.flags & PINNED != 0] = True
        for batch in self._queue:
            found[batch.rows] = batch.near(self.layers_per_block)
        return np.packbits(found, axis=1)

    def lost(self) -> list[int]:
        self._homes &= ~self._near()
        self._clean = (self._homes == self._all).all(1)
        self._set_home(_count(self._homes))
        for batch in self._queue:
            batch.forget()
        slots = set(self.table.sequence[self._homes.any(1)].tolist())
        return [request for request, slot in self._slot_of.items() if slot in slots]

    @property
    def near_pages(self) -> int:
        return _count(self._near())

    def copies(self) -> tuple[Bools, Bools]:
        found = self._near() | self._homes
        copied: Bools = (found == self._all).all(1)
        return copied, found.max(axis=1, initial=0) > 0

    @property
    def bytes(self) -> int:
        own = (self._homes, self._clean, self._marked)
        return super().bytes + sum(column.nbytes for column in own) + sum(batch.rows.nbytes for batch in self._queue)
