"""Which pages of a sequence a decode step reads, when attention is sparse: roles of layers, and a seeded page-set process.

Roles: the first `dense_layers` layers read everything. Of the rest every `select_every`-th layer selects (at most `budget`
tokens or a `fraction` of the context, in whole pages, the newest one always among them); the layers after it reuse its set.
A *group* is the layers that share one set. A selecting layer also reads an index, `index` bytes per byte of its KV, once in
`refresh` steps (the mean, in every step).

The set of a sequence and group is drawn, not computed (what a model would select is an input: `overlap`):

    at its first decode step   uniformly among the full pages
    every `refresh` steps      each page of the set is replaced with probability (1 - overlap) / (1 - floor) by one that was
                               not in the set, uniformly; the first `floor` of the set (query-agnostic) is never replaced
    as the context grows       one page joins when the budget allows it: the page just filled if nothing else is left out

so that `overlap` is the expected share of a set that was in the one before, the newest page aside. Where more pages would
have to be replaced than are left out, some stay (the overlap cannot be as small). Independent between groups and sequences;
popularity of pages is uniform. A prompt piece reads its whole past.

Randomness comes in the order of steps and slots only, so the sets do not depend on time, tiers or predictors.
Cost: a few vector operations over the selected pages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.kvcache.table import CHOSEN, Ids, PageTable
from simulator.scenario.resolved import Selection

ROUNDS = 16  # attempts to draw a page that is not in the set; then the old one stays


@dataclass(frozen=True)
class Group:
    """Layers that share their page sets: the first one and how many."""

    first: int
    layers: int
    selects: bool


def groups_of(selection: Selection, layers: int, alone: bool = False) -> tuple[Group, ...]:
    """The groups of a model. Dense layers are one group, or with `alone` each its own."""
    dense = layers if selection.kind == "dense" else min(selection.dense_layers, layers)
    if alone:
        found = [Group(layer, 1, False) for layer in range(dense)]
    else:
        found = [Group(0, dense, False)] if dense else []
    for first in range(dense, layers, selection.select_every):
        found.append(Group(first, min(selection.select_every, layers - first), True))
    return tuple(found)


def most_blocks(selection: Selection, blocks: Ids, block_tokens: int) -> Ids:
    """Blocks that a step selects of sequences with so many, the newest one among them."""
    if selection.fraction:
        budget = np.ceil(selection.fraction * blocks - 1e-9).astype(np.int64)
    else:
        budget = np.full(len(blocks), -(-selection.budget // block_tokens))
    most: Ids = np.minimum(np.maximum(budget, 1), blocks)
    return most


def tokens_read(selection: Selection, contexts: NDArray[np.int64], block_tokens: int, layers: int) -> int:
    """Tokens that a decode step reads over sequences of these contexts, mean over the layers; an index counts as what it
    has the bytes of."""
    blocks = -(-contexts // block_tokens)
    chosen = most_blocks(selection, blocks, block_tokens)
    tail = contexts - (blocks - 1) * block_tokens
    read = int(((chosen - 1) * block_tokens + tail).sum())
    total, dense = int(contexts.sum()), min(selection.dense_layers, layers)
    selecting = -(-(layers - dense) // selection.select_every)
    return round((dense * total + (layers - dense) * read + selecting * selection.index / selection.refresh * total) / layers)


class PageSets:
    """The sets of all decoding sequences. Groups that do not select have none."""

    def __init__(
        self, selection: Selection, groups: tuple[Group, ...], table: PageTable, block_tokens: int, rng: np.random.Generator
    ):
        self.selection, self.table, self.block_tokens, self._rng = selection, table, block_tokens, rng
        self._groups = np.array([number for number, group in enumerate(groups) if group.selects], np.int64)
        self._replace = (1.0 - selection.overlap) / (1.0 - selection.floor) if selection.floor < 1.0 else 0.0
        self._sets = np.zeros((0, len(self._groups), 0), np.int32)  # slot, group, place -> entry
        self._first = np.zeros(0, np.int32)  # of each entry, for the moment: where it was drawn first
        self.size = np.zeros(0, np.int64)  # of each slot
        self._age = np.zeros(0, np.int64)  # steps since the slot's first

    def join(self, slot: int) -> None:
        """A sequence begins to decode: its first sets."""
        if slot >= len(self.size):
            more = slot + 1 - len(self.size)
            self._sets = np.concatenate([self._sets, np.zeros((more, *self._sets.shape[1:]), np.int32)])
            self.size = np.concatenate([self.size, np.zeros(more, np.int64)])
            self._age = np.concatenate([self._age, np.full(more, -1)])
        self._age[slot] = -1
        self.size[slot] = 0
        self.grow(slot)

    def grow(self, slot: int) -> None:
        """The sequence has new blocks: its sets grow to what the budget allows."""
        blocks = int(self.table.blocks[slot])
        target = int(most_blocks(self.selection, np.array([blocks]), self.block_tokens)[0]) - 1
        size = int(self.size[slot])
        if target <= size:
            return
        if target > self._sets.shape[2]:
            wider = np.zeros((*self._sets.shape[:2], max(16, target, 2 * self._sets.shape[2])), np.int32)
            wider[:, :, : self._sets.shape[2]] = self._sets
            self._sets = wider
        flags, entries = self.table.flags, self._entries_of(slot, blocks - 1)
        for place, group in enumerate(self._groups):
            left_out = np.flatnonzero(flags[entries + group] & CHOSEN == 0)
            drawn = np.sort(self._rng.choice(left_out, target - size, replace=False))
            self._rng.shuffle(drawn)
            self._sets[slot, place, size:target] = chosen = entries[drawn] + group
            flags[chosen] |= CHOSEN
        self.size[slot] = target

    def _entries_of(self, slot: int, blocks: int) -> Ids:
        return self.table.rows_of(slot, 0, blocks) * self.table.groups

    def advance(self, slots: Ids) -> None:
        """The next step of these sequences, in order: where it is time, replace what leaves the sets."""
        age = self._age
        age[slots] += 1
        if self._replace <= 0.0 or not len(self._groups):
            return
        due = slots[(age[slots] > 0) & (age[slots] % self.selection.refresh == 0)]
        if not len(due):
            return
        size = self.size[due]
        kept = np.rint(self.selection.floor * size).astype(np.int64)
        width = int(size.max())
        place = np.arange(width)
        open_places = (place >= kept[:, None]) & (place < size[:, None])  # slot, place
        chance = self._rng.random((len(due), len(self._groups), width), dtype=np.float32)
        leaves = (chance < self._replace) & open_places[:, None, :]
        of, where = np.divmod(np.flatnonzero(leaves), width)
        which, group = np.divmod(of, len(self._groups))
        self._exchange(due[which], group, where)

    def _exchange(self, slot: Ids, group: Ids, where: Ids) -> None:
        """Others come in for what stands in these places, as far as they are found."""
        table, flags, rng = self.table, self.table.flags, self._rng
        if len(self._first) < len(flags):
            self._first = np.zeros(len(flags), np.int32)
        first = self._first
        full, number = table.blocks[slot].astype(np.int64) - 1, self._groups[group]
        new = np.full(len(slot), -1, np.int64)
        missing = np.arange(len(slot))
        for _ in range(ROUNDS):
            drawn = (rng.random(len(missing)) * full[missing]).astype(np.int64)
            entry = table.row_at(slot[missing], drawn) * table.groups + number[missing]
            order = np.arange(len(entry))
            first[entry[::-1]] = order[::-1]
            free = (flags[entry] & CHOSEN == 0) & (first[entry] == order)
            taken = entry[free]
            new[missing[free]] = taken
            flags[taken] |= CHOSEN
            missing = missing[~free]
            if not len(missing):
                break
        found = new >= 0
        places = slot[found], group[found], where[found]
        flags[self._sets[places]] &= ~np.uint8(CHOSEN)
        self._sets[places] = new[found]

    def entries(self, slots: Ids) -> list[Ids]:
        """Entries of the sets of these sequences, for each group that selects; newest blocks are not in them."""
        size = self.size[slots]
        inside = np.arange(size.max(initial=0)) < size[:, None]
        sets = self._sets[slots, :, : inside.shape[1]].astype(np.int64)
        return [sets[:, number][inside] for number in range(len(self._groups))]

    @property
    def bytes(self) -> int:
        return self._sets.nbytes + self._first.nbytes + self.size.nbytes + self._age.nbytes
