"""LRU placement against a brute-force LRU over single pages.

A step scans all pages layer by layer. The model decides for a whole layer at once, from the stack distance: what the
last scan touched after the layer, and this one up to and including it. Page by page, LRU differs only

    growth    in at most one layer of a step: the one in which the distance passes the size of L1 half way, because new
              blocks lie between old ones. The model reads all of its pages, LRU some of them: at most one layer too many;
    release   in the one step after the end of a sequence that brings the scan down to L1: what the scan before had evicted
              is not in L1 yet. The model reads too little, by at most one scan.
"""

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.kvcache.residency import Lru


class Pages:
    """LRU over (layer, block) pages; what is new was just written and is no miss."""

    def __init__(self, room_blocks: int, layers: int):
        self.capacity, self.layers = room_blocks * layers, layers
        self.cache: OrderedDict[tuple[int, int], None] = OrderedDict()
        self.known: set[int] = set()

    def scan(self, blocks: list[int]) -> list[int]:
        """Misses of each layer among blocks that the last scan touched as well."""
        missed = [0] * self.layers
        for layer in range(self.layers):
            for block in blocks:
                if (layer, block) in self.cache:
                    self.cache.move_to_end((layer, block))
                    continue
                missed[layer] += block in self.known
                self.cache[layer, block] = None
                if len(self.cache) > self.capacity:
                    self.cache.popitem(last=False)
        self.known = set(blocks)
        return missed

    def drop(self, blocks: list[int]) -> None:
        for layer in range(self.layers):
            for block in blocks:
                self.cache.pop((layer, block), None)


class Sequences:
    """Sequences of whole blocks beside one pinned, partial block each, in the model and page by page."""

    def __init__(self, room: int, layers: int, blocks: list[int]):
        self.layers = layers
        self.model = Lru(room + len(blocks), 10_000, layers)
        self.pages = Pages(room, layers)
        self.has: dict[int, list[int]] = {}
        self.next = 0
        for request, count in enumerate(blocks):
            self.model.place(request, 0, count + 1, list)
            self.has[request] = [self._new() for _ in range(count)]
        self.model.layers(0, 0, layers)  # the step that wrote them
        self.pages.scan([block for has in self.has.values() for block in has])

    def _new(self) -> int:
        self.next += 1
        return self.next

    def grow(self, request: int) -> None:
        self.model.grow(request)
        self.has[request].append(self._new())

    def end(self, request: int) -> None:
        """The sequence ends, and its pinned block leaves L1: the room for the others stays what it was."""
        blocks = self.has[request]
        self.model.release(request, len(blocks) + 1)
        self.pages.drop(blocks)
        self.model.l1_blocks -= 1
        del self.has[request]

    def step(self) -> tuple[list[int], list[int]]:
        """(model, page by page): misses of each layer among blocks that are not new."""
        blocks = [block for request in self.has for block in self.has[request]]
        old = len(self.pages.known & set(blocks))
        pages = self.model.layers(0, len(blocks) + len(self.has), self.layers)
        return [min(count, old) for count in pages], self.pages.scan(blocks)


@given(st.integers(1, 30), st.integers(1, 6), st.lists(st.integers(0, 12), min_size=1, max_size=4))
def test_unchanged_scans_are_exact(room: int, layers: int, blocks: list[int]) -> None:
    """Cyclic scan: all hit if it fits in L1, none if it is one block larger.

    Would catch: a partial hit rate (L1 / scan), a scan that is compared with pages of one layer.
    """
    world = Sequences(room, layers, blocks)
    for step in range(4):
        model, exact = world.step()
        if step:
            assert model == exact
            assert sum(model) == (sum(blocks) * layers if sum(blocks) > room else 0)


@given(
    st.integers(4, 30),
    st.integers(1, 6),
    st.lists(st.integers(0, 12), min_size=1, max_size=4),
    st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=8),
)
def test_growth_differs_in_one_layer_at_most(room: int, layers: int, blocks: list[int], growth: list[list[int]]) -> None:
    """Random growth through the size of L1: never fewer misses than LRU, more in at most one layer a step.

    Would catch: an approximation that hits where LRU misses; hits in a step far beyond L1.
    """
    world = Sequences(room, layers, blocks)
    world.step()
    for growing in growth:
        for request in growing:
            if request in world.has:
                world.grow(request)
        model, exact = world.step()
        assert all(ours >= theirs for ours, theirs in zip(model, exact))
        assert sum(ours != theirs for ours, theirs in zip(model, exact)) <= 1


@given(
    st.integers(4, 20),
    st.integers(1, 6),
    st.lists(st.integers(1, 12), min_size=2, max_size=4),
    st.data(),
)
def test_after_a_release_one_step_differs(room: int, layers: int, blocks: list[int], data: st.DataObject) -> None:
    """A sequence ends: the model may be one step early in believing that all the others are in L1, then it is exact.

    Would catch: a release that is never noticed, an error that stays.
    """
    world = Sequences(room, layers, blocks)
    world.step()
    world.step()
    thrashing = sum(blocks) > room
    gone = data.draw(st.integers(0, len(blocks) - 1))
    world.end(gone)
    left = sum(blocks) - blocks[gone]
    model, exact = world.step()
    assert 0 <= sum(exact) - sum(model) <= left * layers
    if not thrashing or left > room:
        assert model == exact
    model, exact = world.step()
    assert model == exact


def test_pages_get_their_home_once() -> None:
    """Ten blocks of two layers over five of L1: all 20 pages are written to L3 at their first eviction, none later.

    Would catch: write-back of clean pages in every scan.
    """
    lru = Lru(6, 100, 2)
    lru.place(0, 0, 11, list)
    lru.layers(0, 11, 2)
    lru.take_evicted()
    lru.layers(0, 11, 2)
    assert lru.homed == 20 and lru.l3_used == 10 and lru.l1_used == 6
    lru.take_evicted()
    lru.layers(0, 11, 2)
    assert lru.take_evicted() == 0 and lru.homed == 20
    lru.release(0, 11)
    assert lru.l3_used == lru.l1_used == 0


@pytest.mark.parametrize(("blocks", "settled"), [(5, True), (6, False)])
def test_settled_while_everything_fits(blocks: int, settled: bool) -> None:
    """Would catch: runs of steps without far reads although L1 is too small; single steps although it is not."""
    lru = Lru(5, 100, 2)
    lru.place(0, 0, blocks, list)
    assert lru.settled() is settled
    assert lru.near_room() == 5 - blocks
