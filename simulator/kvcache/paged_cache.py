"""L1 as a cache over L3 with an eviction policy (`eviction`), page by page.

What a step reads comes into L1, what it writes as well, in competition with what is there. A page is written to L3 when it
first leaves L1 (`lazy`) or as soon as its block is full (`immediate`), and keeps its home there: evicting a clean page is
free. With policies for which the order within a scan counts (`sequential`), dense layers are groups of their own, so that
what layer 0 brings in displaces what layer 1 was about to read, as it does in a real step.
"""

from __future__ import annotations

import numpy as np

from simulator.kvcache.eviction import POLICIES, Hot, Policy
from simulator.kvcache.paged import Paged
from simulator.kvcache.residency import Others
from simulator.kvcache.table import HOME, KEPT, NEAR, PINNED, Ids
from simulator.kvcache.tier import Bools, Tier
from simulator.scenario.resolved import Placement, Selection


class Cache(Paged):
    """What every policy has in common: blocks come and go, pages get their homes."""

    def __init__(
        self, l1_blocks: int, l3_blocks: int, layers: int, block_tokens: int, selection: Selection, placement: Placement,
        page_value: float, rng: np.random.Generator, sequential: bool,
    ):  # fmt: skip
        super().__init__(l1_blocks, l3_blocks, layers, block_tokens, selection, placement, page_value, rng, sequential)
        self.immediate = placement.write_back == "immediate"
        self._total = 0  # blocks of all sequences
        self._home = 0  # pages with a home in L3
        self.l1_used = 0
        self.l3_used = 0

    def capacity(self) -> int:
        return max(self.l1_blocks, self.l3_blocks)

    def near_room(self) -> int:
        return self.l1_blocks - self._total

    def place(self, request: int, has: int, blocks: int, others: Others) -> int:
        self.far[request] = 0
        slot = self._slot(request)
        self._count(blocks)
        if blocks:
            self._write(np.array([slot]), np.array([blocks]))
        return 0

    def grow(self, request: int) -> int:
        self._count(1)
        return 0

    def grow_near(self, blocks: int) -> None:
        self._count(blocks)

    def _count(self, blocks: int) -> None:
        self._total += blocks
        self.l1_used = min(self._total, self.l1_blocks)

    def release(self, request: int, blocks: int) -> None:
        self.far.pop(request, None)
        if request in self._slot_of:
            slot = self._slot_of[request]
            self._set_home(self._home - self._drop(self._remove(request)))
            self.table.remove(slot)
        self._count(-blocks)

    def resize(self, l3_blocks: int) -> None:
        self.l3_blocks = l3_blocks

    def _drop(self, entries: Ids) -> int:
        """These are no more: pages that had a home."""
        raise NotImplementedError

    def _set_home(self, pages: int) -> None:
        self._home = pages
        self.l3_used = -(-pages // self.layers_per_block)

    def _homed(self, pages: int) -> None:
        """Pages got a home: they are to be written to L3."""
        self._set_home(self._home + pages)
        self.homed += pages
        self._to_l3 += pages

    def _writes(self, pages: int) -> bool:
        """Whether pages that change no more are written at once. What L3 has no room for stays in L1: then all of it fits
        there."""
        return self.immediate and self._home + pages <= self.l3_blocks * self.layers_per_block

    def after_reads(self) -> None:
        return None


class PagedCache(Cache):
    """With a key per page."""

    def __init__(
        self, l1_blocks: int, l3_blocks: int, layers: int, block_tokens: int, selection: Selection, placement: Placement,
        page_value: float, rng: np.random.Generator,
    ):  # fmt: skip
        kind = POLICIES[placement.eviction]
        super().__init__(l1_blocks, l3_blocks, layers, block_tokens, selection, placement, page_value, rng, kind.sequential)
        policy: Policy = Hot(self, placement.threshold, placement.adapt) if kind is Hot else kind(self)
        self.l1 = Tier(policy, l1_blocks * layers, weight=self.weight)
        self._demoted: list[Ids] = []  # pages that left L1

    def settled(self) -> bool:
        return self.l1.used == self.table.live * self.layers_per_block and self._total <= self.l1_blocks

    def _drop(self, entries: Ids) -> int:
        self.l1.drop(entries)
        return self.weigh(entries[self.table.flags[entries] & HOME != 0])

    def lost(self) -> list[int]:
        """Of the others, what is in L1 has to be written again when it is evicted."""
        flags = self.table.flags
        away = np.flatnonzero((flags & HOME != 0) & (flags & NEAR == 0))
        slots = set(self.table.sequence[away // self.table.groups].tolist())
        flags[flags & NEAR != 0] &= ~np.uint8(HOME)
        self._set_home(self.weigh(away))
        return [request for request, slot in self._slot_of.items() if slot in slots]

    def _enter(self, full: Ids, newest: Ids) -> None:
        table = self.table
        self.l1.resize(table.rows * table.groups)
        pinned = table.entries(newest)
        table.flags[pinned] |= PINNED | NEAR
        self.l1.insert(pinned, np.full(len(pinned), np.inf))
        self._leave(self.l1.shrink())
        if len(full):
            layer_by_layer = (full * table.groups + np.arange(table.groups)[:, None]).ravel()
            self.read(layer_by_layer)
            self._give_home(layer_by_layer[table.flags[layer_by_layer] & NEAR == 0])  # no room for them
            self._full(layer_by_layer)

    def _unpin(self, rows: Ids) -> None:
        super()._unpin(rows)
        entries = self.table.entries(rows)
        as_new = np.zeros(len(entries), np.bool_)  # a policy never gave them a key
        self.l1.rekey(entries, self.l1.policy.keys(self.l1, entries, as_new))
        self._full(entries)

    def _full(self, entries: Ids) -> None:
        """These pages change no more."""
        if self._writes(self.weigh(entries)):
            self._give_home(entries)

    def read(self, ids: Ids) -> Bools:
        held, came, gone = self.l1.use(ids)
        self.table.flags[came] |= NEAR
        self._leave(gone)
        return held

    def _leave(self, gone: Ids) -> None:
        if len(gone):
            self.table.flags[gone] &= ~np.uint8(NEAR)
            self._give_home(gone)
            if self._selects and not self.inclusive:
                self._demoted.append(gone)

    def _give_home(self, ids: Ids) -> None:
        flags = self.table.flags
        dirty = ids[flags[ids] & HOME == 0]
        if len(dirty):
            flags[dirty] |= HOME
            self._homed(self.weigh(dirty))

    def take_demoted(self) -> Ids:
        """Pages of groups that select which left L1 since last asked, and are in neither tier now."""
        gone = np.unique(np.concatenate(self._demoted)) if self._demoted else np.zeros(0, np.int64)
        self._demoted = []
        state = self.table.flags[gone] & (NEAR | KEPT | HOME)
        found: Ids = gone[(state == HOME) & ~self.table.dense[gone % self.table.groups]]
        return found

    @property
    def bytes(self) -> int:
        return super().bytes + self.l1.bytes
