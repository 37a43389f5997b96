"""Where each single block of the running sequences is: residency with identity, over the page table (design 3.2).

The same questions as `residency.Split` and `residency.Lru` answer by counts, answered page by page; needed where it counts
which pages a step reads (selected pages), or which pages a policy keeps. L3 is home; the newest block of a sequence is
pinned in L1. `paged_split` and `paged_cache` are the two kinds; here is what they have in common: sequences, page sets, L2.

L2 keeps what was fetched as long as there is room (`kept`, lru), only pages of groups that select: a dense scan would pass
through it without a hit. With `inclusive` it keeps what came into L1 as well; else that leaves it, and comes back when L1
evicts it (a move inside HBM, which takes no time).

Sequences have slots. Blocks that decoding sequences started since the last step with far memory are entered when they are
next looked at (`sync`), so that runs of steps without far memory cost nothing here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.kvcache.eviction import Lru
from simulator.kvcache.selection import Group, PageSets, groups_of
from simulator.kvcache.table import CHOSEN, HOME, KEPT, NEAR, PINNED, UNUSED, Ids, PageTable
from simulator.kvcache.tier import Bools, Tier
from simulator.scenario.resolved import Placement, Selection


class Paged:
    """What both have in common: table, sequences, page sets, L2. Sizes in pages (one layer of a block, all ranks)."""

    def __init__(
        self, l1_blocks: int, l3_blocks: int, layers: int, block_tokens: int, selection: Selection, placement: Placement,
        page_value: float, rng: np.random.Generator, sequential: bool,
    ):  # fmt: skip
        self.l1_blocks, self.l3_blocks, self.layers_per_block = l1_blocks, l3_blocks, layers
        self.block_tokens, self.inclusive = block_tokens, placement.l2 == "inclusive"
        self.groups: tuple[Group, ...] = groups_of(selection, layers, alone=sequential)
        self.weight = np.array([group.layers for group in self.groups], np.int64)
        self.table = PageTable(len(self.groups), [not group.selects for group in self.groups])
        self._selects = any(group.selects for group in self.groups)
        self.sets = PageSets(selection, self.groups, self.table, block_tokens, rng)
        self.kept = Tier(Lru(self), 0, weight=self.weight)
        self.unused_lost = 0  # pages that were prefetched, kept, and left L2 unused since last asked
        self.unused_lost_of = np.zeros(len(self.groups), np.int64)  # of each group, ever
        self.far: dict[int, int] = {}
        self.claimed = self.homed = 0
        self._slot_of: dict[int, int] = {}
        self._free_slots: list[int] = []
        self._offset = np.zeros(0, np.int64)  # of each slot: cached tokens minus step, while it decodes
        self._decoding: dict[int, None] = {}  # slots, in order of joining
        self._slots: Ids | None = None  # the same as an array
        self._admission = np.zeros(0, np.int64)  # of each slot: number of its admission
        self.request_of = np.zeros(0, np.int64)  # of each slot
        self._admitted = 0
        self._to_l3 = 0  # pages to be written back, since last asked
        self._page_value = page_value

    # --- what policies may know (`eviction.Pages`)

    def uses_of(self, ids: Ids) -> NDArray[np.int64]:
        return self.table.uses_of(ids)

    def index_of(self, ids: Ids) -> NDArray[np.int64]:
        return self.table.index[self.table.row_of(ids)].astype(np.int64)

    def order_of(self, ids: Ids) -> NDArray[np.int64]:
        return self._admission[self.table.sequence[self.table.row_of(ids)]]

    def value_of(self, ids: Ids) -> NDArray[np.float64]:
        """Bytes times the seconds to fetch them again, both in units of one page's."""
        return self._page_value * self.weight[ids % self.table.groups].astype(np.float64) ** 2

    # --- sequences

    def _slot(self, request: int) -> int:
        slot = self._slot_of.get(request)
        if slot is None:
            slot = self._free_slots.pop() if self._free_slots else len(self._slot_of)
            self._slot_of[request] = slot
            self.table.slots(slot + 1)
            if slot >= len(self._offset):
                self._offset = np.append(self._offset, 0)
                self._admission = np.append(self._admission, 0)
                self.request_of = np.append(self.request_of, 0)
            self.request_of[slot] = request
            self._admission[slot] = self._admitted
            self._admitted += 1
        return slot

    def slot_of(self, request: int) -> int:
        """Its slot, -1 if it has written nothing yet."""
        return self._slot_of.get(request, -1)

    def join(self, request: int, offset: int) -> None:
        """A sequence decodes from now on; it has offset + k cached tokens before step k."""
        slot = self._slot_of[request]
        self._offset[slot] = offset
        self._decoding[slot] = None
        self._slots = None
        self.table.activate(self.table.rows_of(slot))
        if self._selects:
            self.sets.join(slot)

    @property
    def decoding(self) -> Ids:
        """Slots of the decoding sequences."""
        if self._slots is None:
            self._slots = np.fromiter(self._decoding, np.int64, len(self._decoding))
        return self._slots

    def sync(self, step: int) -> None:
        """Enter the blocks that decoding sequences have at step `step`, its own token included."""
        slots = self.decoding
        if not len(slots):
            return
        blocks = (self._offset[slots] + step) // self.block_tokens + 1
        new = blocks - self.table.blocks[slots]
        behind = new.nonzero()[0]
        if len(behind):
            rows = self._write(slots[behind], new[behind])
            self.table.activate(rows)
            if self._selects:
                for slot in slots[behind].tolist():
                    self.sets.grow(slot)

    def enter(self) -> None:
        """Bring the table up to date, where that was put off."""

    def draw(self) -> list[Ids]:
        """The sets of the decoding sequences in this step: entries, for each group that selects."""
        if not self._selects:
            return []
        self.sets.advance(self.decoding)
        return self.sets.entries(self.decoding)

    def ran(self, step: int, steps: int) -> None:
        """Steps passed, before step `step`, in which everything was in L1."""
        self.table.scan(step - 1, steps)

    def _write(self, slots: Ids, counts: Ids) -> Ids:
        """New blocks at the ends of sequences; the last ones are pinned instead of those that were."""
        table = self.table
        before = table.blocks[slots]
        grown = before > 0
        self._unpin(table.row_at(slots[grown], before[grown] - 1))
        rows = table.add(slots, counts)
        self.kept.resize(table.rows * table.groups)
        newest = np.zeros(len(rows), np.bool_)
        newest[counts.cumsum() - 1] = True
        self._enter(rows[~newest], rows[newest])
        return rows

    def _unpin(self, rows: Ids) -> None:
        self.table.flags[self.table.entries(rows)] &= ~np.uint8(PINNED)

    def _enter(self, full: Ids, newest: Ids) -> None:
        """New blocks, just written in HBM; the newest of each sequence stays."""
        raise NotImplementedError

    def _remove(self, request: int) -> Ids:
        """A sequence ends: entries that it had."""
        table, slot = self.table, self._slot_of.pop(request)
        self._free_slots.append(slot)
        if slot in self._decoding:
            del self._decoding[slot]
            self._slots = None
        entries = table.entries(table.rows_of(slot))
        self._forget(self.kept.drop(entries))
        return entries

    # --- reads

    def read(self, ids: Ids) -> Bools:
        """A step reads these pages of one group: which of them were in L1."""
        raise NotImplementedError

    def loose(self, slots: Ids | None = None) -> Ids:
        """Rows but pinned ones: of the decoding sequences, or of the sequences named."""
        table = self.table
        flags = table.flags[:: table.groups]
        if slots is None:
            return np.flatnonzero(table.active & (flags & PINNED == 0))
        if not len(slots):
            return np.zeros(0, np.int64)
        rows = np.concatenate([table.rows_of(int(slot)) for slot in slots])
        loose: Ids = rows[flags[rows] & PINNED == 0]
        return loose

    def weigh(self, ids: Ids) -> int:
        """Pages of these entries."""
        return self.kept.weigh(ids)

    @property
    def near_pages(self) -> int:
        """Pages in L1."""
        self.enter()
        return self.weigh(np.flatnonzero(self.table.flags & NEAR))

    def copies(self) -> tuple[Bools, Bools]:
        """Of each entry: all its pages are in L1 or have a home in L3; some are anywhere."""
        flags = self.table.flags
        return flags & (NEAR | HOME) != 0, flags & ~np.uint8(CHOSEN) != 0

    def keep(self, ids: Ids, unused: bool = False) -> None:
        """These pages, fetched in this step, stay in L2; `unused`: nobody asked for them."""
        flags = self.table.flags
        if not self.inclusive:
            ids = ids[flags[ids] & NEAR == 0]
        ids = ids[~self.kept.held[ids]]
        flags[ids] |= KEPT | UNUSED if unused else KEPT
        self.kept.insert(ids, self.kept.policy.keys(self.kept, ids, self.kept.held[ids]))

    def make_room(self, pages: int) -> Ids:
        """L2 has room for so many kept pages: those that leave."""
        self.kept.capacity = max(0, pages)
        gone = self.kept.shrink()
        self._forget(gone)
        return gone

    def promoted(self, ids: Ids) -> None:
        """Kept pages that were read: where they came into L1 they leave L2, unless it is inclusive."""
        flags = self.table.flags
        flags[ids] &= ~np.uint8(UNUSED)
        self.kept.rekey(ids, self.kept.policy.keys(self.kept, ids, self.kept.held[ids]))
        if not self.inclusive:
            self._forget(self.kept.drop(ids[flags[ids] & NEAR != 0]))

    def take_demoted(self) -> Ids:
        """Pages of groups that select which left L1 since last asked, for L2 to take. None where they go to L3 for good."""
        return np.zeros(0, np.int64)

    def _forget(self, gone: Ids) -> None:
        """These pages left L2."""
        flags = self.table.flags
        unused = gone[flags[gone] & UNUSED != 0]
        if len(unused):
            self.unused_lost += self.weigh(unused)
            self.unused_lost_of += self.weight * np.bincount(unused % self.table.groups, minlength=len(self.weight))
        flags[gone] &= ~np.uint8(KEPT | UNUSED)

    def take_evicted(self) -> int:
        """Pages that are to be written to L3 since last asked, other than those that `place` and `grow` reported."""
        pages, self._to_l3 = self._to_l3, 0
        return pages

    def layers(self, far: int, blocks: int, layers: int) -> list[int]:
        raise NotImplementedError("which pages a step reads is asked page by page")

    @property
    def bytes(self) -> int:
        return self.table.bytes + self.sets.bytes + self.kept.bytes + self._offset.nbytes + self._admission.nbytes


def held_once(pages: Paged) -> bool:
    """Every live page has an authoritative copy: it is in L1 or has a home in L3; nothing free is anywhere."""
    pages.enter()
    live = np.repeat(pages.table.sequence >= 0, pages.table.groups)
    copied, anywhere = pages.copies()
    return bool(np.all(copied[live]) and not np.any(anywhere[~live]))
