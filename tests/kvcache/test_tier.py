"""Eviction policies: against brute force on small random streams, on cyclic scans, and on the recorded prefix trace."""

from __future__ import annotations

import gzip
import json
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simulator.kvcache.eviction import POLICIES, WINDOW, Belady, Fifo, Hot, Lru, Pages, Share, next_uses
from simulator.kvcache.stream import Columns, columns, leading_hits
from simulator.kvcache.tier import Tier

TRACE = Path(__file__).parents[2] / "traces" / "mooncake_conversation_trace.jsonl.gz"
Chains = list[NDArray[np.int64]]

# distinct blocks of each request, in order; shared by prefix as in a tree, or at random
SMALL = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True), min_size=1, max_size=40)
CAPACITY = st.integers(1, 10)


def arrays(chains: list[list[int]]) -> Chains:
    return [np.array(chain, np.int64) for chain in chains]


class BruteForce:
    """Every page in a dictionary; after each request the page with the lowest key leaves until the rest fits."""

    def __init__(self, name: str, chains: list[list[int]], capacity: int):
        self.name, self.capacity = name, capacity
        self.known: Columns = columns(arrays(chains))
        self.uses = dict.fromkeys(range(10), 0)
        self.held: dict[int, tuple[float, ...]] = {}
        self.clock = 0

    def key(self, page: int, batch: int) -> tuple[float, ...]:
        self.clock += 1
        old = self.held.get(page)
        if self.name == "lru":
            return (self.clock,)
        if self.name == "fifo":
            return old if old is not None else (self.clock,)
        if self.name == "lfu":
            return (self.uses[page], batch)
        if self.name == "hot":
            return (self.uses[page] > 2, self.clock)
        if self.name == "share":
            return (-self.known.index[page], -self.known.order[page])
        return (-self.known.order[page], -self.known.index[page])

    def request(self, chain: list[int], batch: int) -> int:
        hits = 0
        for page in chain:
            if page not in self.held:
                break
            hits += 1
        before = set(self.held)
        for page in chain:
            self.uses[page] += 1
        keys = {page: self.key(page, batch) for page in reversed(chain)}
        self.held |= keys
        while len(self.held) > self.capacity:  # among equals newcomers leave first, then lower numbers
            del self.held[min(self.held, key=lambda page: (self.held[page], page in before, page))]
        return hits


@settings(max_examples=150)
@given(chains=SMALL, capacity=CAPACITY, name=st.sampled_from(["lru", "fifo", "lfu", "hot", "share", "priority"]))
def test_policies_equal_brute_force(chains: list[list[int]], capacity: int, name: str) -> None:
    """Would catch: a victim from a stale buffer, a key of the wrong criterion, capacity enforced inside a request."""
    brute = BruteForce(name, chains, capacity)
    expected = sum(brute.request(chain, number + 1) for number, chain in enumerate(chains))
    policy = (lambda pages: Hot(pages, 2)) if name == "hot" else POLICIES[name]
    assert leading_hits(arrays(chains), capacity, policy) == expected


def most_hits(stream: list[int], capacity: int) -> int:
    """The largest number of hits of any cache that may bypass, by trying every decision."""

    @cache
    def best(at: int, held: frozenset[int]) -> int:
        if at == len(stream):
            return 0
        page = stream[at]
        if page in held:
            return 1 + best(at + 1, held)
        choices = [held]
        if len(held) < capacity:
            choices.append(held | {page})
        else:
            choices += [frozenset(kept) | {page} for kept in combinations(sorted(held), capacity - 1)]
        return max(best(at + 1, choice) for choice in choices)

    return best(0, frozenset())


