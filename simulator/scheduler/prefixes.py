"""What the requests of a replica have in its prefix cache (`kvcache/prefix.py`) and below L1 (`reuse.py`).

A request that waits is looked up; one that enters begins with what was found, and says what it holds as it grows. Decoding
sequences are heard only before somebody looks (`tell`): what they hold in between, nobody sees.
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.kvcache.prefix import PrefixCache
from simulator.metrics.recorder import Recorder
from simulator.scheduler.batch import DecodeBatch
from simulator.scheduler.reuse import Reuse
from simulator.scheduler.work import Work


class Prefixes:
    def __init__(self, cache: PrefixCache, reuse: Reuse | None, work: Work, batch: DecodeBatch, recorder: Recorder):
        assert work.ids is not None  # there is a prefix cache
        self.cache, self.reuse, self.batch = cache, reuse, batch
        self._ids, self._prompt, self._hits = work.ids, work.prompt, recorder.prefix_blocks
        self._chain: dict[int, Sequence[int]] = {}  # ids of the blocks of those in queue or running

    def found(self, request: int, tokens: int) -> list[int]:
        """The cached blocks that a request with so many tokens to cache need not compute."""
        if request not in self._chain:
            self._chain[request] = self._ids(request)
        return self.cache.found(self._chain[request], tokens)

    def findable(self, ids: Sequence[int], tokens: int, now: float) -> tuple[int, int]:
        """Blocks that a request which is not here would find in L1, and behind them below."""
        near, most = len(self.cache.found(ids, tokens)), self.cache.most(ids, tokens)
        return near, self.reuse.parks(ids[near:most], now) if self.reuse is not None else 0

    def begin(self, request: int, found: list[int], tokens: int, now: float) -> tuple[int, int]:
        """An admitted request begins with these blocks of L1, and with what follows them below; counts the hits. The blocks
        that come into use in L1, and all that it has."""
        cache, reuse, ids = self.cache, self.reuse, self._chain[request]
        revived, below, ahead = cache.idle(found), list[int](), 0
        cache.begin(request, found)
        if reuse is not None:
            below, ahead = reuse.below(request, ids, len(found), cache.most(ids, tokens), now)
            reuse.begin(request, below, ahead, now)
        self._hits["asked"] += min(len(ids), len(ids) if cache.partial else self._prompt[request] // cache.block_tokens)
        for tier, count in (("l1", len(found)), ("l2", ahead), ("l3", len(below) - ahead)):
            self._hits[tier] += count
        return revived + len(below), len(found) + len(below)

    def write(self, request: int, tokens: int, whole: bool = False) -> None:
        """A request has so many tokens from now on; `whole`: these are all that its ids stand for."""
        self.cache.write(request, tokens, self._chain[request], whole)

    def tell(self, ahead: int) -> None:
        """What the decoding sequences hold, with the next step (`ahead` 1) or without."""
        write, cached, chain = self.cache.write, self.batch.cached, self._chain
        for request in self.batch.offset:
            write(request, cached(request) + ahead, chain[request])

    def release(self, request: int, now: float, again: bool) -> int:
        """A running request ends, or goes back to the queue (`again`): how many of its blocks nobody else holds."""
        if request in self.batch.offset:
            self.write(request, self.batch.cached(request))
        freed = self.cache.release(request, now)
        if not again:
            self.drop(request)
        return freed

    def drop(self, request: int) -> None:
        """A request will not look again."""
        self._chain.pop(request, None)
