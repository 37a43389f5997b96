"""Where the blocks of the running sequences are: L1 in HBM, or L3 in the pool (design 3.2).

A block of a sequence is `near` (all its pages in L1) or `far` (home in L3); L2 only stages. Two policies:

    split  Every sequence keeps its newest block and an equal share of the others in L1, the rest has its home in L3. When
           a new sequence needs its share, the others give up what they have above theirs (write-back). A full block
           without L1 room goes to L3; its successor takes its place. A dense scan promotes nothing. Tiers are exclusive.
    lru    L1 keeps the most recently used pages, whole pages move on a miss. A dense decode step scans all pages of all
           layers in the same order, so the stack distance of a page of layer l is what was touched since: the rest of
           the last scan and the beginning of this one. It is a hit if that fits in L1, and a scan larger than L1 never
           hits: LRU at the granularity of a layer, exact while the scan does not change, at most one layer too pessimistic
           while it grows, and too optimistic by at most one scan after a release that brings it under L1. A page is
           written to L3 when it is first evicted and keeps its home there (inclusive): evicting a clean page is free.

The newest, partial block of a sequence is always near, and under KV policies as many more as what never leaves HBM takes
(`near`: a sequence has at least so many of its blocks in L1, `Geometry.near_blocks`). `far` counts blocks per sequence; near
ones are the others.
Conservation: l1_used + l3_used = blocks of all sequences (split). Blocks are claimed when a request is admitted and placed
when they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

Others = Callable[[], Iterable[tuple[int, int]]]


class Residency(Protocol):
    l1_blocks: int
    l3_blocks: int
    l1_used: int
    l3_used: int
    far: dict[int, int]
    claimed: int  # blocks that admitted requests have or may still place
    homed: int  # pages (one layer of a block) that were ever given a home in L3

    def capacity(self) -> int:
        """Blocks that all sequences together can have."""

    def place(self, request: int, has: int, blocks: int, others: Others) -> int:
        """A sequence with `has` blocks writes `blocks` more of its prompt; `others()` gives (request, blocks) of all.
        Returns blocks of others demoted for it."""

    def grow(self, request: int) -> int:
        """One more block of a decoding sequence: 1 if a block goes to L3 for it, else 0."""

    def grow_near(self, blocks: int) -> None:
        """`blocks` new blocks for which L1 has room."""

    def release(self, request: int, blocks: int) -> None:
        """A sequence ends or is preempted."""

    def near_room(self) -> int:
        """New blocks that fit without moving any."""

    def settled(self) -> bool:
        """Nothing is far: steps read no page from the pool until near_room() is used up."""

    def resize(self, l3_blocks: int) -> None:
        """L3 has room for so many blocks from now on."""

    def lost(self) -> list[int]:
        """What L3 holds is incomplete: the sequences that had blocks nowhere else, which have to be released."""

    def layers(self, far: int, blocks: int, layers: int) -> list[int]:
        """Far pages of each layer that a step reads, whose sequences read `blocks` blocks, `far` of them far."""

    def take_evicted(self) -> int:
        """Pages that the last step wrote to L3 because it evicted them for the first time."""


class Split:
    def __init__(self, l1_blocks: int, l3_blocks: int, layers: int, near: int = 1):
        self.l1_blocks, self.l3_blocks, self.layers_per_block, self.near = l1_blocks, l3_blocks, layers, near
        self.l1_used = self.l3_used = self.claimed = self.homed = 0
        self.far: dict[int, int] = {}
        self.demotions: list[tuple[int, int]] = []  # of the last `place`: sequence, blocks that it gave up

    def capacity(self) -> int:
        return self.l1_blocks + self.l3_blocks

    def near_room(self) -> int:
        return self.l1_blocks - self.l1_used

    def settled(self) -> bool:
        return self.l3_used == 0

    def place(self, request: int, has: int, blocks: int, others: Others) -> int:
        room = self.l1_blocks - self.l1_used
        gone = self.far.setdefault(request, 0)
        self.demotions.clear()
        near, demoted = blocks, 0
        if room < blocks:
            pinned = self.near * len(self.far)  # at most: sequences may be shorter, which leaves the sum of shares within L1
            share = min(1.0, max(0, self.l1_blocks - pinned) / max(1, self.claimed - pinned))
            near = self.near + int(share * max(0, has + blocks - self.near)) - (has - gone)
            near = max(near, room, blocks - (self.l3_blocks - self.l3_used))
            near = min(near, blocks)
            if near > room:
                demoted = self._demote(near - room, share, request, others)
                near = room + demoted
        self.far[request] = gone + blocks - near
        self.l1_used += near
        self._home(blocks - near)
        return demoted

    def _home(self, blocks: int) -> None:
        self.l3_used += blocks
        self.homed += blocks * self.layers_per_block

    def _demote(self, need: int, share: float, request: int, others: Others) -> int:
        """Up to `need` blocks of sequences that have more than their share in L1 go to L3."""
        demoted = 0
        for other, has in others():
            if other == request:
                continue
            spare = has - self.far.get(other, 0) - self.near - int(share * max(0, has - self.near))
            spare = min(spare, need - demoted, self.l3_blocks - self.l3_used)
            if spare > 0:
                self.far[other] += spare
                self.demotions.append((other, spare))
                self._home(spare)
                self.l1_used -= spare
                demoted += spare
        return demoted

    def keep_near(self, request: int, has: int, others: Others) -> int:
        """A decoding sequence with `has` blocks is about to grow. Blocks of others demoted so that it has `near` of them."""
        self.demotions.clear()
        if self.l1_used < self.l1_blocks or has - self.far[request] >= self.near:
            return 0
        return self._demote(1, 0.0, request, others)

    def grow(self, request: int) -> int:
        if self.l1_used < self.l1_blocks:
            self.l1_used += 1
            return 0
        self._home(1)
        self.far[request] += 1
        return 1

    def grow_near(self, blocks: int) -> None:
        self.l1_used += blocks

    def absent(self, request: int, blocks: int) -> int:
        """Of a sequence's blocks, those that are not in L1."""
        return self.far.get(request, 0)

    def release(self, request: int, blocks: int) -> None:
        far = self.far.pop(request, 0)
        self.l3_used -= far
        self.l1_used -= blocks - far

    def resize(self, l3_blocks: int) -> None:
        self.l3_blocks = l3_blocks

    def lost(self) -> list[int]:
        return [request for request, blocks in self.far.items() if blocks]

    def layers(self, far: int, blocks: int, layers: int) -> list[int]:
        return [far] * layers

    def take_evicted(self) -> int:
        return 0


