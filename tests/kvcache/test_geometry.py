"""Sizes of pages and blocks, and how many blocks a tier holds, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from simulator.kvcache.geometry import Geometry, geometry
from simulator.scenario import Scenario
from simulator.scenario.resolved import ScenarioResolved

GIB = 2**30
QUICKSTART = Path(__file__).parents[2] / "scenarios" / "quickstart.yaml"


def resolved(*overrides: str) -> ScenarioResolved:
    return Scenario.load(QUICKSTART, set=list(overrides)).resolved


def test_grouped_query_attention() -> None:
    """llama-3.1-70b, 80 layers, 8 KV heads of 128, fp16, 8 ranks, 16 tokens: 2 x 1 x 128 x 2 B x 16 = 8 KiB a page.

    A block is 8 ranks x 80 layers x 8 KiB = 5 MiB. Would catch: K without V, query heads, a page of all ranks.
    """
    sizes = geometry(resolved())
    assert sizes.page_bytes == 8192
    assert sizes.layer_bytes == 65_536
    assert sizes.block_bytes == 5 * 2**20
    assert sizes.l1_blocks == int(8 * 0.75 * GIB / (5 * 2**20)) == 1228
    assert sizes.l2_bytes == 4 * GIB
    assert sizes.l3_blocks == int(sizes.l3_bytes * sizes.ratio / (5 * 2**20))


def test_multi_head_attention() -> None:
    """llama-2-7b, 32 layers, 32 heads of 128, one GPU: 256 KiB a page, 8 MiB a block, 0.5 MiB a token.

    Would catch: shapes of another model, heads divided although there is one rank.
    """
    scenario = resolved("model=llama-2-7b", "cluster.gpus.count=1", "cluster.gpus.tensor_parallel=1")
    sizes = geometry(scenario)
    assert sizes.page_bytes == 256 * 1024
    assert sizes.block_bytes == 8 * 2**20
    assert scenario.model.kv_bytes_per_token * 16 == sizes.block_bytes


@pytest.mark.parametrize(("kv_heads", "ranks", "copies"), [(8, 8, 1), (8, 4, 1), (4, 8, 2), (1, 8, 8), (2, 8, 4)])
def test_more_ranks_than_heads_hold_copies(kv_heads: int, ranks: int, copies: int) -> None:
    """A block takes `copies` times the bytes of its tokens: capacity and traffic multiply.

    Would catch: half a head a rank, copies that cost nothing.
    """
    scenario = resolved()
    scenario = replace(
        scenario,
        model=replace(scenario.model, kv_heads=kv_heads),
        gpus=replace(scenario.gpus, count=ranks, tensor_parallel=ranks),
    )
    sizes = geometry(scenario)
    once = 2 * kv_heads * 128 * 2 * 16 * 80
    assert sizes.block_bytes == copies * once
    assert sizes.l1_blocks == int(0.75 * GIB * ranks // (copies * once))


def test_without_l1_all_hbm_that_is_left_holds_kv() -> None:
    """Memory x utilisation - weights / ranks - reserve, less L2.

    Would catch: weights on one GPU only, a reserve shared by the ranks, L2 that comes on top of HBM.
    """
    scenario = resolved()
    scenario = replace(scenario, kv=replace(scenario.kv, l1=None))
    gpus, model = scenario.gpus, scenario.model
    weights = model.parameters * 2 / 8
    left = gpus.gpu.memory * gpus.memory_utilization - weights - gpus.reserve - gpus.activations
    assert scenario.hbm_left == pytest.approx(left)
    assert 50e9 < left < 60e9  # 85 GB x 0.9 - 17.6 GB - reserve
    assert geometry(scenario).l1_blocks == int((left - 0.5 * GIB) * 8 // (5 * 2**20))


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (16, 1), (17, 2), (32, 2), (33, 3)])
def test_blocks_of_tokens(tokens: int, blocks: int) -> None:
    """Would catch: the partial block forgotten, a block too many at the boundary."""
    assert Geometry(16, 1, 1, 1.0, 1.0, 1, 1.0, 1, 1.0, 1.0).blocks(tokens) == blocks
