"""Prefetchers in whole runs: identities, what switches cost, what the predictors bring (design 3.5)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.experiments.arms import run_arms
from simulator.experiments.run import RunResult
from simulator.prefetch.token_model.measured import accuracy_of
from tests.properties.small import NO_PATH, draw, pool, same_requests, scenario, served

ROWS = [(0.0, 150 + 30 * index, 24) for index in range(6)]
WORLD = pool(16, 80, 200, link="2 GB/s") | {"scheduler.batching": "static", "scheduler.watermark": 0.0}
WORK = {"workload.synthetic": {
    "requests": 20, "arrivals": {"process": "poisson", "rate": "3000 /s"},
    "input": {"dist": "uniform", "low": "50 tokens", "high": "200 tokens"},
    "output": {"dist": "fixed", "tokens": "20 tokens"},
}}  # fmt: skip
PARTS = ("link_s", "pool_memory_s", "dma_s", "staging_s")


def run(prefetch: dict[str, Any], world: dict[str, Any] = WORLD) -> RunResult:
    return served(world | {"prefetch": prefetch}, ROWS)


def stall(result: RunResult) -> float:
    return sum(float(np.nansum(result.columns[part])) for part in PARTS)


def statistical(coverage: float = 0.9, accuracy: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"predictor": "statistical", "coverage": coverage, "accuracy": accuracy, "depth": 2} | more


@pytest.mark.parametrize(
    "off",
    [
        {"predictor": "next_layer", "depth": 0}, statistical(depth=0), statistical(coverage=0.0),
        {"predictor": "attention", "coverage": 0.0, "accuracy": 0.5, "score": 0.5},
        {"predictor": "token_model", "depth": 0}, {"predictor": "cxl_speckv", "depth": 0},
        {"predictor": "cxl_speckv", "addresses": "positions"}, statistical(latency="1 s"),
    ],
)  # fmt: skip
def test_what_proposes_nothing_is_none(off: dict[str, Any]) -> None:
    """Depth 0, coverage 0, addresses that hold nothing yet, answers that never come in time: per request as without, 1e-9.

    Would catch: a prefetcher that costs although it fetches nothing, a layer that waits for a predictor.
    """
    without, with_it = run({"predictor": "none"}), run(off)
    for result in (without, with_it):
        result.columns.pop("far_wasted_bytes")  # what was issued and taken back after the last step counts as useless
    same_requests(without, with_it, 1e-9)


def test_wrong_pages_are_waste_at_the_same_coverage() -> None:
    """Would catch: accuracy that changes what is covered, wrong pages that cost no traffic."""
    right, half = run(statistical()), run(statistical(accuracy=0.5))
    one, other = right.summary["prefetch"], half.summary["prefetch"]
    assert other["coverage"] == pytest.approx(one["coverage"], abs=0.02)
    assert one["accuracy"] > 0.95 and other["accuracy"] == pytest.approx(0.5, abs=0.03)
    assert other["wasted_bytes"] > 5 * one["wasted_bytes"]
    assert stall(half) > stall(right)


def test_oracle_with_all_it_needs_never_stalls() -> None:
    """Infinite bandwidth, no latency but 1 us of memory, room in L2 for everything: what is left is the first layer of steps
    that follow one without far pages. Would catch: a carry that is lost between steps, a latency paid per layer.
    """
    board = {"type": "agilex-7-speckv", "memory": "40 MB", "memory_bandwidth": "inf", "memory_latency": "1 us",
             "translation": "0 s", "directory": "0 s", "engine_rate": "inf", "engine_fill": "0 s", "dma_bandwidth": "inf",
             "outstanding": "inf"}  # fmt: skip
    world = WORLD | NO_PATH | {"cluster.kv_pool.board": board, "kv.l2": "20 MB"}
    oracle, none = run({"predictor": "oracle"}, world), run({"predictor": "none"}, world)
    assert none.summary["prefetch"]["asked"] > 1000
    # each request pays the 1 us at most once a prefill step and once for the first decode step
    assert stall(oracle) < 0.05 * stall(none)


def test_stream_is_the_oracle_but_for_ends() -> None:
    """While no sequence ends the two are the same; what stream fetched for those that ended is wasted, never more.

    Would catch: a stream that stops at the end of a step, an oracle without advantage.
    """
    stream, oracle = run({"predictor": "stream"}), run({"predictor": "oracle"})
    assert stream.summary["prefetch"]["wasted_bytes"] > oracle.summary["prefetch"]["wasted_bytes"]
    assert stall(oracle) <= stall(stream) < 1.1 * stall(oracle)


def test_waste_rises_with_depth() -> None:
    """Deeper means more under way for sequences that end: wasted bytes never fall from depth 1 to 4, and are more in the end.

    Would catch: pages of ended sequences that are not counted.
    """
    wasted = [run(statistical(depth=depth)).summary["prefetch"]["wasted_bytes"] for depth in (1, 2, 3, 4)]
    assert all(before <= after for before, after in pairwise(wasted)) and wasted[-1] > wasted[0]


def test_without_priority_demand_waits() -> None:
    """Coverage 0.5 and accuracy 0.3: much useless traffic before the demand. Would catch: a switch without a cost."""
    first, equal = (run(statistical(0.5, 0.3, depth=3, priority=priority)) for priority in ("demand", "equal"))
    assert stall(equal) > 1.05 * stall(first)
    assert equal.summary["prefetch"]["coverage"] == first.summary["prefetch"]["coverage"]


def test_a_predictor_can_be_the_bottleneck() -> None:
    """The same guesses, free and at 200 us a call: on the FPGA few are answered, on the GPU all of them and every layer longer.

    Would catch: a service time that is not felt, GPU time that is not in the step.
    """
    free = run(statistical())
    fpga, gpu = (run(statistical(service="200 us", placement=place)) for place in ("fpga", "gpu"))
    batched = run(statistical(service="200 us", placement="gpu", batch=8))
    assert fpga.summary["prefetch"]["coverage"] < 0.7 * free.summary["prefetch"]["coverage"]
    assert gpu.summary["prefetch"]["coverage"] == pytest.approx(free.summary["prefetch"]["coverage"], abs=0.02)
    computing = [result.summary["stall"]["compute_s"] for result in (free, batched, gpu)]
    assert computing[0] < computing[1] < computing[2]


def test_token_models_cover_what_they_guess() -> None:
    """Coverage and accuracy are the measured top-k accuracy, here of 144 guesses: 3 standard deviations are 0.125.

    Would catch: the claimed 95 % in place of the measured one.
    """
    for model, guesses in (("markov3", 4), ("lstm", 1)):
        result = run({"predictor": "token_model", "model": model, "guesses": guesses})
        found = result.summary["prefetch"]
        assert any("95%" in warning for warning in result.summary["warnings"])
        for name in ("coverage", "accuracy"):
            assert found[name] == pytest.approx(accuracy_of(model, guesses), abs=0.125)


def test_cxl_speckv_as_published_fetches_nothing() -> None:
    """Its addresses have no KV yet: all is dropped. As explained later: k pages of each sequence and layer, none wrong.

    Would catch: a published algorithm that works because it was mended silently.
    """
    published = run({"predictor": "cxl_speckv"}).summary["prefetch"]
    assert published["coverage"] == 0.0 and published["dropped"] == published["proposed"] > 0
    more = {"predictor": "cxl_speckv", "addresses": "far_pages", "service": "0 s", "queue": 0}
    covered = [run(more | {"guesses": k}).summary["prefetch"]["coverage"] for k in (1, 2, 4, 8)]
    assert all(before < after for before, after in pairwise(covered))
    assert run(more | {"guesses": 2, "queue": 2}).summary["prefetch"]["dropped"] > 0


@pytest.mark.parametrize("control", ["additive", "ucb", "feedback"])
def test_controls_change_the_depth(control: str) -> None:
    """Would catch: a control that is built and not asked."""
    fixed, steered = run(statistical(accuracy=0.5, depth=3)), run(statistical(accuracy=0.5, depth=3, control=control))
    assert stall(fixed) != stall(steered)
    assert steered.summary["prefetch"]["coverage"] == pytest.approx(fixed.summary["prefetch"]["coverage"], abs=0.1)


def test_gain_shares() -> None:
    """none 0, oracle 1, the others between; the rows are single runs to the last bit; the formula by hand.

    Would catch: arms that do not share their requests, a gain measured on throughput, a wrong sign.
    """
    world = pool(16, 80, 40, link="2 GB/s") | {"prefetch": statistical(0.7, 0.8)}
    world |= WORK
    rows = {row["arm"]: row for row in run_arms(scenario(world), ["none", "next_layer", "history", "oracle"], check=True)}
    assert rows.keys() == {"statistical", "none", "next_layer", "history", "oracle"}
    assert (rows["none"]["gain_share"], rows["oracle"]["gain_share"]) == (0.0, 1.0)
    for name in ("statistical", "next_layer", "history"):
        assert 0.0 < rows[name]["gain_share"] <= 1.0 + 1e-9
        possible = rows["none"]["step_time_s"] - rows["oracle"]["step_time_s"]
        assert rows[name]["gain_share"] == (rows["none"]["step_time_s"] - rows[name]["step_time_s"]) / possible
    alone = served(world | {"prefetch": {"predictor": "next_layer", "depth": 2}}).summary
    assert rows["next_layer"]["output_tokens_per_s"] == alone["throughput"]["output_tokens_per_s"]
    assert rows["next_layer"]["prefetch"] == alone["prefetch"]


def test_arms_without_inputs_only() -> None:
    """Would catch: an arm that runs with inputs nobody gave; a message that names neither the arm nor the choice."""
    with pytest.raises(InputError) as wrong:
        run_arms(scenario(pool(8, 40) | WORK), ["statistical", "orcale"])
    message = str(wrong.value)
    assert "'statistical' is not an arm" in message and "oracle" in message
    drawn = pool(8, 40) | WORK | {"kv.selection": {"kind": "pages", "tokens": "40 tokens", "overlap": 0.5}}
    with pytest.raises(InputError, match="stream"):
        run_arms(scenario(drawn), ["stream"])


@pytest.mark.parametrize(
    ("prefetch", "said"),
    [
        ({"predictor": "attention"}, "needs coverage and accuracy"),
        ({"predictor": "next_layer", "service": "1 us"}, "does not use service"),
        ({"predictor": "token_model", "guesses": 17}, "at most 16"),
        ({"predictor": "cxl_speckv", "model": "lstm"}, "does not use model"),
    ],
)
def test_messages(prefetch: dict[str, Any], said: str) -> None:
    """Would catch: an input that is accepted and ignored."""
    with pytest.raises(InputError, match=said):
        scenario(pool(8, 40) | WORK | {"prefetch": prefetch})


def test_stream_does_not_know_drawn_pages() -> None:
    """Would catch: a whole working set that knows what will be selected."""
    drawn = {"kv.selection": {"kind": "pages", "tokens": "40 tokens", "overlap": 0.5}, "prefetch": {"predictor": "stream"}}
    with pytest.raises(InputError, match="history or next_layer"):
        scenario(pool(8, 40) | WORK | drawn)


@pytest.mark.parametrize("name", ["attention", "token_model", "cxl_speckv"])
def test_with_drawn_pages(name: str) -> None:
    """Selected pages, every check on. Would catch: counts of pages without a name that do not add up."""
    prefetch: dict[str, Any] = {"predictor": name}
    if name == "attention":
        prefetch |= {"coverage": 0.8, "accuracy": 0.7}
    if name == "cxl_speckv":
        prefetch |= {"addresses": "far_pages"}
    world = pool(8, 80, 20) | {"kv.selection": {"kind": "pages", "tokens": "64 tokens", "overlap": 0.5}, "prefetch": prefetch}
    found = served(world, draw(3, 12)).summary["prefetch"]
    assert 0.0 < found["coverage"] < 1.0
