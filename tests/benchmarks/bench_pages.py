"""Speed and memory with page identity: the full CXL-SpecKV arrangement, every block in the page table, timing per layer.

16-token blocks, 256 sequences of 2,048 to 2,560 tokens, L1 less than half of the KV, a statistical predictor with the
authors' coverage and accuracy. Prints medians of three runs beside a bare SimPy loop; asserts nothing about time. Rates are
per second of processor time, so that a shared machine does not show.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from time import process_time

import pytest

from simulator import Scenario
from simulator.experiments import server
from simulator.experiments.run import run_scenario
from simulator.kvcache.table import PageTable
from tests.benchmarks.bench_speed import bare_loop

SCENARIO = Path(__file__).parents[2] / "scenarios" / "cxl_next_layer.yaml"
BASE = (
    "model=llama-3.1-8b", "cluster.gpus.count=1", "kv.l1=16 GiB", "kv.l2=3 GiB",
    "prefetch={predictor: statistical, coverage: 0.947, accuracy: 0.872, depth: 4}",
)  # fmt: skip
WORKLOAD = (
    "workload={{synthetic: {{requests: {}, arrivals: {{process: at_once}}, input: {{dist: fixed, tokens: 2048 tokens}}, "
    "output: {{dist: fixed, tokens: 512 tokens}}}}}}"
)
SPARSE = "kv.selection={kind: pages, tokens: 1024 tokens, dense_layers: 2, select_every: 8, overlap: 0.8}"
LRU = "kv.placement.eviction=lru"  # what the authors' L1 does
CASES = {
    "lru, by counts, batch 64": (False, 64, ("kv.l1=4 GiB", LRU)),
    "lru, by counts, batch 256": (False, 256, (LRU,)),
    "split, by counts": (False, 256, ()),
    "split, batch 256": (True, 256, ()),
    "split, batch 64": (True, 64, ("kv.l1=4 GiB",)),
    "lru, batch 64": (True, 64, ("kv.l1=4 GiB", LRU)),
    "lru, batch 256": (True, 256, (LRU,)),
    "share, batch 256": (True, 256, ("kv.placement.eviction=share",)),
    "history, batch 64": (True, 64, ("kv.l1=4 GiB", "prefetch={predictor: history, depth: 4}")),
    "split, sparse, batch 64": (True, 64, ("kv.l1=4 GiB", SPARSE)),
}


@pytest.mark.parametrize("name", CASES)
def test_speed(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a check: one line a case."""
    identity, batch, settings = CASES[name]
    if identity:
        monkeypatch.setattr(server, "needs_table", lambda *_: True)
    scenario = Scenario.load(SCENARIO, (*BASE, f"scheduler.max_batch={batch}", WORKLOAD.format(2 * batch), *settings))
    tables: list[tuple[int, int]] = []  # live blocks, bytes
    add = PageTable.add

    def watched(table: PageTable, *args: object) -> object:
        rows = add(table, *args)  # type: ignore[arg-type]
        tables.append((table.live, table.bytes))
        return rows

    monkeypatch.setattr(PageTable, "add", watched)
    rates, bare = [], []
    for _ in range(3):
        began = process_time()
        result = run_scenario(scenario)
        run = result.summary["simulation"]
        rates.append(int(result.columns["output_tokens"].sum()) / (process_time() - began))
        bare.append(bare_loop(run["steps"], run["mean_batch"]))
    live, size = max(tables, default=(0, 0))
    weight = f"{size / live:5.1f} B a live block of {live}" if live else "no page table"
    with capsys.disabled():
        print(
            f"\n{name:24} {median(rates) / 1e3:6.0f} k tokens/s   mean batch {run['mean_batch']:5.1f}   {weight}   "
            f"bare SimPy loop {median(bare) / 1e6:.1f} M tokens/s ({median(rates) / median(bare):.4f} of it)"
        )
