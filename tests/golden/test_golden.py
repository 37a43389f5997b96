"""Golden outputs: what the shipped scenarios gave when somebody last looked at them and agreed.

`expected.json` holds selected summary metrics of each scenario. A change of the model changes them: look at every
difference, explain it in the commit, and write them anew with

    SPECKVSIM_UPDATE_GOLDEN=1 pytest tests/golden

Tolerances: counts 1e-9 (they are integers), all else 1e-6 relative: another numpy may sum in another order.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from simulator import simulate

SCENARIOS = Path(__file__).parents[2] / "scenarios"
EXPECTED = Path(__file__).with_name("expected.json")
NAMES = ("quickstart", "gpu_only", "gpu_only_l1", "cxl_nospec", "cxl_next_layer", "dense_mha_bound")

METRICS = (
    "throughput", "latency.*.mean", "latency.*.p99", "goodput", "requests", "prefetch", "kv_access", "compression", "stall",
    "tiers.*.peak_bytes", "tiers.*.mean_bytes", "utilization", "energy", "cost.usd_per_million_output_tokens",
    "cost.usd_per_hour", "bound_by", "simulation.simulated_s", "simulation.steps", "simulation.mean_batch",
)  # fmt: skip


def pick(tree: dict[str, Any], pattern: list[str], path: str = "") -> dict[str, Any]:
    """Leaves under a dotted pattern, `*` for any key, by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if not pattern or pattern[0] in ("*", key):
            name = f"{path}{key}"
            found |= pick(value, pattern[1:], f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def measure(name: str, *overrides: str) -> dict[str, Any]:
    summary = simulate(SCENARIOS / f"{name}.yaml", set=list(overrides)).summary
    measured: dict[str, Any] = {}
    for metric in METRICS:
        picked = pick(summary, metric.split("."))
        assert picked, f"{name}: the summary has no {metric}"
        measured |= picked
    return measured


def differences(measured: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """One line a metric that is missing, new, or outside its tolerance."""
    lines = [f"{name}: not expected" for name in measured.keys() - expected.keys()]
    for name, want in expected.items():
        got = measured.get(name)
        if isinstance(want, int | float) and isinstance(got, int | float):
            tolerance = 1e-9 if isinstance(want, int) else 1e-6
            if abs(got - want) <= tolerance * abs(want):
                continue
        elif got == want:
            continue
        lines.append(f"{name}: {got!r}, expected {want!r}")
    return sorted(lines)


@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str) -> None:
    """Would catch: a change of results that nobody meant."""
    measured = measure(name)
    if os.environ.get("SPECKVSIM_UPDATE_GOLDEN"):
        every = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
        every[name] = measured
        EXPECTED.write_text(json.dumps(every, indent=1, sort_keys=True) + "\n")
        return
    assert differences(measured, json.loads(EXPECTED.read_text())[name]) == []


def test_the_comparison_can_fail() -> None:
    """Links that are 5 % slower turn it red, in throughput, latency and stall.

    Would catch: tolerances that swallow everything, a comparison of nothing.
    """
    slower = measure("dense_mha_bound", "cluster.kv_pool.link.bandwidth=60.8 GB/s")
    red = differences(slower, measure("dense_mha_bound"))
    for metric in ("throughput.decode_output_tokens_per_s", "latency.itl_s.mean", "stall.link_s"):
        assert any(line.startswith(f"{metric}:") for line in red)


def test_missing_and_new_metrics_are_differences() -> None:
    """Would catch: a metric that disappears from the summary, or null for a number."""
    assert differences({"a": 1.0, "b": None}, {"a": 1.0 + 1e-7, "b": None}) == []
    assert len(differences({"a": 1.0}, {"b": 1.0})) == 2
    assert len(differences({"a": None}, {"a": 1.0})) == 1
    assert len(differences({"a": 1000}, {"a": 1001})) == 1
