"""The composition law: what a policy stores, reads and moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.kvcache.policy import KvPolicy
from simulator.scenario import Scenario
from simulator.scenario.resolved import ScenarioResolved, Selection

QUICKSTART = Path(__file__).parents[2] / "scenarios" / "quickstart.yaml"
SCENARIO: ScenarioResolved = Scenario.load(QUICKSTART).resolved


def policy(kind: str = "dense", budget: int = 0, ratio: float = 2.0) -> KvPolicy:
    kv = replace(SCENARIO.kv, selection=Selection(kind, budget), codec=replace(SCENARIO.kv.codec, ratio=ratio))
    return KvPolicy.of(replace(SCENARIO, kv=kv))


def test_stored_bytes_by_tier() -> None:
    """1,000 tokens of llama-3.1-70b, 80 layers of 4 KiB: 327.68 MB in L1 and L2, half of that in L3 at ratio 2.

    Would catch: a codec of the pool that shrinks HBM as well.
    """
    raw = 1000 * 80 * 4096
    assert policy().stored_bytes(1000, 80, "l1") == policy().stored_bytes(1000, 80, "l2") == raw
    assert policy().stored_bytes(1000, 80, "l3") == raw / 2


@pytest.mark.parametrize(("at", "moved"), [("fpga", 1000.0), ("gpu", 250.0), ("none", 1000.0)])
def test_moved_bytes(at: str, moved: float) -> None:
    """Compressed bytes cross the link only where the GPU decompresses.

    Would catch: a ratio that helps a link which carries raw bytes.
    """
    assert policy(ratio=4.0).moved_bytes(1000.0, at) == moved


@given(st.lists(st.integers(1, 5000), max_size=20), st.integers(1, 6000))
def test_selection_shrinks_what_is_read(contexts: list[int], budget: int) -> None:
    """At most `budget` tokens of each sequence; a budget of all tokens is dense; nothing else changes.

    Would catch: one budget for the batch, tokens read that do not exist.
    """
    selected, dense = policy("budget", budget), policy()
    read = selected.read_tokens(contexts)
    assert read == sum(min(budget, context) for context in contexts) <= dense.read_tokens(contexts) == sum(contexts)
    if budget >= max(contexts, default=0):
        assert read == dense.read_tokens(contexts)
    assert selected.stored_bytes(100, 80, "l3") == dense.stored_bytes(100, 80, "l3")


def test_the_default_is_the_identity() -> None:
    """Would catch: a policy that selects, retains or shares without being asked to."""
    plain = KvPolicy.of(Scenario.load(QUICKSTART.parent / "gpu_only.yaml").resolved)
    assert plain.dense and plain.codec.ratio == 1.0
    assert plain.policies.identity and plain.sharing == "private"
    assert plain.stored_bytes(10, 80, "l3") == plain.stored_bytes(10, 80, "l1")