class Lru:
    def __init__(self, l1_blocks: int, l3_blocks: int, layers: int, near: int = 1):
        self.l1_blocks, self.l3_blocks, self.near = l1_blocks, l3_blocks, near
        self.l1_used = self.l3_used = self.claimed = self.homed = 0
        self.far: dict[int, int] = {}  # always 0: what is far depends on the layer
        self._total = 0  # blocks of all sequences
        self._scan = 0  # blocks that the last step read or wrote, as far as they still exist
        self._written = 0  # prompt blocks written since
        self._returned = 0  # blocks of sequences that were not in the last scans and are in the next one
        self._home = 0  # pages with a home in L3
        self._layers = layers
        self._evicted = 0

    def capacity(self) -> int:
        return max(self.l1_blocks, self.l3_blocks)

    def near_room(self) -> int:
        return self.l1_blocks - self._total

    def settled(self) -> bool:
        if max(self._scan, self._total) > self.l1_blocks:
            return False
        self._scan = self._total  # scans that fit leave everything in L1
        return True

    def place(self, request: int, has: int, blocks: int, others: Others) -> int:
        self.far[request] = 0
        self._written += blocks
        self._place(blocks)
        return 0

    def reads_at_once(self, blocks: int) -> None:
        """Blocks that were just written are read by this very step: the scan has them once."""
        self._written -= blocks

    def returns(self, blocks: int) -> None:
        """A sequence that sat out of steps is read again: where not all fits, others have taken the place of these blocks."""
        self._returned += blocks

    def grow(self, request: int) -> int:
        self._place(1)
        return 0

    def grow_near(self, blocks: int) -> None:
        self._place(blocks)

    def _place(self, blocks: int) -> None:
        self._total += blocks
        self.l1_used = min(self._total, self.l1_blocks)

    def absent(self, request: int, blocks: int) -> int:
        """Of a sequence's blocks, those that are not in L1: its share of all that are not."""
        return -(-blocks * (self._total - self.l1_used) // self._total) if self._total else 0

    def release(self, request: int, blocks: int) -> None:
        self.far.pop(request, None)
        if blocks:
            self._home -= self._home * blocks // self._total
        self._scan = max(0, self._scan - blocks)
        self._place(-blocks)
        self.l3_used = -(-self._home // self._layers)

    def resize(self, l3_blocks: int) -> None:
        self.l3_blocks = l3_blocks

    def lost(self) -> list[int]:
        self._home = self.l3_used = 0  # copies of what is in L1 have to be written again when it is evicted
        return list(self.far) if self._total > self.l1_blocks else []

    def layers(self, far: int, blocks: int, layers: int) -> list[int]:
        """`blocks` is the scan: one page a layer and block; the partial block of each sequence is pinned in L1."""
        pinned = self.near * len(self.far)
        room = self.l1_blocks - pinned
        before, now = max(0, self._scan - pinned), max(0, blocks - pinned)
        back, self._returned = self._returned if self._total > self.l1_blocks else 0, 0
        least = min(now, back)
        pages = [now if before * (layers - 1 - layer) + now * (layer + 1) > room * layers else least for layer in range(layers)]
        missed = sum(pages)
        self._scan, self._written = blocks + self._written, 0
        self._evicted = max(0, missed - self._home)
        self._home += self._evicted
        self.homed += self._evicted
        self.l3_used = -(-self._home // layers)
        return pages

    def take_evicted(self) -> int:
        evicted, self._evicted = self._evicted, 0
        return evicted


EVICTIONS: dict[str, type[Split] | type[Lru]] = {"split": Split, "lru": Lru}
