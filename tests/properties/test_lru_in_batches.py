"""LRU without a key per page (`paged_lru`) beside the cache that has one (`paged_cache`): the same run, to the last bit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.experiments import server
from simulator.experiments.run import RunResult
from simulator.kvcache import identity
from tests.properties.small import Rows, draw, lasting, pool, same_requests, served
from tests.properties.worlds import CODEC, FAULT, ROWS, SCHEDULER

PREFETCH = st.sampled_from([
    {"predictor": "none"}, {"predictor": "next_layer", "depth": 2}, {"predictor": "oracle"},
    {"predictor": "statistical", "depth": 3, "coverage": 0.9, "accuracy": 0.5},
])  # fmt: skip
WRITE_BACK = st.sampled_from(["lazy", "immediate"])


def both(world: dict[str, Any], rows: Rows) -> tuple[RunResult, RunResult]:
    """By batches, and with a key for each page."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(server, "needs_table", lambda *_: True)
        found = served(world, rows)
        patched.setattr(identity, "scans", lambda *_: False)
        return found, served(world, rows)


def equal(found: RunResult, expected: RunResult) -> None:
    same_requests(found, expected)
    assert lasting(found.summary) == lasting(expected.summary)
    assert found.summary["kv_access"] == expected.summary["kv_access"]


@pytest.mark.parametrize("write_back", ["lazy", "immediate"])
@pytest.mark.parametrize("l1", [7, 12, 20, 33, 60])
def test_long_scans(l1: int, write_back: str) -> None:
    """From an L1 that bypasses most of a layer to one that misses a part of one. Would catch: an edge a page off."""
    world = pool(l1, 200, 8) | {"kv.placement": {"eviction": "lru", "write_back": write_back}}
    found, expected = both(world, draw(l1, 25))
    equal(found, expected)


@settings(max_examples=40)
@given(
    rows=ROWS, l1=st.integers(2, 40), l3=st.integers(10, 120), l2=st.integers(1, 30), write_back=WRITE_BACK, prefetch=PREFETCH,
    codec=CODEC, scheduler=SCHEDULER, faults=st.just([]) | st.lists(FAULT, min_size=1, max_size=2),
)  # fmt: skip
def test_any_world(
    rows: Rows, l1: int, l3: int, l2: int, write_back: str, prefetch: dict[str, Any], codec: Any, scheduler: dict[str, Any],
    faults: list[Any],
) -> None:  # fmt: skip
    """Would catch: a page that is evicted out of turn, gets its home twice, or outlives its sequence."""
    placement = {"eviction": "lru", "write_back": write_back}
    world = pool(l1, l3, l2) | {"kv.placement": placement, "prefetch": prefetch, "scheduler": scheduler, "kv.codec": codec}
    equal(*both(world | ({"faults": faults} if faults else {}), rows))
