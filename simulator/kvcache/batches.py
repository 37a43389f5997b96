"""Blocks that were last used together, and how far eviction has come in them (`paged_lru`)."""

from __future__ import annotations

import numpy as np

from simulator.kvcache.table import Ids
from simulator.kvcache.tier import Bools

NOBODY = np.zeros(0, np.bool_)


class Batch:
    """Rows in the order of use, layer by layer: all of them in layer 0, then all in layer 1. With `by_block`, row by row, all
    layers of each. Pages leave in that order; (`layer`, `at`) is the first one that is in L1.

    While a scan reads some of the rows again (`split`), these stand only in the layers that it has not come to. `decoding`: all
    rows belong to decoding sequences, so that every scan of these reads all of them."""

    def __init__(self, rows: Ids, layers: int, by_block: bool = False, decoding: bool = False):
        self.rows, self.by_block, self.decoding = rows, by_block and len(rows) > 1, decoding
        self.layer = self.at = 0
        self.end = layers  # layers that were used so far
        self.again, self.count = NOBODY, 0  # which rows the scan reads, how many
        self.missed = 0  # layers in which it missed all of these
        self.cuts: list[int] = []  # of the other layers: positions before which it missed them
        self._others: Ids | None = None  # positions of the other rows
        self._dirty: Ids | None = None  # positions of rows with pages without a home, once pages left
        self._first_dirty = 0
        self._passed: list[int] = []  # of each layer, position up to which pages left while all rows stood
        self._passed_others: list[int] = []  # while only the others did

    def split(self, again: Bools) -> None:
        """A scan begins that reads these of its rows (a flag each)."""
        self.again = again
        self.count = int(np.count_nonzero(again))
        self.missed, self.cuts, self._others = 0, [], None

    def singles(self) -> list[Batch]:
        """Row by row."""
        found = []
        for position in range(len(self.rows)):
            one = Batch(self.rows[position : position + 1], self.end, decoding=self.decoding)
            if len(self.again):
                one.again = self.again[position : position + 1]
                one.count = int(one.again[0])
            found.append(one)
        return found

    def standing(self, layer: int) -> int:
        """Its pages, none of which left, while a scan is at `layer`."""
        return len(self.rows) * self.end - self.count * (layer + 1)

    def hits(self, layer: int) -> int:
        """Rows that the scan finds in L1, in a layer that is at the edge or behind it."""
        if layer > self.layer or not self.at or not self.count:
            return self.count
        self.cuts.append(self.at)
        return self.count - int(np.count_nonzero(self.again[: self.at]))

    def take(self, most: int, layer: int, clean: Bools) -> int:
        """Up to `most` pages leave, while a scan is at `layer`: whole layers, or what stands of one. How many. `clean`: rows
        that have a home."""
        size = len(self.rows)
        if self.count and self.layer <= layer:
            if self.count == size:
                self.layer, self.at = min(layer + 1, self.end), 0
                return 0
            if self._others is None:
                self._others = np.flatnonzero(~self.again)
            begin = int(np.searchsorted(self._others, self.at))
            left = len(self._others) - begin
            taken = min(left, most)
            if taken:
                to = size if taken == left else int(self._others[begin + taken - 1]) + 1
                self._note(clean, self.layer, self.layer + 1, to, others=True)
        else:
            left, to = size - self.at, self.at + most
            taken = min(left, most)
            if not self.at and most >= size:
                layers = min(most // size, self.end - self.layer)
                self._note(clean, self.layer, self.layer + layers, size)
                self.layer += layers
                return layers * size
            self._note(clean, self.layer, self.layer + 1, min(to, size))
        self.layer, self.at = (self.layer + 1, 0) if taken == left else (self.layer, to)
        return taken

    def _note(self, clean: Bools, first: int, last: int, to: int, others: bool = False) -> None:
        """Of these layers, what stands before position `to` left."""
        dirty = self._dirty
        if dirty is None:
            dirty = self._dirty = np.flatnonzero(~clean[self.rows])
            self._first_dirty = int(dirty[0]) if len(dirty) else len(self.rows)
        if to > self._first_dirty:
            passed = self._passed_others if others else self._passed
            passed += [0] * (last - len(passed))
            passed[first:last] = [to] * (last - first)

    def left(self, layers: int, clean: Bools) -> list[tuple[Ids, Bools]]:
        """Rows without a home of which pages left since this was asked last, and in which layers, if there are any."""
        if self._dirty is None or not (self._passed or self._passed_others):
            return []
        passed, self._passed = self._passed, []
        passed_others, self._passed_others = self._passed_others, []
        self._dirty = dirty = self._dirty[~clean[self.rows[self._dirty]]]
        if not len(dirty):
            return []
        found = np.zeros((len(dirty), layers), np.bool_)
        found[:, : len(passed)] = dirty[:, None] < np.array(passed, np.int64)
        if passed_others:
            others = dirty[:, None] < np.array(passed_others)
            if len(self.again):
                others &= ~self.again[dirty][:, None]
            found[:, : len(passed_others)] |= others
        return [(self.rows[dirty], found)]

    def forget(self) -> None:
        """Homes were lost."""
        self._dirty = None

    def misses(self) -> Ids:
        """In how many layers the scan missed each of the rows that it read."""
        positions = np.flatnonzero(self.again)
        if not self.cuts:
            return np.full(len(positions), self.missed)
        cuts = np.sort(np.array(self.cuts))
        found: Ids = self.missed + len(cuts) - np.searchsorted(cuts, positions, side="right")
        return found

    def near(self, layers: int) -> Bools:
        """Which layers of each row are in L1."""
        found = np.zeros((len(self.rows), layers), np.bool_)
        found[:, self.layer + 1 :] = True
        if self.layer < layers:
            found[self.at :, self.layer] = True
        return found

    def drop(self, gone: Bools) -> None:
        """These rows are elsewhere now."""
        stay = ~gone
        self.at = int(np.count_nonzero(stay[: self.at]))
        self.rows = self.rows[stay]
        self.again, self.count, self._dirty = NOBODY, 0, None
