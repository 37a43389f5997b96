"""A resolved scenario, written as YAML, loads to the same values: INV-DETERMINISM starts here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.scenario import Scenario
from simulator.scenario.resolved import ScenarioResolved
from simulator.scenario.schema import json_schema
from simulator.scenario.yaml_source import read_text

from .conftest import SAMPLE


def values(resolved: ScenarioResolved) -> ScenarioResolved:
    """All but where the values came from."""
    return replace(resolved, sources={})


def again(scenario: Scenario) -> Scenario:
    """Through text and back, away from the folder that relative paths started at."""
    return Scenario.from_dict(read_text(scenario.to_yaml(), "again").data, "/")


@pytest.mark.parametrize(
    "setting",
    ["seed=7", "kv.codec=none", "cluster.kv_pool.switch=none", "prefetch={predictor: oracle}",
     "workload.trace.limit=none", "workload.trace={path: ../traces/conv.csv, arrivals: at_once, end: 12 s}",
     "name='1e9'", "name='no'", "name='inf'",
     "name='a: b # c'", "name='010'", "name='null'", "kv.l1=none", "kv.selection={kind: budget, tokens: 1024 tokens}",
     "cluster.gpus.price=0.1 USD", "cluster.kv_pool.board.outstanding=inf"],
)  # fmt: skip
def test_sample(load, setting):
    """Texts that look like numbers, absent parts, presets that would fill in again what was switched off."""
    first = load(SAMPLE, setting)
    second = again(first)
    assert values(second.resolved) == values(first.resolved)
    assert (second.sha256, second.to_yaml()) == (first.sha256, first.to_yaml())


amount = st.floats(1e-6, 1e6, allow_nan=False, allow_infinity=False)
tokens = st.integers(1, 1000).map(lambda n: f"{n} tokens")
LENGTHS = st.one_of(
    st.builds(lambda n: {"dist": "fixed", "tokens": n}, tokens),
    st.builds(lambda a, b: {"dist": "uniform", "low": f"{min(a, b)} tokens", "high": f"{max(a, b)} tokens"},
              st.integers(1, 1000), st.integers(1, 1000)),
    st.builds(lambda m, cv: {"dist": "lognormal", "mean": m, "cv": cv}, tokens, amount),
)  # fmt: skip
ARRIVALS = st.one_of(
    st.just({"process": "at_once"}),
    st.builds(lambda p, r: {"process": p, "rate": f"{r!r} /s"}, st.sampled_from(["poisson", "constant"]), amount),
    st.builds(lambda r, cv: {"process": "gamma", "rate": f"{r!r} /min", "cv": cv}, amount, amount),
)
PREFETCH = st.one_of(
    st.sampled_from([{"predictor": "none"}, {"predictor": "oracle"}, {}]),
    st.builds(lambda d: {"predictor": "next_layer", "depth": d}, st.integers(0, 99)),
    st.builds(lambda c, a, t: {"predictor": "statistical", "coverage": c, "accuracy": a, "latency": f"{t!r} us"},
              st.floats(0, 1), st.floats(1e-3, 1), amount),
)  # fmt: skip


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, Any]:
    """A valid scenario: any name, with or without a pool."""
    pool = draw(st.booleans())
    kv: dict[str, Any] = {
        "block": draw(tokens),
        "l1": draw(st.sampled_from(["none", "20 GB", "7 GiB", "12345678901 B"])),
    }
    cluster: dict[str, Any] = {
        "gpus": {
            "type": draw(st.sampled_from(["a100-80gb-sxm", "h100-80gb-sxm"])),
            "count": draw(st.sampled_from([1, 2, 8])),
            "reserve": f"{draw(amount)!r} KiB",
            "memory_utilization": draw(st.floats(0.8, 1.0)),
        }
    }
    if pool:
        kv |= {"l2": "3 GiB", "burst": draw(st.sampled_from(["4 KiB", "1 MiB"]))}
        kv["system"] = draw(st.sampled_from(["none", "cxl-speckv"]))
        place = st.sampled_from(["fpga", "gpu"])
        codec = st.builds(lambda r, c, d: {"ratio": r, "compress_at": c, "decompress_at": d}, amount, place, place)
        kv["codec"] = draw(st.one_of(st.sampled_from(["none", "int8"]), codec))
        cluster["kv_pool"] = {
            "board": "agilex-7-speckv",
            "count": draw(st.integers(1, 9)),
            "link": {
                "type": "pcie-gen4-x16",
                "bandwidth": draw(st.one_of(st.just("inf"), amount.map(lambda r: f"{r!r} GB/s"))),
            },
            "switch": draw(st.sampled_from(["none", "cxl-2.0-switch"])),
        }
    return {
        "name": draw(st.text(min_size=1).filter(lambda text: text.isprintable() and text.strip())),
        "seed": draw(st.integers(0, 2**40)),
        "workload": {"synthetic": {"requests": draw(st.one_of(st.just("one_batch"), st.integers(1, 10**6))),
                                   "arrivals": draw(ARRIVALS), "input": draw(LENGTHS), "output": draw(LENGTHS)}},
        "model": draw(st.sampled_from(["llama-2-7b", "llama-3.1-8b"])),
        "cluster": cluster,
        "kv": kv,
        "prefetch": draw(PREFETCH) if pool else {},
        "scheduler": {"max_batch": draw(st.integers(1, 2048)), "watermark": draw(st.floats(0, 1)),
                      "host_overhead": f"{draw(amount)!r} ms"},
        "slo": draw(st.sampled_from([{}, {"ttft": "2 s"}, {"tpot": "0.033 s", "ttft": "1 min"}])),
        "cost": {"basis": draw(st.sampled_from(["purchase", "rent"])), "pue": draw(st.floats(1, 2))},
    }  # fmt: skip


@given(scenarios())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_valid_scenario(data: dict[str, Any]):
    """No value may change its last bit on the way through human units, whatever the names and amounts."""
    first = Scenario.from_dict(data, "/")
    assert values(again(first).resolved) == values(first.resolved)


def test_schema_covers_the_sample(load):
    """The JSON schema is for editors: sections, examples, names of the catalogue; no field of a preset is required."""
    schema = json_schema()
    parts = schema["$defs"]
    assert set(schema["properties"]) == set(read_text(SAMPLE, "f").data) | {"cost", "devices", "faults", "tenants"}
    assert schema["required"] == ["name", "workload", "model", "cluster"]
    names, mapping = parts["LinkPart"]["anyOf"]
    assert "pcie-gen4-x16" in names["enum"] and "bandwidth" in mapping["properties"] and "required" not in mapping
    assert parts["Kv"]["properties"]["burst"]["examples"] and parts["Kv"]["properties"]["burst"]["description"]


def test_the_written_file_says_everything(load):
    """The resolved file needs no preset: a later catalogue must not change an old run."""
    text = load().to_yaml()
    assert "type:" not in text and "max_context: 4096 tokens" in text and str(Path("../traces/conv.csv").resolve()) in text