@settings(max_examples=60)
@given(stream=st.lists(st.integers(0, 4), max_size=14), capacity=st.integers(1, 3))
def test_belady_is_optimal(stream: list[int], capacity: int) -> None:
    """As many hits as the best of all possible decisions, and no policy has more.

    Would catch: a next use that counts the present one, the nearest instead of the farthest evicted.
    """
    chains = arrays([[page] for page in stream])
    following = next_uses(chains)
    hits = leading_hits(chains, capacity, lambda pages: Belady(pages, following))
    assert hits == most_hits(stream, capacity)
    assert all(leading_hits(chains, capacity, policy) <= hits for policy in POLICIES.values())


@pytest.mark.parametrize(("policy", "share"), [("lru", 0), ("fifo", 0), ("lfu", 0), ("share", 0.8), ("priority", 0.8)])
def test_a_cyclic_scan(policy: str, share: float) -> None:
    """Dense attention: 10 sequences of 50 blocks read one after the other, step by step, in a tier of 400 of the 500 blocks.
    LRU, FIFO and LFU have always just evicted what comes next; a split keeps its 80 %.

    Would catch: a per-step LRU that keeps a part of the scan, a split that a scan displaces.
    """
    sequences = [np.arange(50) + 50 * number for number in range(10)]
    known = columns(sequences)
    tier = Tier(POLICIES[policy](known), 400, 500)
    hits = 0
    for step in range(6):
        for sequence in sequences:
            known.uses[sequence] += 1
            held, _, _ = tier.use(sequence)
            hits += int(held.sum()) if step >= 2 else 0
    assert hits / (4 * 500) == pytest.approx(share, abs=0.011)


def test_the_threshold_adapts() -> None:
    """Pages that are all used as often as the threshold asks, in a scan that does not fit: promotions bring nothing, and the
    threshold rises. Then a set that fits is hit again and again: it falls.

    Would catch: a threshold that stays, or moves the wrong way.
    """

    def use(known: Columns, tier: Tier, pages: NDArray[np.int64], rounds: int) -> None:
        for _ in range(rounds):
            known.uses[pages] += 1
            tier.use(pages)

    known = columns([np.arange(1000)])
    policy = Hot(known, 1, adapt=True)
    tier = Tier(policy, 100, 1000)
    for begin in range(0, 5 * WINDOW, 100):
        use(known, tier, np.arange(begin, begin + 100) % 1000, 1)
    risen = policy.threshold
    assert risen > 1
    use(known, tier, np.arange(50), 3 * WINDOW // 50 + 3)
    assert policy.threshold < risen


@cache
def trace() -> tuple[Chains, int]:
    with gzip.open(TRACE, "rt", encoding="utf-8") as lines:
        chains = [np.array(json.loads(line)["hash_ids"], np.int64) for line in lines]
    return chains, sum(map(len, chains))


RECORDED = {1_000: 0.0445, 5_000: 0.1118, 10_000: 0.2116, 30_000: 0.3257, 50_000: 0.3546, 100_000: 0.3637, 10**9: 0.3664}


LATER = [pytest.param(size, marks=pytest.mark.slow) for size in RECORDED if size != 10_000]


@pytest.mark.parametrize("capacity", [10_000, *LATER])
def test_lru_on_the_recorded_trace(capacity: int) -> None:
    """Leading-run hit rate of the Mooncake conversation trace, to the four digits of its unbounded and bounded oracle table.

    Would catch: a chain used head first, capacity enforced inside a request, hits behind a miss counted.
    """
    chains, blocks = trace()
    assert round(leading_hits(chains, capacity, Lru) / blocks, 4) == RECORDED[capacity]


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [1_000, 5_000, 10_000, 30_000, 50_000, 100_000])
def test_nobody_beats_belady_on_the_recorded_trace(capacity: int) -> None:
    """Would catch: next uses of single accesses instead of requests, the head of a chain evicted before its tail."""
    chains, _ = trace()
    following = next_uses([chain[::-1] for chain in chains])
    best = leading_hits(chains, capacity, lambda pages: Belady(pages, following))
    others: dict[str, type | object] = dict(POLICIES)
    for name, policy in others.items():
        assert leading_hits(chains, capacity, policy) <= best, name  # type: ignore[arg-type]


