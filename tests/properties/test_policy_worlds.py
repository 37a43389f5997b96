"""KV policies on every shape of model and replica, with and without prefixes: invariants hold, runs are their single steps."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.experiments.run import RunResult, run_scenario
from tests.properties.small import blocks, lasting, same_requests, scenario
from tests.properties.test_model_kinds import EXPERTS, PAIR
from tests.properties.worlds import CHOICES, LAYOUTS, POLICIES, SCHEDULER

Row = dict[str, Any]
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"model.window": "40 tokens"},
    "some windows": {"model.window": "40 tokens", "model.full_layers": 1},
    "pipeline": {"cluster.gpus": PAIR | {"pipeline_parallel": 2}},
    "lock step": EXPERTS | {"cluster.gpus": PAIR | {"data_parallel": 2, "tensor_parallel": 1, "expert_parallel": 2}},
    "one kernel": {"cluster.gpus": {"type": "a6000-48gb"}},
    "prefixes": {"kv.sharing": {"kind": "prefix"}},
    "prefixes read once": {"kv.sharing": {"kind": "prefix", "read": "once"}},
    "prefixes, swapped": {"kv.sharing": {"kind": "prefix"}, "scheduler.preemption": "swap_host"},
}
ROW = st.builds(
    lambda gap, talk, length, more, output: {
        "timestamp": gap, "input_length": 16 * length + more, "output_length": output,
        "hash_ids": [100 * talk + block for block in range(length)] + [10_000 * (length + 7) + more] * (more > 0),
    },
    st.sampled_from([0, 0, 0, 1, 100]), st.integers(0, 2),
    st.integers(0, 5), st.integers(1, 15), st.sampled_from([1, 3, 40, 60, 90]),
)  # fmt: skip


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[str, Any], list[Row]]:
    """(settings, rows of a trace with ids of blocks)."""
    name = draw(st.sampled_from(list(SHAPES)))
    tokens = draw(st.sampled_from([16, 16, 4, 1]))
    found: dict[str, Any] = {
        "kv.block": f"{tokens} tokens",
        **{f"scheduler.{key}": one for key, one in draw(SCHEDULER).items()},
    }
    found |= SHAPES[name] | {"kv.l1": blocks(draw(st.integers(3, 12)))}
    for policy, which in draw(POLICIES).items():
        if policy != "kv.layout":
            found[policy] = CHOICES[policy][which]
        elif "window" in name or "prefixes" in name:
            found[policy] = {"query_heads": 0.5} if "window" in name else {"groups": {"all": {"kv_scale": 0.3}}}
        else:
            found[policy] = {"groups": draw(LAYOUTS)}
    rows = draw(st.lists(ROW, min_size=1, max_size=14))
    at = 0
    for row in rows:
        at = row["timestamp"] = at + row["timestamp"]
    return found, rows


def served(world: tuple[dict[str, Any], list[Row]], coalesce: bool = True) -> RunResult:
    with TemporaryDirectory() as folder:
        Path(folder, "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in world[1]), encoding="utf-8")
        trace = {"workload.trace": {"path": "rows.jsonl", "format": "mooncake", "block": "16 tokens"}}
        return run_scenario(scenario(trace | world[0], folder), check=True, coalesce=coalesce)


@settings(max_examples=80)
@given(world=worlds())
def test_policies_keep_all_accounts(world: tuple[dict[str, Any], list[Row]]) -> None:
    """Tiers of a few blocks, blocks of a token, preemption, evicted prefixes. Catches memory that a shape of model or replica
    counts another way than its policies, blocks that nobody gives back, turns of a curve that a run of steps passes over."""
    together, singly = served(world), served(world, coalesce=False)
    counts = together.summary["requests"]
    assert counts["arrived"] == counts["finished"] + counts["rejected"] == len(world[1])
    same_requests(together, singly)
    assert lasting(together.summary) == lasting(singly.summary)
