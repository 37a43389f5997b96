"""Fluid against detailed devices: at most 5 % on throughput and means, 10 % on P99, inside the validity of the fluid model; and
scenarios outside it said before anything runs.

The bounds are the design's; what is found is far below them (`-s` prints it)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import InputError
from simulator.experiments import crosscheck as module
from simulator.experiments.crosscheck import crosscheck
from simulator.experiments.validity import reasons
from simulator.scenario import Scenario
from tests.properties.small import ROOT, blocks, pool, scenario

POOL = "cluster.kv_pool"
MEAN, TAIL = 5.0, 10.0  # per cent
WORK = {
    "requests": 24, "arrivals": {"process": "poisson", "rate": "30 /s"},
    "input": {"dist": "uniform", "low": "100 tokens", "high": "1000 tokens"},
    "output": {"dist": "fixed", "tokens": "60 tokens"},
}  # fmt: skip
SMALL: dict[str, Any] = pool(l1=60, l3=4000, l2=400, link="20 GB/s", outstanding="256 KiB") | {
    "workload.synthetic": WORK,
    "scheduler": {"max_batch": 8, "token_budget": "2048 tokens"},
}

# what is changed in the quickstart (200 of its requests), in the syntax of --set
BOARD = f"{POOL}.board=agilex-7-buildable"
INSIDE: dict[str, list[str]] = {
    "as it is": [],
    "raw, 64 KiB": [BOARD, "kv.burst=64 KiB", "kv.codec=none"],
    "3.56 to 1, codec on the GPU": [
        BOARD, "kv.burst=64 KiB", "kv.codec={ratio: 3.56, compress_at: gpu, decompress_at: gpu}",
    ],
    "one switch": [BOARD, "kv.burst=64 KiB", f"{POOL}.switch=cxl-2.0-switch"],
    "three uplinks": [BOARD, "kv.burst=64 KiB", f"{POOL}.switch={{type: pcie-gen4-switch, uplinks: 3}}"],
    "tree": [
        BOARD, "kv.burst=64 KiB", f"{POOL}.switch=cxl-2.0-switch", f"{POOL}.leaf={{type: cxl-2.0-switch, uplinks: 1}}",
        f"{POOL}.leaves=2",
    ],
    "two links a board": [BOARD, "kv.burst=64 KiB", f"{POOL}.links_per_board=2", f"{POOL}.link=pcie-gen5-x16"],
    "GPU pairs": [BOARD, "kv.burst=64 KiB", f"{POOL}.gpus_per_port=2"],
    "shared by two": [BOARD, "kv.burst=64 KiB", f"{POOL}.shared_by=2", f"{POOL}.others_load=0.3"],
    "2 MiB, 1 outstanding": ["kv.burst=2 MiB", f"{POOL}.board={{type: agilex-7-buildable, outstanding: 2 MiB}}"],
    "2 MiB, 64 outstanding": ["kv.burst=2 MiB", f"{POOL}.board={{type: agilex-7-buildable, outstanding: 128 MiB}}"],
    "256 KiB, 16 outstanding": ["kv.burst=256 KiB", f"{POOL}.board={{type: agilex-7-buildable, outstanding: 4 MiB}}"],
    "4 KiB, 64 outstanding": ["kv.burst=4 KiB", f"{POOL}.board={{type: agilex-7-buildable, outstanding: 256 KiB}}"],
    "4 KiB, 2 outstanding": ["kv.burst=4 KiB", f"{POOL}.board={{type: agilex-7-buildable, outstanding: 8 KiB}}"],
    "16 KiB, 4 outstanding": ["kv.burst=16 KiB", f"{POOL}.board={{type: agilex-7-buildable, outstanding: 64 KiB}}"],
    "on demand": ["prefetch={predictor: none}"],
    "next layer": [BOARD, "kv.burst=64 KiB", "prefetch={predictor: next_layer}"],
    "oracle": [BOARD, "kv.burst=64 KiB", "prefetch={predictor: oracle}"],
    "half right, half covered": [BOARD, "kv.burst=64 KiB", "prefetch.coverage=0.5", "prefetch.accuracy=0.5"],
    "LRU thrashes: reads and write-back": [BOARD, "kv.burst=64 KiB", "kv.placement.eviction=lru"],
    "slow links into a switch that buffers one burst": [
        "kv.burst=256 KiB", f"{POOL}.board={{type: agilex-7-buildable, outstanding: 256 KiB}}", f"{POOL}.count=8",
        f"{POOL}.link=pcie-gen3-x16", f"{POOL}.switch={{type: pcie-gen4-switch, uplinks: 2}}", "prefetch={predictor: none}",
    ],
    "weighted inputs": [
        BOARD, "kv.burst=64 KiB", f"{POOL}.switch={{type: cxl-2.0-switch, uplinks: 1, arbitration: weighted, weights: [3, 1]}}",
    ],
    "three boards, eight GPUs": [BOARD, "kv.burst=64 KiB", f"{POOL}.count=3"],
}  # fmt: skip
OUTSIDE: dict[str, tuple[list[str], str]] = {
    "one descriptor": (["kv.burst=4 KiB", f"{POOL}.board={{type: agilex-7-buildable, outstanding: 4 KiB}}"], "outstanding"),
    "tiny bursts": (["kv.burst=128 B"], "tiny bursts"),
    "TLB thrash": ([f"{POOL}.board.tlb_walk=1 us"], "TLB thrash"),
    "random placement": ([f"{POOL}.placement=hash"], "random placement"),
    "too few credits": ([f"{POOL}.link.credits=8 KiB"], "credits"),
    "slow rows": ([f"{POOL}.board.banks=1", f"{POOL}.board.row_cycle=2 us"], "rows"),
}


def quickstart(*settings: str) -> Scenario:
    return Scenario.load(ROOT / "scenarios" / "quickstart.yaml", set=["workload.trace.limit=200", *settings])


def assert_close(found: dict[str, Any], what: str) -> None:
    bounds = {"output_tokens_per_s": MEAN, "itl_s_mean": MEAN, "ttft_s_mean": MEAN, "itl_s_p99": TAIL, "ttft_s_p99": TAIL}
    differences = {name: found[f"{name}_diff_pct"] for name in bounds}
    print(f"{what:35} {json.dumps({name: value and round(value, 2) for name, value in differences.items()})}")
    assert found["valid"], found["reasons"]
    for name, bound in bounds.items():
        assert differences[name] is None or abs(differences[name]) <= bound, (what, name)


@pytest.mark.parametrize("predictor", ["statistical", "none"])
def test_small_systems_agree(predictor: str) -> None:
    """Would catch: a device of the path that one of the models does not have, a rate shared twice."""
    spec = {"predictor": predictor} | ({"coverage": 0.8, "accuracy": 0.8, "depth": 2} if predictor == "statistical" else {})
    found = crosscheck(scenario(SMALL | {"prefetch": spec}), most=5000)
    assert_close(found, predictor)
    assert found["window"]["steps"] >= 50 and found["burst_bytes"] == 4096.0


def test_the_detailed_model_sees_what_the_fluid_one_does_not() -> None:
    """A TLB that thrashes behind a walk of 2 us: more than 30 % slower, and said so before.

    Would catch: a comparison of the fluid model with itself.
    """
    board = SMALL["cluster.kv_pool.board"] | {"tlb_walk": "2 us"}
    found = crosscheck(scenario(SMALL | {"cluster.kv_pool.board": board, "prefetch": {"predictor": "none"}}), most=2000)
    assert not found["valid"] and "TLB thrash" in found["reasons"][0]
    assert found["far_step_s_mean_diff_pct"] > 30.0


def test_it_is_deterministic() -> None:
    """Would catch: an order that depends on hashes or identities (INV-DETERMINISM)."""
    once, again = (crosscheck(scenario(SMALL), most=500) for _ in range(2))
    assert json.dumps(once) == json.dumps(again)


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_is_outside_is_said_before_running(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch: a predicate that needs a run, or one that accepts everything."""
    settings, reason = OUTSIDE[name]
    monkeypatch.setattr(module, "Simulation", None)
    assert any(reason in text for text in reasons(quickstart(*settings).resolved))


