"""KV that nobody reads now, in L3 by the ids of its blocks: prefixes of prompts that may come again, sessions between turns.

Sequences that run are in L1 alone; what they leave there stays until its place is needed (`prefix.py`) or for
`demote_after`, then goes to L3, if it is not there yet (inclusive: what is brought back keeps its copy, and leaves L1 for
free the next time). With `immediate` it is written to L3 as soon as a block is full. L3 forgets what was used longest ago
(of a prompt its last blocks first, so that heads outlive tails), and what has not been used for `drop_after`.
Not modelled: blocks in L3 that several replicas find, partial blocks.
Cost: O(1) a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf


class Parked:
    def __init__(self, capacity: int, drop_after: float = inf):
        self.capacity, self.drop_after = capacity, drop_after
        self._last: dict[int, float] = {}  # id -> when it was used last (s), the longest ago first
        self.written = 0  # blocks that were ever written
        self.dropped = 0  # of them, those that were forgotten

    @property
    def used(self) -> int:
        """Blocks that are there."""
        return len(self._last)

    def put(self, identity: int, now: float) -> bool:
        """A block that has left L1: whether it has to be written."""
        new = self._last.pop(identity, None) is None
        if not self.capacity:
            return False
        self._last[identity] = now
        self.written += new
        while len(self._last) > self.capacity or self._old(now):
            del self._last[next(iter(self._last))]
            self.dropped += 1
        return new

    def _old(self, now: float) -> bool:
        return bool(self._last) and next(iter(self._last.values())) + self.drop_after <= now

    def holds(self, identity: int, now: float) -> bool:
        return self._last.get(identity, -inf) + self.drop_after > now

    def use(self, ids: Sequence[int], now: float) -> None:
        """These blocks, in the order of the prompt, are read."""
        for identity in reversed(ids):
            if self._last.pop(identity, None) is not None:
                self._last[identity] = now
