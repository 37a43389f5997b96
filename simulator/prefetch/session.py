"""The `session` prefetcher: the parked KV of a session is fetched into L2 before its next turn comes (design 3.5).

When a turn has ended, the next one is predicted with the chance `coverage`, and its fetch begins `lead` seconds before that
arrives (at once, if it arrives earlier). For n right pages n (1 - accuracy) / accuracy wrong ones - of sessions that do not
come back - are fetched among them, which use link and L2 for nothing. Fetches are served one after the other, after reads on
demand (which stop them) and beside write-back. A turn that is admitted takes what has arrived for it; the rest of its fetch is
given up and read on demand. A fetch that finds no room in L2 is cut, its first blocks stay.

Whoever serves says what time demand took (`busy`), and that a turn is there (`take`) - or at another replica: it is expected
where the one before it was. Times follow from these alone, so that they do not depend on how steps are grouped. Before a pool
that replicas share, fetches are transfers of the class of prefetches, and times are theirs (`scheduler/session_flows.py`).
Events: none of its own; `next_at` is when it wants to be asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import ceil, floor, inf

import numpy as np

from simulator.prefetch.pipeline import Counts
from simulator.scenario.resolved import Prefetch


@dataclass(slots=True)
class Fetch:
    ids: list[int]  # of the blocks that are right
    wrong: int  # blocks
    asked: int  # blocks, right and wrong, that were proposed
    begin: float  # s, when it is issued
    start: float  # s, when its first byte moves
    finish: float  # s

    @property
    def blocks(self) -> int:
        return len(self.ids) + self.wrong


class SessionPrefetch:
    def __init__(self, spec: Prefetch, rng: np.random.Generator, block_seconds: float, latency: float, room: int):
        """`room`: blocks of L2; a block takes `block_seconds` on the path."""
        self.spec, self._rng = spec, rng
        self._block, self._latency, self._room = block_seconds, latency, room
        self._predicted: list[tuple[float, int]] = []  # heap: when to fetch for which turn
        self._fetches: dict[int, Fetch] = {}  # turn -> its fetch, in the order of service
        self.held = 0  # blocks of L2 in use or reserved

    @property
    def next_at(self) -> float:
        return self._predicted[0][0] if self._predicted else inf

    def announce(self, turn: int, now: float, arrival: float) -> None:
        """A turn has ended at `now`, and the next one will arrive then."""
        if self._rng.random() < self.spec.coverage:
            heappush(self._predicted, (max(now, arrival - self.spec.lead), turn))

    def due(self, now: float) -> int | None:
        """A turn for which a fetch begins by now."""
        return heappop(self._predicted)[1] if self.next_at <= now else None

    def fetch(self, turn: int, ids: Sequence[int], now: float) -> None:
        """Fetch these blocks for a turn, as far as L2 has room."""
        if not ids:
            return
        wrong = round(len(ids) * (1.0 - self.spec.accuracy) / self.spec.accuracy)
        asked, room = len(ids) + wrong, self._room - self.held
        right = min(len(ids), room * len(ids) // asked)
        kept = Fetch(list(ids[:right]), min(wrong, room - right) if right < len(ids) else wrong, asked, now, 0.0, 0.0)
        self.held += kept.blocks
        self._fetches[turn] = kept
        self._follow(now)

    def _follow(self, now: float) -> None:
        """Times of the fetches whose first byte has not moved, one after the other."""
        free = now
        for fetch in self._fetches.values():
            if not fetch.finish or fetch.start > now:
                fetch.start = max(fetch.begin, free) + self._latency
                fetch.finish = fetch.start + fetch.blocks * self._block
            free = max(free, fetch.finish)

    def busy(self, now: float, seconds: float) -> None:
        """From `now` on reads on demand have the path for so long."""
        if seconds > 0.0:
            for fetch in self._fetches.values():
                if fetch.finish > now:
                    fetch.start += seconds if fetch.start > now else 0.0
                    fetch.finish += seconds

    def cut(self, now: float) -> None:
        """Nothing more arrives of what is under way; what was reserved for it is free."""
        for turn, fetch in self._fetches.items():
            if fetch.finish > now:
                moved = self._moved(turn, fetch, now)
                right = floor(moved * len(fetch.ids) / fetch.blocks)
                self.held -= fetch.blocks - moved
                fetch.ids, fetch.wrong = fetch.ids[:right], moved - right
                fetch.start, fetch.finish = min(fetch.start, now), now

    def pace(self, block_seconds: float, latency: float) -> None:
        """What a block takes on the path from now on; nothing is under way."""
        self._block, self._latency = block_seconds, latency

    def arrived(self, turn: int, now: float) -> list[int]:
        """Ids of the blocks that are there for a turn."""
        fetch = self._fetches.get(turn)
        if fetch is None or not fetch.blocks:
            return []
        return fetch.ids[: floor(self._moved(turn, fetch, now) * len(fetch.ids) / fetch.blocks)]

    def _moved(self, turn: int, fetch: Fetch, now: float) -> int:
        """Blocks of the fetch for a turn that have arrived."""
        left = ceil((fetch.finish - now) / self._block - 1e-9) if fetch.finish > now else 0
        return max(0, fetch.blocks - left)

    def forget(self, turn: int) -> None:
        """A turn is not expected any more."""
        self._predicted = [one for one in self._predicted if one[1] != turn]
        heapify(self._predicted)

    def take(self, turn: int, used: int, now: float) -> Counts:
        """A turn is admitted (or will never be) and uses so many of the blocks that are there for it: what became of all of
        them, in blocks."""
        counts = Counts()
        fetch = self._fetches.pop(turn, None)
        if fetch is None:
            return counts
        moved = self._moved(turn, fetch, now)
        self.held -= fetch.blocks
        counts.proposed, counts.issued, counts.dropped = fetch.asked, moved, fetch.asked - moved
        counts.asked = counts.in_time = used
        counts.useless = moved - used
        if moved < fetch.blocks:
            self._follow(now)
        return counts
