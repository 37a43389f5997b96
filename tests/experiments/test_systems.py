"""`speckvsim systems`: systems side by side, what some of them need, and what the command prints."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.figures.draw import figures_of
from analysis.figures.results import open_as_one
from simulator.errors import InputError
from simulator.experiments.systems import SystemsResult, sequences, systems
from simulator.experiments.systems_text import systems_text
from tests.properties.small import blocks, pool, scenario

STUDY: dict[str, Any] = {
    "name": "some",
    "base": {
        "name": "one",
        "workload": {
            "synthetic": {
                "requests": 6, "arrivals": {"process": "at_once"}, "input": {"dist": "fixed", "tokens": "3000 tokens"},
                "output": {"dist": "fixed", "tokens": "20 tokens"},
            }
        },
        "model": "llama-3.1-8b",
        "cluster": {"gpus": {"type": "h100-80gb-sxm", "count": 1}},
    },
    "axes": {"kv.system": ["none", "kivi", "mka", "nosa", "duoattention"]},
    "arms": {"plain": {}, "near": {
        "kv.system": "instinfer", "kv.placement.compute.memory": "1 TB", "kv.placement.compute.bandwidth": "10 GB/s",
        "kv.placement.compute.link": "20 GB/s",
    }},
}  # fmt: skip


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SystemsResult:
    return systems(STUDY, out=tmp_path_factory.mktemp("systems") / "out", jobs=1)


def test_rows(result: SystemsResult) -> None:
    """One row a system; what ran has numbers against `none`, what lacks values names them all, an arm gives them. Catches a
    system compared with itself, a null that runs, an arm shown once for each value of the axis."""
    rows = {row["system"]: row for row in result.rows}
    assert len(rows) == len(result.rows) == 6
    assert rows["none"]["relative"] == 1.0 and rows["none"]["quality"] == "exact"
    ratio = rows["kivi"]["output_tokens_per_s"] / rows["none"]["output_tokens_per_s"]
    assert rows["kivi"]["relative"] == ratio > 1.0
    assert rows["kivi"]["sequences"] / rows["none"]["sequences"] == pytest.approx(3020 / (128 + 0.1875 * 2892), rel=0.03)
    assert rows["mka"]["status"] == "needs" and len(rows["mka"]["needs"]) == 6 and rows["mka"]["error"] is None
    assert rows["nosa"]["status"] == "failed" and "kv_pool" in rows["nosa"]["error"]
    assert rows["instinfer"]["bound_by"] == "pool_memory" and rows["instinfer"]["arm"] == "near"
    assert all(rows[name][key] > 0 for name in ("none", "kivi") for key in ("tpot_s", "ttft_p99_s", "joules_per_output_token"))


def test_text(result: SystemsResult) -> None:
    """Catches a table without what bounds each, a system that vanishes because it lacks a value."""
    text = systems_text(result)
    assert "bound by" in text and "needs: kv.layout.groups.local.share" in text and "kivi: almost the same quality" in text


def test_figure(result: SystemsResult) -> None:
    """Catches a figure without the baseline first, or with systems that did not run."""
    table = figures_of(open_as_one([result.folder]))["systems"].table
    assert list(table["system"]) == ["none", "instinfer", "kivi", "duoattention"]


def test_a_study_without_systems_is_refused() -> None:
    """Catches a sweep over something else passed off as a comparison of systems."""
    with pytest.raises(InputError) as caught:
        systems(STUDY | {"axes": {"scheduler.max_batch": [1, 2]}, "arms": {}})
    assert "kv.system" in caught.value.problems[0].message


def test_names_that_are_no_system() -> None:
    """All of them in one message, with the nearest, before anything runs. Catches a traceback after the sweep."""
    with pytest.raises(InputError) as caught:
        systems(STUDY | {"axes": {"kv.system": ["none", "kivy"]}, "arms": {"far": {"kv.system": "instinfr"}}})
    messages = [f"{one.field} {one.message} {one.hint}" for one in caught.value.problems]
    assert len(messages) == 2 and "'kivi'" in messages[0] and "'instinfer'" in messages[1]


def test_sequences_that_a_pool_holds() -> None:
    """16 blocks each: L1 and L3 together, the larger one where L1 holds copies, L1 alone where the pool is for the preempted;
    and as many as L1 holds the newest tokens of. Catches memory counted that no running sequence can have."""
    lengths = {"dist": "fixed", "tokens": "128 tokens"}
    work = {"requests": 1, "arrivals": {"process": "at_once"}, "input": lengths, "output": lengths}
    beside = pool(l1=64, l3=160) | {"workload.synthetic": work}

    def holds(**more: object) -> int:
        return sequences(scenario(beside | {name.replace("__", "."): value for name, value in more.items()}).resolved)

    assert holds(kv__placement={"eviction": "split"}) == (64 + 160) // 16
    assert holds(kv__placement={"eviction": "lru"}) == 160 // 16
    assert holds(scheduler__preemption="swap_pool") == 64 // 16
    newest = {"k_bits": 2, "v_bits": 2, "residual": "64 tokens"}  # 4 blocks, and the one that fills
    assert holds(kv__placement={"eviction": "split"}, kv__hbm_codec=newest, kv__l1=blocks(20)) == 20 // 5
