"""Sequences that are swapped out of a prefix cache: what others hold stays, the rest is copied out and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.experiments.run import run_scenario
from simulator.kvcache.prefix import PrefixCache
from tests.properties.small import BLOCK, Settings, blocks, pool, same_requests, scenario
from tests.scheduler.test_vllm_rule import NO_WATERMARK, served, steps, tokens

SHARED = {"kv.sharing": {"kind": "prefix"}, "scheduler.preemption": "swap_host"} | NO_WATERMARK
PREFIX = list(range(32))  # ids of 512 tokens that both prompts begin with
ROWS = [(0.0, 532, 14), (0.0, 532, 14)]
SIX = SHARED | {"kv.l1": blocks(36), "scheduler.token_budget": tokens(1024)}


@pytest.mark.parametrize("place", ["host", "pool"])
def test_only_its_own_blocks_are_copied(place: str) -> None:
    """A and B share 32 blocks and have 2 of their own; L1 has 36. After 12 decodes both want a third: B goes with 2 blocks, not
    34, and comes back when A has ended; nothing is computed again.

    Would catch: shared blocks that are copied, or lost with the one who leaves; a place in L1 that is claimed twice.
    """
    settings: dict[str, Any] = dict(SIX)
    if place == "pool":
        settings = pool(l1=36, l3=40, l2=0) | SIX | {"scheduler.preemption": "swap_pool"}
    run = served(settings, ROWS, [[*PREFIX, 100], [*PREFIX, 200]])
    assert steps(run) == [(0, 532 + 20, 2)] + [(2, 0, 2)] * 12 + [(1, 0, 1), (1, 0, 1)]
    swap = run.engine.replicas[0].swap
    assert swap is not None
    assert (swap.blocks_out, swap.blocks_in, swap.dropped, swap.blocks) == (2, 2, 0, 0)


def test_what_it_left_is_gone() -> None:
    """Shortest first: C, of 500 tokens, takes what A leaves and more: of the 32 blocks that B had left with A, 28 are evicted
    while B is away. Its copies are of no use, and B is computed again, from where the first 4 blocks end, with the 13 tokens it
    had given out.

    Would catch: KV of another prompt read as one's own, a request that waits for ever for a block that does not come back.
    """
    rows = [(0.0, 532, 14), (0.0, 532, 14), (1e-6, 500, 2)]
    run = served(SIX | {"scheduler.queue": "shortest_first"}, rows, [[*PREFIX, 100], [*PREFIX, 200], list(range(300, 331))])
    swap = run.engine.replicas[0].swap
    assert swap is not None
    assert (swap.blocks_out, swap.blocks_in, swap.dropped, swap.blocks) == (2, 0, 2, 0)
    assert [count for _, count, _ in steps(run) if count] == [552, 500, 532 + 13 - 4 * 16]
    assert list(run.recorder.status) == [1, 1, 1]


def test_a_cache_that_restores() -> None:
    """Three of five blocks are with another; it comes back around them, and is found by the next. Would catch: blocks
    out of order, a user too many, restored blocks without names."""
    cache = PrefixCache(10, 16)
    ids = [1, 2, 3, 4, 5]
    cache.begin(0, [])
    cache.write(0, 75, ids)
    cache.begin(1, cache.found(ids[:3], 60))
    assert cache.shared(0) == {0: 1, 1: 2, 2: 3}
    assert cache.release(0) == 2
    there = {at: cache.copy(identity) for at, identity in {0: 1, 1: 2, 2: 3}.items()}
    cache.restore(0, 75, ids, there)
    assert cache.used == 5 and cache.shared(0) == {0: 1, 1: 2, 2: 3}
    assert cache.found(ids, 70) == [0, 1, 2, 3]  # of the fourth there is an older copy, which nobody holds
    assert cache.release(1) == 0 and cache.release(0) == 5


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1), l1=st.integers(16, 40), space=st.sampled_from([4, 30, 1000]),
    queue=st.sampled_from(["fcfs", "shortest_first"]), drop=st.sampled_from(["", "10 ms"]), to_pool=st.booleans(),
    batching=st.sampled_from(["continuous", "decode_first", "prefill_first", "static"]),
    reserve=st.sampled_from(["prompt", "full"]),
)  # fmt: skip
def test_invariants_and_single_steps(
    seed: int, l1: int, space: int, queue: str, drop: str, to_pool: bool, batching: str, reserve: str
) -> None:  # fmt: skip
    """Random chats with common prefixes in a small L1: invariants hold, and runs are their single steps.

    Would catch: blocks that nobody gives back, claims of shared blocks that do not return, swaps that are counted twice.
    """
    lengths = {"dist": "uniform", "low": "1 tokens", "high": "90 tokens"}
    work = {
        "requests": 40, "arrivals": {"process": "poisson", "rate": "2000 /s"}, "input": lengths, "output": lengths,
        "sessions": {"turns": 2, "think": "2 ms", "prefixes": [{"tokens": "48 tokens", "count": 2}], "skew": 1.0},
    }  # fmt: skip
    values: Settings = {"workload.synthetic": work, "kv.l1": blocks(l1), "seed": seed} | SHARED
    values = values | {"kv.sharing": {"kind": "prefix"} | ({"drop_after": drop} if drop else {})}
    values = values | {"scheduler.queue": queue, "scheduler.batching": batching, "scheduler.reserve": reserve}
    if to_pool:
        values = values | pool(l1=l1, l3=space, l2=0) | {"scheduler.preemption": "swap_pool"}
    else:
        values = values | {"scheduler.swap_space": f"{space * BLOCK} B"}
    one, other = (run_scenario(scenario(values), check=True, coalesce=coalesce) for coalesce in (True, False))
    same_requests(one, other)


def test_blocks_are_dropped_without_a_pool() -> None:
    """Think time 1 s: with `drop_after` of less no second turn finds anything in L1. Would catch: a time that counts only where
    there is a pool to drop from."""
    work = {
        "requests": 8, "arrivals": {"process": "constant", "rate": "10 /s"}, "input": {"dist": "fixed", "tokens": "160 tokens"},
        "output": {"dist": "fixed", "tokens": "17 tokens"},
        "sessions": {"turns": 2, "spread": "fixed", "think": "1 s", "think_cv": 0.0},
    }  # fmt: skip
    found = []
    for drop in ({}, {"drop_after": "1.5 s"}, {"drop_after": "0.5 s"}):
        run = run_scenario(scenario({"workload.synthetic": work, "kv.sharing": {"kind": "prefix"} | drop}), check=True)
        found.append(run.summary["prefix_cache"]["l1_hit_blocks"])
    assert found == [44, 44, 0]
