"""Percentiles of weighted values, occupancy from residences, gaps between tokens: the short way against the long one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simulator.experiments.simulation import Simulation
from simulator.metrics.occupancy import blocks_by_step
from simulator.metrics.requests import PERCENTILES, distribution, token_gaps, weighted_percentiles
from simulator.metrics.steps import Steps
from tests.properties.small import Rows, blocks, requests, scenario, served
from tests.properties.worlds import worlds

World = tuple[dict[str, Any], Rows]
WORKLOAD = {
    "workload.synthetic": {
        "requests": 1,
        "arrivals": {"process": "at_once"},
        "input": {"dist": "fixed", "tokens": "1 token"},
        "output": {"dist": "fixed", "tokens": "1 token"},
    }
}  # not used: the requests are given by hand
PAIRS = st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 50)), min_size=1, max_size=40)


@settings(max_examples=200)
@given(pairs=PAIRS)
@example(pairs=[(1.0, 0)])
@example(pairs=[(2.0, 1)])
@example(pairs=[(1.0, 99), (2.0, 1)])
def test_weighted_percentiles_are_those_of_the_expanded_values(pairs: list[tuple[float, int]]):
    """numpy's linear interpolation on every value repeated as often as its weight says.

    Would catch: an index off by one at the edge of a weight, weights of 0, interpolation between the wrong neighbours.
    """
    values, weights = (np.array(column) for column in zip(*pairs, strict=True))
    found = weighted_percentiles(values.astype(float), weights.astype(np.int64))
    expanded = np.repeat(values, weights)
    if len(expanded) == 0:
        assert set(found.values()) == {None}
        return
    assert found["mean"] == pytest.approx(expanded.mean(), rel=1e-9, abs=1e-6)
    for name, percent in PERCENTILES.items():
        assert found[name] == pytest.approx(np.percentile(expanded, percent), rel=1e-9, abs=1e-6)


def test_distribution_leaves_out_what_is_no_number():
    """Would catch: one unfinished request that turns every percentile into NaN, or counts as 0."""
    assert distribution(np.array([np.nan, 3.0, np.nan, 1.0]))["mean"] == 2.0
    assert distribution(np.array([np.nan]))["p50"] is None


def occupied(simulation: Simulation) -> list[int]:
    """Blocks in use during each step, asked of the residency while the simulation runs."""
    engine, counts = simulation.engine, []
    original = engine.batch.advance

    def advance(steps: int, new_blocks: int) -> None:
        counts.extend([_held(engine)] * steps)
        original(steps, new_blocks)

    engine.batch.advance = advance  # type: ignore[method-assign]
    simulation.run()
    return counts


def _held(engine: Any) -> int:
    """All blocks: those placed of prompts, and of decoders those of the cached tokens and the one they add."""
    total = 0
    for request in engine.running:
        if request in engine.batch.offset:
            total += engine.geometry.blocks(engine.batch.cached(request) + 1)
        else:
            total += engine._placed[request]
    return total


@settings(max_examples=60)
@given(world=worlds())
def test_occupancy_is_what_was_held_in_each_step(world: World):
    """Would catch: a block released a step early or late, one lost in a preemption, growth located in the wrong step."""
    simulation = Simulation(scenario(WORKLOAD | world[0]).resolved, requests(world[1]), coalesce=False)
    counted = occupied(simulation)
    steps = Steps(simulation.recorder, simulation.law())
    assert blocks_by_step(simulation.recorder, steps, simulation.geometry.block_tokens).tolist() == counted


def gaps_fit(world: World) -> None:
    """The sum of all gaps between tokens is the sum of (end - first token): every moment belongs to one gap."""
    result = served(*world)
    done = result.columns["status"] == "finished"
    spent = (result.columns["e2e_s"] - result.columns["ttft_s"])[done].sum()
    count = int((result.columns["output_tokens"][done] - 1).sum())
    mean = result.summary["latency"]["itl_s"]["mean"]
    assert (mean is None) == (count == 0)
    if count:
        assert mean * count == pytest.approx(spent, rel=1e-9)


@settings(max_examples=60)
@given(world=worlds())
def test_gaps_between_tokens_cover_the_time(world: World):
    """Would catch: the wait in the queue after a preemption, or for the others of a static batch, in no gap or in two."""
    gaps_fit(world)


def gaps_by_hand(settings: dict[str, Any], rows: Rows, tokens: list[list[int]]) -> None:
    """`tokens[r]`: the steps (from 0) that gave out request r's tokens; the gaps recorded must be those between their ends."""
    simulation = Simulation(scenario(WORKLOAD | settings).resolved, requests(rows), coalesce=False)
    simulation.run()
    assert sum(simulation.recorder.preemptions) == 1
    steps = Steps(simulation.recorder, simulation.law())
    values, weights = token_gaps(simulation.recorder, steps)
    expected = np.concatenate([np.diff(steps.end[given_out]) for given_out in tokens])
    np.testing.assert_allclose(np.sort(np.repeat(values, weights)), np.sort(expected), rtol=1e-9)


STATIC = {"batching": "static", "max_batch": 2, "watermark": 0}


def test_a_preempted_sequence_waits_for_a_prompt_of_its_next_static_batch():
    """5 blocks. A and B (20 + 30 tokens each) both want a third block at 32 cached tokens, after 12 decodes: B goes. The
    second batch is B, which computes 33 tokens again (steps 31 to 33), and C with a prompt of 31 (up to step 34).

    Would catch: B's wait for C's prompt, between its token of step 33 and that of step 35, in no gap.
    """
    settings = {"scheduler": STATIC | {"token_budget": "20 tokens", "prefill_chunk": "16 tokens"}, "kv.l1": blocks(5)}
    rows = [(0.0, 20, 30), (0.0, 20, 30), (0.0, 31, 2)]
    gaps_by_hand(settings, rows, [list(range(1, 31)), [*range(1, 14), 33, *range(35, 51)], [34, 35]])


def test_preempted_before_its_first_decode():
    """3 blocks. B (16 tokens, steps 0 and 1) waits for A (32 tokens, steps 0 to 3); then A needs the last block and B goes.

    Would catch: a gap written down for a decode of B that did not take place.
    """
    settings = {"scheduler": STATIC | {"token_budget": "16 tokens", "prefill_chunk": "8 tokens"}, "kv.l1": blocks(3)}
    gaps_by_hand(settings, [(0.0, 32, 3), (0.0, 16, 3)], [[3, 4, 5], [1, 8, 9]])


@settings(max_examples=30)
@given(world=worlds())
def test_parts_of_stall_sum_to_latency(world: World):
    """The means in `stall` sum to the mean end-to-end time.

    Would catch: a part that is in the tables but not in the summary, or the other way round.
    """
    summary = served(*world).summary
    whole = summary["latency"]["e2e_s"]["mean"]
    if whole is not None:
        assert sum(summary["stall"].values()) == pytest.approx(whole, rel=1e-9)
