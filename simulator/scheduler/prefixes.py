"""What the requests of a replica have in its prefix cache (`kvcache/prefix.py`) and below L1 (`reuse.py`).

A request that waits is looked up; one that enters begins with what was found, and says what it holds as it grows. Decoding
sequences are heard only before somebody looks (`tell`): what they hold in between, nobody sees.

One that is swapped out leaves the blocks that others hold where they are; the rest is copied out and back (`swap.py`). If such
a block has been evicted since, what was copied out is of no use, and the sequence is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from simulator.kvcache.prefix import PrefixCache
from simulator.metrics.recorder import Recorder
from simulator.scheduler.batch import DecodeBatch
from simulator.scheduler.reuse import Reuse
from simulator.scheduler.work import Work


class Prefixes:
    def __init__(
        self, cache: PrefixCache, reuse: Reuse | None, work: Work, batch: DecodeBatch, recorder: Recorder,
        drop_after: float = inf,
    ):  # fmt: skip
        assert work.ids is not None  # there is a prefix cache
        self.cache, self.reuse, self.batch, self._drop_after = cache, reuse, batch, drop_after
        self._ids, self._prompt, self._hits = work.ids, work.prompt, recorder.prefix_blocks
        self._chain: dict[int, Sequence[int]] = {}  # ids of the blocks of those in queue or running
        self._left: dict[int, dict[int, int]] = {}  # swapped out -> what it left with others: place of a block -> its id

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

    @property
    def next_at(self) -> float:
        """When something happens here though nothing happens to a request."""
        return self.reuse.next_at if self.reuse is not None else self.cache.idle_since + self._drop_after

    def look(self, now: float) -> None:
        """What is due by now."""
        if self.reuse is not None:
            self.tell(0)
            self.reuse.look(now)
        elif self._drop_after < inf:
            self.tell(0)
            self.cache.let_go(now, self._drop_after)

    def tell(self, ahead: int) -> None:
        """What the decoding sequences hold, with the next step (`ahead` 1) or without."""
        write, cached, chain = self.cache.write, self.batch.cached, self._chain
        for request in self.batch.offset:
            write(request, cached(request) + ahead, chain[request])

    def steps_to_full(self) -> float:
        """Steps until the decoding sequences fill a block that somebody may find: 1 is the next."""
        size, cached = self.cache.block_tokens, self.batch.cached
        named = (one for one in self.batch.offset if cached(one) // size < len(self._chain[one]))
        return min((size - cached(one) % size for one in named), default=inf)

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
        self._left.pop(request, None)

    def watch(self, useless: Callable[[int], None]) -> None:
        """Sequences may be swapped out; `useless` is told of one of which a block is gone that it had left here."""

        def forgotten(identity: int) -> None:
            for request in [one for one, left in self._left.items() if identity in left.values()]:
                del self._left[request]
                useless(request)

        self.cache.forgotten = forgotten

    def own(self, request: int) -> int:
        """How many blocks of a decoding sequence nobody else holds."""
        self.write(request, self.batch.cached(request))
        return self.cache.blocks(self.batch.cached(request)) - len(self.cache.shared(request))

    def leave(self, request: int) -> None:
        """A decoding sequence is swapped out; it will be released."""
        self._left[request] = self.cache.shared(request)

    def left(self, request: int) -> list[int]:
        """The blocks that are still here of one that is swapped out."""
        return [self.cache.copy(identity) for identity in self._left[request].values()]

    def come_back(self, request: int, tokens: int) -> int:
        """A sequence that was swapped out has its tokens again: the blocks that came into use."""
        there = {at: self.cache.copy(identity) for at, identity in self._left.pop(request).items()}
        idle = self.cache.idle(list(there.values()))
        self.cache.restore(request, tokens, self._chain[request], there)
        return self.cache.blocks(tokens) - len(there) + idle
