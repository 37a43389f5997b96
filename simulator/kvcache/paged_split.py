"""Per-sequence split, block by block: `residency.Split` says how many blocks of each sequence are in L1, this says which.

Of the full blocks the newest leave first. Exclusive: a block is in L1 or in L3, and moves once; reading moves nothing, so a
step costs only what changes.

Where nobody asks which pages a step reads (`lazy`: all layers dense, no predictor that knows pages by name), blocks that
decoding sequences start are counted in each step and entered in the table when something else happens to it (`enter`): a
sequence joins or leaves, or gives blocks up. Until then L1 only fills, so blocks come in near as long as there is room and
the newest full ones leave from then on; that order is kept.
"""

from __future__ import annotations

import numpy as np

from simulator.kvcache.paged import Paged
from simulator.kvcache.residency import Others, Split
from simulator.kvcache.table import HOME, NEAR, PINNED, Ids
from simulator.kvcache.tier import Bools
from simulator.scenario.resolved import Placement, Selection


class PagedSplit(Paged):
    def __init__(
        self, l1_blocks: int, l3_blocks: int, layers: int, block_tokens: int, selection: Selection, placement: Placement,
        page_value: float, rng: np.random.Generator,
    ):  # fmt: skip
        super().__init__(l1_blocks, l3_blocks, layers, block_tokens, selection, placement, page_value, rng, False)
        self._counts = Split(l1_blocks, l3_blocks, layers)
        self.far = self._counts.far
        self.far_active = 0  # blocks in L3 of the decoding sequences
        self._leaving: list[int] = []  # slots of which one block leaves L1 after this step's reads
        self.lazy = False
        self._step = self._entered = 0  # the last one that read; the one that the table is at
        self._active = 0  # blocks of the decoding sequences in the last step that read
        self._pending: dict[int, int] = {}  # slot -> its blocks that left L1 since the table was up to date

    @property
    def l1_used(self) -> int:
        return self._counts.l1_used

    @property
    def l3_used(self) -> int:
        return self._counts.l3_used

    def capacity(self) -> int:
        return self._counts.capacity()

    def near_room(self) -> int:
        return self._counts.near_room()

    def settled(self) -> bool:
        return self._counts.settled()

    @property
    def count_active(self) -> int:
        """Blocks of the decoding sequences."""
        return self._active if self.lazy else self.table.count_active

    def sync(self, step: int) -> None:
        if self.lazy:
            self._step, slots = step, self.decoding
            self._active = int(((self._offset[slots] + step) // self.block_tokens).sum()) + len(slots)
        else:
            super().sync(step)

    def enter(self) -> None:
        """Bring the table up to the last step that read."""
        if self._entered == self._step:
            return
        self._entered = self._step
        table, slots = self.table, self.decoding
        new = (self._offset[slots] + self._step) // self.block_tokens + 1 - table.blocks[slots]
        behind = np.flatnonzero(new > 0)
        if len(behind):
            rows = self._write(slots[behind], new[behind])
            table.activate(rows)
            first = table.index[rows] * self.block_tokens - self._offset[table.sequence[rows]]  # the step that started each
            table.uses[rows] += (self._step + 1 - first).astype(np.int32)
        pending, self._pending = self._pending, {}
        for slot, count in pending.items():
            self._move(slot, count)

    def place(self, request: int, has: int, blocks: int, others: Others) -> int:
        counts, slot = self._counts, self._slot(request)
        counts.claimed = self.claimed
        gone = counts.far.get(request, 0)
        demoted = counts.place(request, has, blocks, others)
        self.homed = counts.homed
        if blocks:
            self._write(np.array([slot]), np.array([blocks]))
        self._demote(slot, counts.far[request] - gone)
        if counts.demotions:
            self.enter()
        for other, given in counts.demotions:
            self._demote(self._slot_of[other], given)
        return demoted

    def grow(self, request: int) -> int:
        sent = self._counts.grow(request)
        self.homed = self._counts.homed
        if sent:
            self._leaving.append(self._slot_of[request])
        return sent

    def grow_near(self, blocks: int) -> None:
        self._counts.grow_near(blocks)

    def release(self, request: int, blocks: int) -> None:
        self.enter()
        if request in self._slot_of:
            slot = self._slot_of[request]
            if slot in self._decoding:
                self.far_active -= self.far[request] - self._leaving.count(slot)
            self._leaving = [one for one in self._leaving if one != slot]
            self._remove(request)
            self.table.remove(slot)
        self._counts.release(request, blocks)

    def resize(self, l3_blocks: int) -> None:
        self.l3_blocks = l3_blocks
        self._counts.resize(l3_blocks)

    def lost(self) -> list[int]:
        return self._counts.lost()

    def _enter(self, full: Ids, newest: Ids) -> None:
        flags, entries = self.table.flags, self.table.entries
        flags[entries(full)] |= NEAR
        flags[entries(newest)] |= NEAR | PINNED

    def join(self, request: int, offset: int) -> None:
        self.enter()
        super().join(request, offset)
        self.far_active += self.far[request]

    def _demote(self, slot: int, count: int) -> None:
        """The newest full blocks in L1 of a sequence go to L3."""
        if count:
            self._move(slot, count)
            if slot in self._decoding:
                self.far_active += count

    def _move(self, slot: int, count: int) -> None:
        table = self.table
        rows = table.rows_of(slot, 0, int(table.blocks[slot]) - 1)
        near = rows[table.flags[rows * table.groups] & NEAR != 0]
        entries = table.entries(near[len(near) - count :])
        table.flags[entries] = table.flags[entries] & ~np.uint8(NEAR) | HOME

    def far_of(self, requests: list[int]) -> int:
        """Blocks in L3 of these sequences."""
        return sum(self.far[request] for request in requests)

    def read(self, ids: Ids) -> Bools:
        near: Bools = self.table.flags[ids] & NEAR != 0
        return near

    def after_reads(self) -> None:
        """Blocks whose successors took their place in this step leave L1."""
        if not self.lazy:
            for slot in self._leaving:  # not counted by `grow` until now
                self._demote(slot, 1)
        elif self._leaving:
            for slot in self._leaving:
                self._pending[slot] = self._pending.get(slot, 0) + 1
            self.far_active += len(self._leaving)
        self._leaving = []
