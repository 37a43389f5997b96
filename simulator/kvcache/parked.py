"""KV that nobody reads now, in L3 by the ids of its blocks: prefixes of prompts that may come again, sessions between turns.

Sequences that run are in L1 alone; what they leave there stays until its place is needed (`prefix.py`) or for
`demote_after`, then goes to L3, if it is not there yet (inclusive: what is brought back keeps its copy, and leaves L1 for
free the next time). With `immediate` it is written to L3 as soon as a block is full. L3 forgets what was used longest ago
(of a prompt its last blocks first, so that heads outlive tails), and what has not been used for `drop_after`.

Replicas that share a pool share this: one capacity, one order of use, one copy of a block whoever wrote it. What a replica has
given to write-back it finds itself at once; the others find it when its last byte is in the pool.
Not modelled: partial blocks; who reads a block that is still on its way reads it from the pool all the same.
Cost: O(1) a block.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from math import inf
from typing import Protocol


class Writer(Protocol):
    """Far memory of one replica: raw bytes, in the order in which they were given to it."""

    sent: float  # given to write-back

    def in_pool(self) -> float:
        """Of them, those that are in the pool by now."""


class Parked:
    def __init__(self, capacity: int, drop_after: float = inf):
        self.capacity, self.drop_after = capacity, drop_after
        # id -> when it was used last (s), the longest ago first; a dict would look for its first among all that have left
        self._last: OrderedDict[int, float] = OrderedDict()
        self._coming: dict[int, tuple[Writer, float]] = {}  # id -> who writes it, and up to what of its bytes
        self.moments, self.counts = array("d"), array("q")  # when the number of blocks changed (s), and to what
        self.written = 0  # blocks that were ever written
        self.dropped = 0  # of them, those that were forgotten

    @property
    def used(self) -> int:
        """Blocks that are there."""
        return len(self._last)

    def put(self, identity: int, now: float, by: Writer, size: float) -> bool:
        """A block of so many raw bytes that has left L1: whether it has to be written, which is then done `by` this one."""
        new = self._last.pop(identity, None) is None
        if not self.capacity:
            return False
        self._last[identity] = now
        self.written += new
        if new:
            self._coming[identity] = by, by.sent + size
        self._shrink(now)
        return new

    def _shrink(self, now: float) -> None:
        while len(self._last) > self.capacity or self._old(now):
            self._drop(next(iter(self._last)))
        self._note(now)

    def _drop(self, identity: int) -> None:
        del self._last[identity]
        self._coming.pop(identity, None)
        self.dropped += 1

    def resize(self, capacity: int, now: float) -> None:
        """There is room for so many blocks from now on."""
        self.capacity = capacity
        self._shrink(now)

    def lose(self, at: float, now: float) -> None:
        """All that was there at that time is incomplete."""
        while self._last and next(iter(self._last.values())) <= at:
            self._drop(next(iter(self._last)))
        self._note(now)

    def _note(self, now: float) -> None:
        """The number of blocks may have changed."""
        if self.moments and self.moments[-1] == now:
            self.counts[-1] = self.used
        elif self.used != (self.counts[-1] if self.counts else 0):
            self.moments.append(now)
            self.counts.append(self.used)

    def _old(self, now: float) -> bool:
        return bool(self._last) and next(iter(self._last.values())) + self.drop_after <= now

    def holds(self, identity: int, now: float, reader: Writer) -> bool:
        """Whether this replica finds the block."""
        last = self._last.get(identity)
        if last is None or last + self.drop_after <= now:
            return False
        coming = self._coming.get(identity)
        if coming is None or coming[0] is reader:
            return True
        by, upto = coming
        if by.in_pool() < upto - 1.0:  # pieces of write-back sum up to less than a byte of rounding
            return False
        del self._coming[identity]
        return True

    def use(self, ids: Sequence[int], now: float) -> None:
        """These blocks, in the order of the prompt, are read."""
        for identity in reversed(ids):
            if self._last.pop(identity, None) is not None:
                self._last[identity] = now
