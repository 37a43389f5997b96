"""Far bytes and waits by request: against hand counts, against pages by name, in sums."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.experiments import server
from simulator.metrics.far_share import COLUMNS
from simulator.scheduler.planning import PlannedReplica
from tests.properties.small import BLOCK, LAYERS, Rows, draw, pool, served

STATIC = {"scheduler.batching": "static", "scheduler.watermark": 0.0}
PAGE = BLOCK / LAYERS


def test_on_demand_by_hand() -> None:
    """LRU and an L1 of four blocks: each of ten decode steps reads all full blocks of both sequences from L3, six of one and
    two of the other; no block fills up. The waits go the same way.

    Would catch: weights that take effect a step early or late, newest blocks that are charged, sequences charged alike.
    """
    world = STATIC | pool(4, 200, 8) | {"kv.placement.eviction": "lru", "prefetch": {"predictor": "none"}}
    columns = served(world, [(0.0, 6 * 16 + 1, 11), (0.0, 2 * 16 + 1, 11)]).columns
    long, short = columns["far_demand_bytes"]
    # prompts: the longer one is written in a step of its own, so what differs from 10 x 6 and 10 x 2 blocks is prompt reads
    assert short == pytest.approx(10 * 2 * LAYERS * PAGE, rel=1e-9)
    assert long == pytest.approx(10 * 6 * LAYERS * PAGE, rel=1e-9)
    waits = columns["far_stall_s"]
    assert waits[0] / waits[1] == pytest.approx(3.0, rel=1e-9)


@pytest.mark.parametrize("predictor", ["none", "next_layer"])
@pytest.mark.parametrize("seed", range(2))
def test_by_count_is_by_name(predictor: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Split, many requests that come and go: what is charged by counts of blocks is what pages by name give, to rounding.

    Would catch: a demotion, a block that leaves L1, a join or a leave that changes a weight in the wrong step.
    """
    world = pool(24, 60, 8) | {"prefetch": {"predictor": predictor}}
    rows: Rows = draw(seed, 25)
    counted = served(world, rows)
    monkeypatch.setattr(server, "needs_table", lambda *_: True)
    named = served(world, rows)
    assert counted.columns["far_demand_bytes"].sum() > 0
    for name in COLUMNS:
        np.testing.assert_allclose(named.columns[name], counted.columns[name], rtol=1e-9, err_msg=name)


def test_nobody_is_charged_for_nothing() -> None:
    """What fits in L1 reads nothing far. Would catch: shares of nothing that are NaN."""
    columns = served(pool(40, 40), [(0.0, 50, 20)] * 3).columns
    for name in COLUMNS:
        assert not columns[name].any()


def test_sequences_that_are_brought_push_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode replicas: KV that arrives takes L1 from the sequences that run. In every step each is charged for what it has in
    L3, but for a block that leaves L1 in that very step.

    Would catch: room made for a sequence that came with its KV, of which the readers hear nothing.
    """
    reads, compared = PlannedReplica._far_reads, []

    def looked(self: PlannedReplica, pieces: list[tuple[int, int]], produced: int, decodes: int) -> tuple[int, int]:
        leaving = dict(self.readers.later)
        found = reads(self, pieces, produced, decodes)
        if decodes:
            far = self.residency.far
            due = {request: far[request] - (request in leaving) for request in self.batch.offset}
            assert self.readers.of_step(True) == {request: blocks for request, blocks in due.items() if blocks}
            compared.append(any(due.values()))
        return found

    monkeypatch.setattr(PlannedReplica, "_far_reads", looked)
    roles = [{"role": "prefill", "replicas": 1}, {"role": "decode", "replicas": 1}]
    served(pool(14, 200, 8) | {"cluster.groups": roles, "cluster.transfer.link": "pcie-gen5-x16"}, draw(1, 25))
    assert sum(compared) > 20
