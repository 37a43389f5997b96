"""Tenants with a bandwidth: by hand where one runs alone, and what becomes of the others."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from simulator import simulate
from simulator.kvcache.residency import Lru
from tests.experiments.test_sensitivity import PARKED
from tests.properties.small import ROOT, draw, pool, served
from tests.scheduler.test_tenants import APART, RATE, TOKEN, first_layer, owned, there

# prompts that cross from one replica to another; and one replica, most of whose KV is far behind a slow link
CROSSING = APART | {"cluster.groups": [{"role": "prefill", "replicas": 2}, {"role": "decode"}]}
MIXED = pool(l1=10, l3=800, link="0.2 GB/s", outstanding="inf") | {
    "kv.codec": "none", "prefetch": {"predictor": "none"}, "scheduler.token_budget": "512 tokens",
}  # fmt: skip
WORLDS: dict[str, dict[str, Any]] = {
    "one replica": MIXED,
    "lru": MIXED | {"kv.placement.eviction": "lru"},
    "prefetched": MIXED | {"prefetch": {"predictor": "statistical", "coverage": 0.7, "accuracy": 0.6, "depth": 2}},
    "detailed": MIXED | {"devices": "detailed"},
    "replicas": MIXED | {"cluster.replicas": 2},
    "apart": CROSSING,
    "apart, with a pool": CROSSING | MIXED,
    "static": MIXED | {"scheduler.batching": "static", "scheduler.prefill_chunk": "64 tokens"},
    "prompts first": MIXED | {"scheduler.batching": "prefill_first", "scheduler.queue": "fair"},
    "windows": MIXED | {"model.window": "64 tokens"},
    "in part": MIXED | {"kv.retention.keep": 0.5},
    "failing": MIXED | {"cluster.kv_pool.count": 2, "faults": [{"what": "board_lost", "at": "100 ms", "for": "50 ms"}]},
    "swapped beside a pool": MIXED | {"scheduler.preemption": "swap_host", "cluster.kv_pool.board.memory": "1 MB"},
    "swapped": {
        "kv.l1": "900 KiB", "scheduler.watermark": 0.0, "scheduler.preemption": "swap_host",
        "cluster.gpus.link": {"type": "pcie-gen4-x16", "bandwidth": "0.1 GB/s"},
    },
}  # fmt: skip


def limited(bandwidth: str, burst: str = "100 KB") -> dict[str, Any]:
    return {"tenants": [{"name": "x", "bandwidth": bandwidth, "burst": burst}, {"name": "y"}]}


@pytest.mark.parametrize("burst", [1.0, 1e5, 3e5, 1e9])
def test_a_crossing_alone_takes_its_closed_form(burst: float) -> None:
    """KV of one prompt of 200 tokens: max(size / link, (size - burst) / bandwidth) from the end of its first layer on.

    1e-9: rounding. Would catch: a bucket in wire bytes or by request, one that is empty at the beginning.
    """
    run = owned(CROSSING | limited("4 MB/s", f"{burst} B"), [(0.0, 200, 5)], "x")
    size = 200 * TOKEN
    expected = first_layer(run, 200) + max(size / RATE, (size - burst) / 4e6)
    assert there(run)[0] == pytest.approx(expected, rel=1e-8)


def test_what_one_may_not_use_another_has() -> None:
    """x may have 2 of the 10 MB/s, and y, whose prompt crosses at the same time, has the other 8: S / 8 and S / 2 MB/s.

    Would catch: a budget that is taken from the link for good, a neighbour that waits as well. 1e-5: the burst of 1 B.
    """
    run = owned(CROSSING | limited("2 MB/s", "1 B"), [(0.0, 200, 5), (0.0, 200, 5)], "xy")
    size = 200 * TOKEN
    np.testing.assert_allclose(there(run), first_layer(run, 200) + np.array([size / 2e6, size / 8e6]), rtol=1e-5)
    throttled = [row["throttled_s"] for row in run.summary["tenants"].values()]
    assert throttled == [pytest.approx(size / 2e6, rel=1e-3), 0.0]


def test_tokens_come_as_fast_as_their_bytes_may() -> None:
    """One sequence, 9 steps that read the same s bytes each: the next step begins when those of the last one are paid back, so
    the last token comes 8 s / bandwidth and one step after the first one.

    Would catch: a debt that is forgiven, steps that are charged twice, a sequence that comes back a step late. 1e-4: the
    steps are not quite equal, as the context grows.
    """
    rows = [(0.0, 289, 10)]  # 19 blocks until the end
    free = owned(MIXED | limited("1 TB/s"), rows, "x").columns
    run = owned(MIXED | limited("1 MB/s", "1 B"), rows, "x")
    read = run.summary["tenants"]["x"]["far_read_bytes"]
    gap = (free["finished_s"] - free["first_token_s"])[0] / 9
    expected = 8 / 9 * read / 1e6 + gap
    assert read == free["far_demand_bytes"][0] > 0
    assert (run.columns["finished_s"] - run.columns["first_token_s"])[0] == pytest.approx(expected, rel=1e-4)


def test_pieces_of_a_prompt_wait_for_what_their_past_has_read() -> None:
    """A prompt in pieces of 64 tokens, whose past does not fit in L1 and is read by every piece; it gives out one token.
    y's short ones beside it do not wait. What the last piece reads, at most all blocks but its own, need not be paid back.

    Would catch: prompts that go on while their tenant owes, or hold up the pieces of others.
    """
    rows = [(0.0, 600, 1), (0.05, 30, 1), (0.1, 30, 1)]
    run = owned(MIXED | limited("1 MB/s", "1 B") | {"scheduler.prefill_chunk": "64 tokens"}, rows, "xyy")
    read, last = run.summary["tenants"]["x"]["far_read_bytes"], 600 * TOKEN
    assert read > 2 * last
    assert (read - last) / 1e6 <= run.columns["ttft_s"][0] <= read / 1e6
    assert max(run.columns["ttft_s"][1:]) < 0.02


@pytest.mark.parametrize("name", WORLDS)
def test_a_tenant_never_has_more_than_its_budget(name: str) -> None:
    """In every kind of world all requests end, the invariants hold (`owned` checks them, those of the bucket among them), and
    who is limited takes at least as long as its bytes do.

    Would catch: sequences that are lost while they sit out, gaps and blocks that no longer add up, reads that are not charged.
    """
    settings = WORLDS[name] | limited("5 MB/s")
    run = owned(settings, draw(4, 20, rate=3000.0, prompt=300), "xxy" * 6 + "xy")
    row, time = run.summary["tenants"]["x"], run.summary["simulation"]["simulated_s"]
    moved = row["far_read_bytes"] + row["transfer_bytes"] + row["swap_bytes"]
    assert run.summary["requests"]["finished"] == 20
    assert moved > 1e6
    assert time >= (moved - 1e5 - 2e6) / 5e6  # of the last steps of two replicas nothing has to be paid back
    assert 0.0 < row["throttled_s"] <= time * (1 + 1e-9)
    assert run.summary["tenants"]["y"]["throttled_s"] == 0.0


@pytest.mark.parametrize("name", ["one replica", "replicas", "apart"])
def test_a_budget_that_is_never_used_up_changes_nothing(name: str) -> None:
    """To the last bit where steps are charged; where flows cross the bucket, to rounding.

    Would catch: sequences that leave the batch and come back though nobody is over, a stage that binds while it is open.
    """
    rows, who = draw(9, 10, rate=3000.0, prompt=300), "xy" * 5
    free, run = (owned(WORLDS[name] | tenants, rows, who) for tenants in ({"tenants": [{"name": "x"}, {"name": "y"}]},
                                                                         limited("1 TB/s", "1 TB")))  # fmt: skip
    if name == "apart":
        np.testing.assert_allclose(run.columns["finished_s"], free.columns["finished_s"], rtol=1e-9)
        return
    skipped = ("simulation", "provenance")
    one, other = ({key: value for key, value in found.summary.items() if key not in skipped} for found in (run, free))
    assert json.dumps(one) == json.dumps(other)


@pytest.mark.parametrize("name", ["one replica", "replicas", "apart, with a pool"])
def test_runs_are_their_single_steps(name: str) -> None:
    """Runs of equal steps, where nothing is far, and single ones give the same to the last bit, also around those who sit out.

    Would catch: sequences that come back at the end of a run instead of when they may.
    """
    rows, who = draw(2, 24, rate=150.0, prompt=120), "xy" * 12
    runs = [owned(WORLDS[name] | limited("3 MB/s"), rows, who, coalesce).columns for coalesce in (True, False)]
    assert runs[0]["far_demand_bytes"].any()
    for column, values in runs[0].items():
        np.testing.assert_array_equal(values, runs[1][column], err_msg=column)


def test_the_shipped_scenario_waits_as_it_says() -> None:
    """The numbers at its head: s from the first token until the KV is there, by tenant.

    Would catch: a mechanism that changed and left the text behind.
    """

    def waits(*settings: str) -> list[float]:
        columns = simulate(ROOT / "scenarios" / "tenants_bandwidth.yaml", set=settings).columns
        return [round(columns["transfer_s"][columns["tenant"] == name].mean(), 1) for name in ("batch", "chat")]

    without = "tenants.0.bandwidth=inf"
    assert waits(without) == pytest.approx([2.7, 2.7], abs=0.1)
    assert waits() == [9.2, 1.1]
    assert waits(without, "tenants.1.weight=4") == [3.2, 0.9]
    assert waits(without, "tenants.0.flows=together", "tenants.1.flows=together") == [3.4, 0.6]


@pytest.mark.parametrize("seed", range(3))
def test_a_greedy_tenant_no_longer_slows_a_light_one(seed: int) -> None:
    """Eight long prompts of x beside three short ones of y, and room for all: y's P99 of TTFT and its mean TPOT are a tenth
    of what they are without a limit of x. (Which limit matters less: at most one step of x is under way when y comes.)

    Would catch: a batch that waits for those who are over their budget, a queue whose head blocks the others.
    """
    rng = np.random.default_rng(seed)
    rows = [(float(at), int(prompt), 40) for at, prompt in zip(np.sort(rng.uniform(0, 0.02, 8)), rng.integers(250, 400, 8))]
    rows += [(0.05 + 0.1 * at, 60, 30) for at in range(3)]
    settings = MIXED | {"scheduler.max_batch": 16}
    free, *others = (
        owned(settings | limited(rate), rows, "x" * 8 + "yyy").summary["tenants"]["y"]
        for rate in ("1 TB/s", "50 MB/s", "10 MB/s")
    )
    for light in others:
        assert light["ttft_s"]["p99"] < 0.1 * free["ttft_s"]["p99"]
        assert light["tpot_s"]["mean"] < 0.1 * free["tpot_s"]["mean"]


def test_who_fetches_parked_blocks_waits_alone() -> None:
    """Turns whose blocks were demoted fetch them from L3: with 3 MB/s x's first tokens come later, y's when they came before.

    Would catch: fetches that are not charged, a step that waits for the fetch of one who is over its budget.
    """
    parked = PARKED | {"prefetch": {"predictor": "none"}}
    free, run = (served(parked | tenants).summary["tenants"] for tenants in (limited("1 TB/s"), limited("3 MB/s")))
    assert run["x"]["ttft_s"]["mean"] > 10 * free["x"]["ttft_s"]["mean"]
    assert run["y"]["ttft_s"] == free["y"]["ttft_s"]
    assert run["x"]["far_read_bytes"] == free["x"]["far_read_bytes"] > 1e6


def test_lru_reads_again_what_came_back() -> None:
    """L1 of 10 blocks. Two sequences of 8 sit in it; one sits out, and the scan of the other fits; when it comes back, its
    7 full blocks have gone and are read in every layer, and from then on the scan of 16 never hits.

    Would catch: hits in L1 on pages that others have displaced meanwhile.
    """
    tier = Lru(10, 100, 4)
    for request in (0, 1):
        tier.place(request, 0, 8, lambda: ())
    tier.layers(0, 16, 4)
    tier.layers(0, 8, 4)
    assert tier.layers(0, 8, 4) == [0, 0, 0, 0]  # the other alone
    tier.returns(7)
    back = tier.layers(0, 16, 4)
    assert min(back) == 7 and back[-1] == 14
    assert tier.layers(0, 16, 4) == [14, 14, 14, 14]
