"""Prefix hits through a whole replica: the scheduler's own cache in a server that is idle and takes no time.

The reference figures are those published with the traces (oracle: one LRU cache, zero service time), or counts by brute force.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.experiments.simulation import Simulation
from simulator.scenario import Scenario
from simulator.workload.read import read_trace
from simulator.workload.requests import Requests, all_at_once

ROOT = Path(__file__).parents[2]
MOONCAKE = ROOT / "traces" / "mooncake_conversation_trace.jsonl.gz"
SESSIONS = {  # recorded sessions of agents: share of blocks that their own session had before
    "agentic_coding_sessions_9.jsonl.gz": 0.933,
    "agentic_coding_sessions_80.jsonl.gz": 0.958,
}
RECORDED = ROOT / "analysis" / "validation" / "data"
MODEL = {
    "layers": 1, "hidden": 64, "heads": 1, "kv_heads": 1, "head_dim": 64, "intermediate": 64, "vocab": 100,
    "gated_mlp": True, "max_context": "10000000 tokens", "weight_bytes": 2, "kv_bytes": 2,
}  # fmt: skip


def idle_server(requests: Requests, block: int, blocks: int, partial: bool = False, **scheduler: Any) -> dict[str, int]:
    """Blocks of prompts and hits by tier of a replica that serves one request after the other, or as many as it is told."""
    values = {
        "name": "idle", "model": MODEL, "cluster": {"gpus": {"type": "h100-80gb-sxm"}},
        "kv": {"block": f"{block} tokens", "blocks": blocks, "sharing": {"kind": "prefix", "partial": partial}},
        "scheduler": {
            "max_batch": 1, "token_budget": "1000000 tokens", "watermark": 0.0, "reserve": "full",
        } | scheduler,
        "workload": {"trace": {"path": str(MOONCAKE)}},
    }  # fmt: skip
    simulation = Simulation(Scenario.from_dict(values, ".").resolved, requests)
    simulation.run()
    return simulation.recorder.prefix_blocks


def one_token(requests: Requests) -> Requests:
    """Answers of one token, which needs no place of its own: the oracle knows prompts only."""
    return replace(requests, output_tokens=np.ones(len(requests), np.int64), output_ids=None)


ORACLE = {1_000: 0.0445, 5_000: 0.1118, 10_000: 0.2116, 30_000: 0.3257, 50_000: 0.3546, 100_000: 0.3637, 300_000: 0.3664}


@pytest.mark.parametrize("blocks", [pytest.param(size, marks=() if size == 10_000 else pytest.mark.slow) for size in ORACLE])
def test_the_conversation_trace_hits_as_its_oracle(blocks: int) -> None:
    """All 12,031 requests, blocks of 512 tokens with the last partial one: to the four digits of the reference.

    Would catch: blocks evicted in another order than last used first gone, a tail that outlives its head, a last block that is
    never or always found, a block counted for two.
    """
    found = idle_server(one_token(read_trace(MOONCAKE)), 512, blocks, partial=True)
    assert found["asked"] == 288_500
    assert round(found["l1"] / found["asked"], 4) == ORACLE[blocks]


def brute_force(requests: Requests) -> tuple[int, int]:
    """Blocks, and those in a leading run that an earlier request had, in the order of arrival; never all tokens (vLLM)."""
    assert requests.hash_ids is not None
    seen: set[int] = set()
    total = hits = 0
    for row in range(len(requests)):
        ids = requests.hash_ids[row].tolist()
        most = min(len(ids), (int(requests.input_tokens[row]) - 1) // requests.block_tokens)
        run = next((index for index in range(most) if ids[index] not in seen), most)
        total, hits = total + len(ids), hits + run
        seen.update(ids)
    return total, hits


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if "80" in name else ()) for name in SESSIONS])
def test_sessions_of_agents_reuse_what_they_said(name: str) -> None:
    """Recorded sessions in a closed loop, unbounded cache: the blocks of a count in the order in which calls are served.

    The order of calls of sub-agents beside their parents depends on the server, so a few blocks of 286,142 (9,816,049) differ.
    Would catch: sessions that find each other's blocks, ids that lose their session, turns served before what they repeat.
    """
    requests = all_at_once(read_trace(ROOT / "traces" / name))
    found = idle_server(one_token(requests), 64, 10_000_000)
    total, hits = brute_force(requests)
    assert found["asked"] == total and found["l1"] == pytest.approx(hits, rel=1e-3)
    assert round(found["l1"] / total, 3) == SESSIONS[name]


@pytest.mark.parametrize(("name", "share"), [("llama31", 0.0765), ("qwen3", 0.0797)])
def test_recorded_vllm_workloads(name: str, share: float) -> None:
    """The published upper bounds, with ids of answers: 7.65 % and 7.97 % of prompt blocks, by vLLM's rule at most a block less
    for each request that repeats a whole prompt. Would catch: answers that are not found again, blocks of another size.
    """
    requests = read_trace(RECORDED / f"vllm_measured_workload_{name}_blocks16.jsonl.gz")
    found = idle_server(requests, 16, 400_000)
    assert 0.076 <= found["l1"] / found["asked"] <= 0.080
    assert found["l1"] / found["asked"] == pytest.approx(share, abs=32 / found["asked"])
