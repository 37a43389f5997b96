"""LRU without a key per page (`paged_lru`) beside the cache that has one (`paged_cache`), page by page."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.kvcache.paged_cache import PagedCache
from simulator.kvcache.paged_lru import PagedLru
from simulator.kvcache.table import HOME, NEAR
from simulator.scenario.resolved import Placement, Selection


class Twins:
    """Both, fed the same."""

    def __init__(self, l1: int, layers: int, immediate: bool):
        placement = Placement("lru", "exclusive", "immediate" if immediate else "lazy", 10, False)
        rules = (l1, 12, layers, 4, Selection("dense", 0), placement, 1.0)
        self.keyed, self.batched = PagedCache(*rules, np.random.default_rng(0)), PagedLru(*rules, np.random.default_rng(0))
        self.both = self.keyed, self.batched
        self.layers, self.step, self.next = layers, 0, 0
        self.blocks: dict[int, int] = {}  # of sequences that are still written
        self.decoding: list[int] = []

    def write(self, blocks: int, request: int | None = None) -> None:
        if request is None:
            request, self.next = self.next, self.next + 1
        has = self.blocks.get(request, 0)
        for one in self.both:
            one.place(request, has, blocks, list)
        self.blocks[request] = has + blocks

    def join(self, request: int) -> None:
        blocks = self.blocks.pop(request)
        for one in self.both:
            one.join(request, blocks * 4 - 1 - self.step)
        self.decoding.append(request)

    def crowd(self, count: int, blocks: int) -> None:
        """Sequences that start their blocks in the same steps."""
        for _ in range(count):
            self.write(blocks)
            self.join(self.next - 1)

    def end(self, request: int) -> None:
        for one in self.both:
            one.release(request, int(one.table.blocks[one.slot_of(request)]))
        self.blocks.pop(request, None)
        self.decoding = [other for other in self.decoding if other != request]

    def read(self, prompts: list[int], decodes: bool) -> None:
        """A step: what each layer misses, and each sequence."""
        keyed, batched = self.both
        slots = np.array([keyed.slot_of(request) for request in prompts], np.int64)
        if decodes:
            for one in self.both:
                one.sync(self.step)
        misses, of = [], np.zeros(len(keyed.request_of), np.int64)
        for layer in range(self.layers):
            decoded = [keyed.loose()] if decodes else []
            ids = np.concatenate([*decoded, keyed.loose(slots)]) * self.layers + layer
            away = ids[~keyed.read(ids)]
            misses.append(len(away))
            of += np.bincount(keyed.table.sequence[away // self.layers], minlength=len(of))
        decoded = [batched.loose()] if decodes else []
        rows = np.concatenate([*decoded, batched.loose(slots)])
        total = batched.scan(rows, np.concatenate([batched.decoding if decodes else slots[:0], slots]), decodes)
        assert total == sum(misses) and batched.missed == misses
        assert batched.missed_of.tolist() == of.tolist()
        self.step += decodes

    def same(self) -> None:
        keyed, batched = self.both
        flags = keyed.table.flags.reshape(-1, self.layers)
        for bit, found in ((NEAR, batched._near()), (HOME, batched._homes)):
            expected = np.packbits(flags & bit != 0, axis=1)
            np.testing.assert_array_equal(found, expected)
        for name in ("homed", "l3_used", "l1_used", "near_pages"):
            assert getattr(keyed, name) == getattr(batched, name), name
        assert keyed.l1.used == batched._used and keyed.settled() == batched.settled()


@settings(max_examples=150)
@given(l1=st.integers(1, 30), layers=st.integers(1, 11), immediate=st.booleans(), data=st.data())
def test_every_page_is_where_it_would_be(l1: int, layers: int, immediate: bool, data: st.DataObject) -> None:
    """After prompts in pieces, steps, steps that only prompts take part in, ends of sequences, and a lost L3: where each page
    is, which has a home, what each layer and each sequence missed.

    Would catch: an edge a page off, blocks evicted layer by layer that were used one by one, homes that are forgotten.
    """
    twins = Twins(l1, layers, immediate)
    for _ in range(data.draw(st.integers(1, 25))):
        open_, running = sorted(twins.blocks), twins.decoding
        actions = ["write", "crowd"] + ["more", "join", "prompt"] * bool(open_) + ["step", "step", "steps"] * bool(running)
        action = data.draw(st.sampled_from(actions + ["end", "lost"] * bool(open_ or running)))
        if action == "write":
            twins.write(data.draw(st.integers(1, 6)))
        elif action == "crowd":
            twins.crowd(data.draw(st.integers(2, 6)), data.draw(st.integers(1, 4)))
        elif action == "more":
            twins.write(data.draw(st.integers(1, 6)), data.draw(st.sampled_from(open_)))
        elif action == "join":
            twins.join(data.draw(st.sampled_from(open_)))
        elif action == "prompt":
            twins.read(data.draw(st.lists(st.sampled_from(open_), unique=True)), data.draw(st.booleans()) and bool(running))
        elif action == "end":
            twins.end(data.draw(st.sampled_from(open_ + running)))
        elif action == "lost":
            assert twins.keyed.lost() == twins.batched.lost()
        else:
            for _ in range(1 if action == "step" else 7):
                twins.read([], True)
        twins.same()