@pytest.mark.parametrize("name", INSIDE)
def test_what_is_inside_is_not_flagged(name: str) -> None:
    """Would catch: a predicate that flags everything."""
    assert reasons(quickstart(*INSIDE[name]).resolved) == []


def test_nothing_to_compare() -> None:
    """Would catch: a traceback, or empty metrics, where no step is far or there is no pool."""
    with pytest.raises(InputError, match="no step of this run reads from the pool"):
        crosscheck(scenario(SMALL | {"kv.l1": blocks(4000)}))
    with pytest.raises(InputError, match="there is no kv_pool"):
        crosscheck(Scenario.load(ROOT / "scenarios" / "gpu_only.yaml"))


def test_all_that_cannot_be_replayed_is_said_at_once() -> None:
    """What detailed devices refuse in a run, in the same words, and what a recording does not have.

    Would catch: one reason at a time, a scenario that one of the two accepts.
    """
    unfit = {
        "kv.placement": {"eviction": "lfu", "l2": "inclusive"}, "faults": [{"what": "link_down", "at": "1 s"}],
        "prefetch": {"predictor": "next_layer", "priority": "equal"},
    }  # fmt: skip
    with pytest.raises(InputError) as error:
        crosscheck(scenario(SMALL | unfit))
    assert {problem.field or problem.where for problem in error.value.problems} == {
        "kv.placement.eviction", "kv.placement.l2", "prefetch.priority", "faults",
    }  # fmt: skip
    with pytest.raises(InputError) as refused:
        scenario(SMALL | unfit | {"devices": "detailed"})
    run = {problem.message for problem in refused.value.problems}
    assert run == {problem.message for problem in error.value.problems if problem.where != "faults"}


@pytest.mark.slow
@pytest.mark.parametrize("name", INSIDE)
def test_quickstart_and_its_variants_agree(name: str) -> None:
    """The design's bounds over ratios, topologies, bursts of 4 KiB to 2 MiB, 1 to 64 outstanding, and classes of traffic."""
    assert_close(crosscheck(quickstart(*INSIDE[name]), most=20_000), name)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Text and JSON of the command; a step count below 50 is refused.

    Would catch: keys that scripts rely on renamed, a table that cannot be printed.
    """
    from simulator.cli import main
    from simulator.scenario.document import to_yaml

    file = tmp_path / "small.yaml"
    file.write_text(to_yaml(scenario(SMALL).resolved.document))

    def command(*options: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["speckvsim", "crosscheck", str(file), "--quiet", *options])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), capsys.readouterr().out

    code, text = command()
    assert code == 0 and "bursts of 4 KiB" in text and "itl_s_mean" in text
    found = json.loads(command("--json")[1])
    assert {"output_tokens_per_s_diff_pct", "itl_s_p99_diff_pct", "ttft_s_mean_diff_pct", "valid", "reasons"} <= set(found)
    assert command("--steps", "10")[0] == 2
