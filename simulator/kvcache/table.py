"""The page table: a row a block, in numpy columns (design 3.2, 3.7).

A row is one block of one sequence. The layers are taken in groups that share their page sets (`selection.Group`; one group
where all layers are alike), so each row has one entry per group, and an entry stands for one page in each layer of its
group. Entries are addressed by number, row * groups + group, and all updates are vectorised over entries.

    per row    sequence (slot of the request, -1: free), index (position of the block in its sequence), active (decoding)
    per entry  flags (below), last use (step), uses; where a decoding sequence reads all of a group in every step, both are
               kept once for all (`scan`)

In which tier an entry is, is a flag; the tiers that evict keep their own columns (`tier.Tier`). KV never changes once
written, so a page is dirty exactly while it has no home in L3.

Cost: 9 bytes a row and 9 an entry, plus 4 a block for the map from (sequence, index) to rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

NEAR = 1  # in L1
KEPT = 2  # in L2, after the step that fetched it
HOME = 4  # has a copy in L3; without one it is dirty
UNUSED = 8  # prefetched, in L2, not read yet
DISPLACED = 16  # left L2 because of a prefetch
PINNED = 32  # the newest block of its sequence: stays in L1
CHOSEN = 64  # in the page set of its sequence and group
IN_FLIGHT = 128  # prefetched for the next step, under way

LEAST_ROWS = 64


class PageTable:
    def __init__(self, groups: int, dense: Sequence[bool] | None = None):
        """`dense`: which groups are read whole by every step of a decoding sequence; all if absent."""
        self.groups = groups
        self.dense = np.ones(groups, np.bool_) if dense is None else np.array(dense, np.bool_)
        self._all_dense = bool(self.dense.all())
        self.scans = self.scanned = 0  # how often all that is active was read, and the last step that did
        self.rows = 0  # rows that exist, free ones included
        self.live = 0  # rows that are blocks
        self.count_active = 0  # rows of decoding sequences
        self.sequence = np.zeros(0, np.int32)
        self.index = np.zeros(0, np.int32)
        self.active = np.zeros(0, np.bool_)
        self.flags = np.zeros(0, np.uint8)
        self.last_use = np.zeros(0, np.int32)
        self.uses = np.zeros(0, np.int32)
        self._free = np.zeros(0, np.int32)  # a stack, of which the first `_spare` are in use
        self._spare = 0
        self._row_of = np.full((0, 0), -1, np.int32)  # slot, index -> row
        self.blocks = np.zeros(0, np.int32)  # of each slot

    def slots(self, count: int) -> None:
        """Room for so many sequences."""
        have = len(self.blocks)
        if count > have:
            self.blocks = np.concatenate([self.blocks, np.zeros(count - have, np.int32)])
            more = np.full((count - have, self._row_of.shape[1]), -1, np.int32)
            self._row_of = np.concatenate([self._row_of, more])

    def add(self, slots: Ids, counts: Ids) -> Ids:
        """`counts` (1 or more) new blocks at the ends of distinct sequences: their rows, sequence by sequence, flags clear."""
        total = int(counts.sum())
        while self._spare < total:
            self._grow()
        self._spare -= total
        self.live += total
        rows = self._free[self._spare : self._spare + total][::-1].astype(np.int64)
        slot, index = slots, self.blocks[slots].astype(np.int64)
        if total > len(slots):
            slot = slots.repeat(counts)
            index = np.arange(total) + (index - counts.cumsum() + counts).repeat(counts)
        need = int(index.max(initial=-1)) + 1
        if need > self._row_of.shape[1]:
            wider = np.full((len(self.blocks), max(16, 2 * self._row_of.shape[1], need)), -1, np.int32)
            wider[:, : self._row_of.shape[1]] = self._row_of
            self._row_of = wider
        self._row_of[slot, index] = rows
        self.blocks[slots] += counts
        self.sequence[rows] = slot
        self.index[rows] = index
        return rows

    def remove(self, slot: int) -> Ids:
        """A sequence ends: its rows, which are free from now on."""
        rows = self.rows_of(slot)
        count = len(rows)
        self.sequence[rows] = -1
        self.count_active -= int(self.active[rows].sum())
        self.active[rows] = False
        entries = self.entries(rows)
        self.flags[entries] = 0
        self.uses[entries] = 0
        self.last_use[entries] = 0
        self._free[self._spare : self._spare + count] = rows[::-1]
        self._spare += count
        self.live -= count
        self.blocks[slot] = 0
        return rows

    def rows_of(self, slot: int, first: int = 0, last: int | None = None) -> Ids:
        """Rows of a sequence's blocks, in order."""
        end = int(self.blocks[slot]) if last is None else last
        return self._row_of[slot, first:end].astype(np.int64)

    def row_at(self, slots: NDArray[np.integer], index: NDArray[np.integer]) -> Ids:
        """Rows of blocks, elementwise."""
        rows: Ids = self._row_of.take(slots * self._row_of.shape[1] + index).astype(np.int64)
        return rows

    def entries(self, rows: Ids) -> Ids:
        """All entries of these rows."""
        if self.groups == 1:
            return rows
        every: Ids = (rows[:, None] * self.groups + np.arange(self.groups)).ravel()
        return every

    def row_of(self, entries: Ids) -> Ids:
        return entries if self.groups == 1 else entries // self.groups

    def entries_in(self, group: int, rows: Ids) -> Ids:
        """The entries of one group."""
        return rows if self.groups == 1 else rows * self.groups + group

    def activate(self, rows: Ids) -> None:
        """These blocks belong to a decoding sequence from now on: each `scan` reads them."""
        self.active[rows] = True
        self.count_active += len(rows)
        entries = self.entries(rows)
        self.uses[entries if self._all_dense else entries[self.dense[entries % self.groups]]] -= self.scans

    def use(self, entries: Ids, step: int) -> None:
        """Each of these (distinct) entries is read."""
        self.last_use[entries] = step
        self.uses[entries] += 1

    def scan(self, step: int, times: int = 1) -> None:
        """All active entries of dense groups are read, by steps up to `step`; costs nothing, their uses count from `scans`."""
        self.scans += times
        self.scanned = step

    def uses_of(self, entries: Ids) -> Ids:
        scanned = self.active[self.row_of(entries)]
        if not self._all_dense:
            scanned &= self.dense[entries % self.groups]
        uses: Ids = self.uses[entries].astype(np.int64) + np.where(scanned, self.scans, 0)
        return uses

    def _grow(self) -> None:
        """Twice the rows; the new ones are handed out in order."""
        old, more = self.rows, max(LEAST_ROWS, self.rows // 2)
        self.rows += more

        def longer(column: NDArray[np.generic], by: int) -> NDArray[np.generic]:
            return np.concatenate([column, np.zeros(by, column.dtype)])

        for name in ("index", "active"):
            setattr(self, name, longer(getattr(self, name), more))
        self.sequence = np.concatenate([self.sequence, np.full(more, -1, np.int32)])
        for name in ("flags", "last_use", "uses"):
            setattr(self, name, longer(getattr(self, name), more * self.groups))
        free = np.empty(self.rows, np.int32)
        free[:more] = np.arange(self.rows - 1, old - 1, -1)
        free[more : more + self._spare] = self._free[: self._spare]
        self._free = free
        self._spare += more

    @property
    def bytes(self) -> int:
        """Memory of all columns."""
        columns = (
            self.sequence, self.index, self.active, self.flags, self.last_use, self.uses, self._free, self._row_of, self.blocks,
        )  # fmt: skip
        return sum(column.nbytes for column in columns)
