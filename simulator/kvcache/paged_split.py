"""Per-sequence split, block by block: `residency.Split` says how many blocks of each sequence are in L1, this says which.

Of the full blocks the newest leave first. Exclusive: a block is in L1 or in L3, and moves once; reading moves nothing, so a
step costs only what changes.
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

    def place(self, request: int, has: int, blocks: int, others: Others) -> int:
        counts, slot = self._counts, self._slot(request)
        counts.claimed = self.claimed
        gone = counts.far.get(request, 0)
        demoted = counts.place(request, has, blocks, others)
        self.homed = counts.homed
        if blocks:
            self._write(np.array([slot]), np.array([blocks]))
        self._demote(slot, counts.far[request] - gone)
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
        super().join(request, offset)
        self.far_active += self.far[request]

    def _demote(self, slot: int, count: int) -> None:
        """The newest full blocks in L1 of a sequence go to L3."""
        if not count:
            return
        table = self.table
        rows = table.rows_of(slot, 0, int(table.blocks[slot]) - 1)
        near = rows[table.flags[rows * table.groups] & NEAR != 0]
        entries = table.entries(near[len(near) - count :])
        table.flags[entries] = table.flags[entries] & ~np.uint8(NEAR) | HOME
        if slot in self._decoding:
            self.far_active += count

    def far_of(self, requests: list[int]) -> int:
        """Blocks in L3 of these sequences."""
        return sum(self.far[request] for request in requests)

    def take_demoted(self) -> Ids:
        """None: what leaves L1 is the newest, and goes to L3 for good."""
        return np.zeros(0, np.int64)

    def read(self, ids: Ids) -> Bools:
        near: Bools = self.table.flags[ids] & NEAR != 0
        return near

    def after_reads(self) -> None:
        """Blocks whose successors took their place in this step leave L1."""
        for slot in self._leaving:  # not counted by `grow` until now
            self._demote(slot, 1)
        self._leaving = []