def test_weights_and_pins() -> None:
    """Pages of weight 3 and 1 in a tier of 7: the pinned one stays, and enough leaves for the heavy newcomer.

    Would catch: capacity counted in pages, a pinned page evicted.
    """
    known: Pages = columns([np.arange(8)])
    tier = Tier(Lru(known), 7, 8, np.array([3, 1]))
    tier.insert(np.array([0]), np.array([np.inf]))
    tier.use(np.array([1, 3, 5, 7]))
    assert tier.used == 7
    _, came, gone = tier.use(np.array([2]))
    assert came.tolist() == [2] and gone.tolist() == [1, 3, 5]
    assert tier.used == 7 and tier.held[0]


class SortedLru(Lru):
    """LRU whose victims are found by sorting keys."""

    ascending = False


class SortedFifo(Fifo):
    ascending = False


class Warm(Hot):
    def __init__(self, pages: Pages):
        super().__init__(pages, threshold=1)


class SortedWarm(Warm):
    ascending = False


KINDS = {"lru": (Lru, SortedLru), "fifo": (Fifo, SortedFifo), "hot": (Warm, SortedWarm)}


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["use", "use", "use", "drop", "room"]), st.lists(st.integers(0, 29), max_size=12, unique=True)),
    max_size=60,
)


@pytest.mark.parametrize("kind", KINDS)
@given(operations=OPERATIONS, capacity=st.integers(0, 25), weighted=st.booleans())
def test_a_queue_finds_the_victims_that_sorting_finds(
    kind: str, operations: list[tuple[str, list[int]]], capacity: int, weighted: bool
) -> None:
    """Batches with hits and misses, pages that vanish, a capacity that moves: hits, arrivals and victims in their order.

    Would catch: a page that is lost from the queue, one that is in it twice, hits and arrivals of a batch out of order.
    """
    weight = np.array([1, 3, 2]) if weighted else None
    pages_known = columns([np.arange(30)])
    one, other = (Tier(policy(pages_known), capacity, 30, weight) for policy in KINDS[kind])
    for what, pages in operations:
        ids = np.array(pages, np.int64)
        if what == "use":
            pages_known.uses[ids] += 1
            for mine, theirs in zip(one.use(ids), other.use(ids), strict=True):
                assert mine.tolist() == theirs.tolist()
        elif what == "drop":
            assert one.drop(ids).tolist() == other.drop(ids).tolist()
        else:
            one.capacity = other.capacity = 2 * len(pages)
            assert one.shrink().tolist() == other.shrink().tolist()
        assert one.held.tolist() == other.held.tolist() and one.used == other.used


class ComparedShare(Share):
    """Every newcomer is compared with what is held."""

    static = False


@pytest.mark.parametrize("seed", range(4))
def test_the_best_newcomers_are_those_that_stay(seed: int) -> None:
    """Hundreds of newcomers to a full tier, of which few or many come in.

    Would catch: a newcomer that is passed over because others have higher keys, a victim too many or too few.
    """
    rng = np.random.default_rng(seed)
    weight = np.array([3]) if seed % 2 else None
    known = columns([np.arange(2000)])
    known.index[:] = rng.permutation(2000) // 5
    known.order[:] = np.argsort(np.argsort(known.index, kind="stable"), kind="stable") % 5  # no two are the same in both
    one, other = (Tier(kind(known), 500, 2000, weight) for kind in (Share, ComparedShare))
    for _ in range(40):
        ids = rng.permutation(2000)[: rng.integers(1, 1500)]
        for mine, theirs in zip(one.use(ids), other.use(ids), strict=True):
            assert mine.tolist() == theirs.tolist()
        gone = rng.permutation(2000)[: rng.integers(0, 300)]
        assert one.drop(gone).tolist() == other.drop(gone).tolist()
        assert one.used == other.used <= 500
