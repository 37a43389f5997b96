"""The address translation unit of a board: a set-associative TLB and one page-table walker.

Modelled: `entries` translations in sets of `ways`, least recently used out first; a hit takes `hit` seconds and is pipelined;
a miss adds a `walk`, and walks follow each other (one walker). The reach is entries x page: what is read in a circle larger
than that misses always (LRU on a cyclic stream), so that a stream is bounded by page / walk bytes/s. A shootdown drops the
translations of a range (freed or moved blocks) and of nothing else.
Not modelled: the walk's own memory accesses beyond `walk`; address spaces.
Events: none; the DMA engine asks when it takes up a descriptor.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TranslationParameters:
    entries: int
    ways: int
    page: float  # bytes
    hit: float  # s
    walk: float  # s, on top of a hit

    @property
    def reach(self) -> float:
        """Bytes that are translated without a walk once they have been touched."""
        return self.entries * self.page


class Translation:
    def __init__(self, spec: TranslationParameters):
        if spec.entries % spec.ways:
            raise ValueError(f"{spec.entries} TLB entries are not whole sets of {spec.ways} ways")
        self.spec = spec
        self.hits = self.misses = self.dropped = 0
        self._sets: list[dict[int, None]] = [{} for _ in range(spec.entries // spec.ways)]  # page -> None, oldest first

    def look_up(self, address: float, size: float) -> int:
        """Translate a range; returns how many of its pages had to be walked."""
        page, entries = self.spec.page, self.spec.entries
        first, last = int(address // page), int(-(-(address + size) // page))
        missed = self._touch(range(first, min(last, first + entries)))
        if last > first + entries:  # the TLB is full of this range now: the rest misses, and its end is what stays
            missed += last - first - entries
            self._touch(range(max(first, last - entries), last))
        self.misses += missed
        self.hits += last - first - missed
        return missed

    def _touch(self, pages: range) -> int:
        """The pages become the youngest of their sets; returns how many of them were not there."""
        sets, ways, missed = self._sets, self.spec.ways, 0
        count = len(sets)
        for number in pages:
            held = sets[number % count]
            if number in held:
                del held[number]  # and in again, as the youngest
            else:
                missed += 1
                if len(held) >= ways:
                    del held[next(iter(held))]
            held[number] = None
        return missed

    def shoot_down(self, address: float, size: float) -> int:
        """Drop the translations of a range; returns how many there were."""
        page = self.spec.page
        dropped = 0
        for number in range(int(address // page), int(-(-(address + size) // page))):
            held = self._sets[number % len(self._sets)]
            if number in held:
                del held[number]
                dropped += 1
        self.dropped += dropped
        return dropped
