"""INV-SENSITIVITY: every field that a scenario may have changes the results of at least one run, or is refused.

For each field of the schema, a world in which it counts and another value; the two runs must differ in the summary or in
the requests (not in `simulation`, which has wall times, nor in `provenance`, which has the hash of the scenario). Where
nothing is said, the world is FAR and the other value is 1.3 times (or 1 more than) the one that the resolved scenario has.
"""

from __future__ import annotations

import copy
import re
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from simulator.experiments.run import RunResult
from simulator.scenario.parts import Section
from simulator.scenario.schema import ScenarioFile
from tests.properties.small import BASE, ROOT, blocks, pool, put, scenario, served

SYNTHETIC = {
    "requests": 30, "arrivals": {"process": "gamma", "rate": "3000 /s", "cv": 2},
    "input": {"dist": "uniform", "low": "10 tokens", "high": "100 tokens"},
    "output": {"dist": "uniform", "low": "2 tokens", "high": "40 tokens"},
}  # fmt: skip
LOGNORMAL = {"dist": "lognormal", "mean": "50 tokens", "cv": 1, "low": "30 tokens", "high": "80 tokens"}
FIXED = {"dist": "fixed", "tokens": "30 tokens"}
AZURE = str(ROOT / "traces" / "AzureLLMInferenceTrace_conv.csv.gz")
SAMPLE = str(ROOT / "traces" / "sample.csv")

def measured(**settings: Any) -> dict[str, Any]:
    """FAR, its ratio measured by the reference codec."""
    return FAR | {"kv.codec": {"ratio": "measured", "measure": settings, "compress_at": "gpu", "decompress_at": "gpu"}}


SLOW = {"type": "pcie-gen4-x16", "read_bandwidth": "2 GB/s", "write_bandwidth": "2 GB/s"}
FAR: dict[str, Any] = pool(l1=12, l3=40, l2=4, outstanding="16 KiB") | {
    "seed": 1,
    "cluster.gpus": {"type": "a100-80gb-sxm", "count": 2, "link": SLOW},
    "cluster.kv_pool.link": SLOW,
    "cluster.kv_pool.switch": {"type": "cxl-2.0-switch", "port_bandwidth": "2 GB/s"},
    "kv.codec": {"ratio": 1.5, "compress_at": "gpu", "decompress_at": "gpu"},
    "prefetch": {"predictor": "statistical", "depth": 1, "coverage": 0.7, "accuracy": 0.7, "latency": "5 us"},
    "scheduler": {"max_batch": 8, "token_budget": "100 tokens", "prefill_chunk": "50 tokens", "host_overhead": "20 us"},
    "slo": {"ttft": "2 ms", "tpot": "0.6 ms"},
    "workload.synthetic": SYNTHETIC,
}
NEAR: dict[str, Any] = {"workload.synthetic": SYNTHETIC}  # GPU only, all HBM
TIGHT = NEAR | {"kv.l1": blocks(14), "scheduler.watermark": 0.0}
TENSORS = str(ROOT / "traces" / "python_reference" / "kv_layer{}.npy")
AT_FPGA = FAR | {"kv.codec": {"ratio": 1.5}}
RENTED = FAR | {"cost.basis": "rent"}
BUDGET = FAR | {"kv.selection": {"kind": "budget", "tokens": "40 tokens"}}
TRACE = {"workload.trace": {"path": AZURE, "limit": 8, "start": "10 s", "end": "1000 s", "rate_scale": 2.0}}
DRAWN = NEAR | {"workload.synthetic": SYNTHETIC | {"input": LOGNORMAL, "output": LOGNORMAL}}
EQUAL = NEAR | {"workload.synthetic": SYNTHETIC | {"input": FIXED, "output": FIXED}}
RECORDED = {"dist": "empirical", "trace": AZURE}
RESAMPLED = (
    {"model.max_context": "8192 tokens"} | NEAR | {"workload.synthetic": SYNTHETIC | {"input": RECORDED, "output": RECORDED}}
)
FULL_HBM = NEAR | {"cluster.gpus": {"type": "a100-80gb-sxm", "memory": "3 GB"}}  # little is left: capacity binds, or shows
LARGE = FAR | {"cluster.gpus": FAR["cluster.gpus"] | {"all_reduce_switch": "1 B"}}  # every message is a large one
WINDOW = TRACE | {"workload.trace.limit": "none", "workload.trace.end": "12 s"}

# field -> (world, other value)
CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "cluster.gpus.all_reduce_switch": (FAR, "1 B"),
    "cluster.gpus.all_reduce_latency": (LARGE, None),
    "cluster.gpus.all_reduce_bandwidth": (LARGE, None),
    "cluster.gpus.paged_attention_flops_efficiency": (FAR, 0.001),
    "seed": (FAR, 2),
    "name": (NEAR, "other"),
    "model.type": (NEAR | {"model": "llama-3.1-8b"}, "llama-2-7b"),
    "model.heads": (FAR, 8),
    "model.kv_heads": (FAR, 4),
    "model.gated_mlp": (FAR, False),
    "model.max_context": (FAR, "60 tokens"),
    "cluster.gpus.type": (NEAR, "h100-80gb-sxm"),
    "cluster.gpus.link.type": (FAR | {"cluster.gpus.link": "pcie-gen4-x8"}, "pcie-gen5-x8"),
    "cluster.gpus.count": (FAR, 4),
    "cluster.gpus.calibrated": (FAR, False),
    "cluster.gpus.memory": (FULL_HBM, "3.5 GB"),
    "cluster.gpus.memory_utilization": (NEAR, 0.8),
    "cluster.gpus.reserve": (NEAR, "3 GiB"),
    "cluster.gpus.gemm_flops_efficiency": (NEAR | {"cluster.gpus": {"type": "t4-16gb"}}, 0.3),
    "cluster.gpus.peak_flops": (NEAR, "10 TFLOP/s"),
    "cluster.gpus.attention_flops_efficiency": (NEAR, 0.001),
    "cluster.gpus.gemm_bandwidth_efficiency": (NEAR, 0.5),
    "cluster.gpus.attention_bandwidth_efficiency": (NEAR, 0.5),
    "cluster.gpus.rent": (RENTED, "5 USD/h"),
    "cluster.kv_pool.board.type": (FAR, "alveo-v80"),
    "cluster.kv_pool.board.engines": (AT_FPGA, 2),
    "cluster.kv_pool.board.engine_rate": (AT_FPGA, "30 GB/s"),
    "cluster.kv_pool.board.engine_fill": (AT_FPGA, "1 us"),
    "cluster.kv_pool.board.outstanding": (FAR, "1 KiB"),
    "cluster.kv_pool.link.type": (FAR | {"cluster.kv_pool.link": "pcie-gen4-x8"}, "pcie-gen5-x8"),
    "cluster.kv_pool.switch.type": (FAR, "cxl-2.0-switch-slow"),
    "kv.block": (FAR, "32 tokens"),
    "kv.l1": (TIGHT, blocks(16)),
    "kv.placement.eviction": (FAR, "lru"),
    "kv.codec.type": (FAR | {"kv.codec": "int8"}, "int4-g64"),
    "kv.codec.measure.synthetic": (measured(synthetic="normal", bits=2), "ar1:0.9999"),
    "kv.codec.measure.tensors": (measured(tensors=TENSORS.format(3), bits=2), TENSORS.format(7)),
    "kv.codec.measure.bits": (measured(synthetic="normal"), 4),
    "kv.codec.measure.axis": (measured(synthetic="ar1:0.9999", bits=4), "channel"),
    "kv.codec.compress_at": (FAR, "fpga"),
    "kv.codec.decompress_at": (FAR, "fpga"),
    "kv.selection.kind": (FAR, {"kind": "budget", "tokens": "40 tokens"}),
    "kv.selection.tokens": (BUDGET, "20 tokens"),
    "prefetch.predictor": (FAR, {"predictor": "oracle"}),
    "prefetch.depth": (FAR | {"kv.l2": blocks(40)}, 3),
    "prefetch.coverage": (FAR, 0.2),
    "prefetch.accuracy": (FAR, 0.4),
    "prefetch.latency": (FAR, "200 us"),
    "slo.tpot": (FAR, "0.4 ms"),
    "scheduler.batching": (FAR, "static"),
    "scheduler.max_batch": (FAR, 4),
    "scheduler.token_budget": (FAR, "64 tokens"),
    "scheduler.prefill_chunk": (FAR, "20 tokens"),
    "scheduler.reserve": (TIGHT, "full"),
    "scheduler.watermark": (TIGHT, 0.2),
    "scheduler.engine": (NEAR, "vllm-v1"),
    "cost.basis": (FAR, "rent"),
    "cost.prices": (FAR, "2025-06"),
    "cost.as_of": (FAR, "another day"),
    "workload.synthetic.requests": (NEAR, 31),
    "workload.synthetic.arrivals.process": (NEAR, {"process": "poisson", "rate": "3000 /s"}),
    "workload.synthetic.input.dist": (NEAR, FIXED),
    "workload.synthetic.output.dist": (NEAR, FIXED),
    "workload.synthetic.input.low": (DRAWN, "35 tokens"),
    "workload.synthetic.input.high": (DRAWN, "60 tokens"),
    "workload.synthetic.output.low": (DRAWN, "35 tokens"),
    "workload.synthetic.output.high": (DRAWN, "60 tokens"),
    "workload.synthetic.input.trace": (RESAMPLED, SAMPLE),
    "workload.synthetic.output.trace": (RESAMPLED, SAMPLE),
    "workload.trace.path": (TRACE | {"workload.trace.start": "0 s"}, SAMPLE),
    "workload.trace.limit": (TRACE, 7),
    "workload.trace.start": (TRACE, "11 s"),
    "workload.trace.end": (WINDOW, "11 s"),
    "workload.trace.rate_scale": (TRACE, 3),
    "workload.trace.arrivals": (TRACE | {"workload.trace.rate_scale": None}, "at_once"),
}
for side in ("input", "output"):
    CHANGES[f"workload.synthetic.{side}.mean"] = (DRAWN, "60 tokens")
    CHANGES[f"workload.synthetic.{side}.cv"] = (DRAWN, 0.5)
    CHANGES[f"workload.synthetic.{side}.tokens"] = (EQUAL, "31 tokens")

LABEL = "a label: it says what the values are, which are tested one by one"
ONE_VALUE = "one accepted value says what is modelled; every other one is refused"
EXEMPT = {
    "cluster.gpus.attention_sequence_bandwidth": "of kernels that do not split sequences: `step_seconds` and `validate` only",
    **dict.fromkeys(("model.name", "cluster.gpus.name", "cluster.gpus.link.name", "cluster.kv_pool.board.name"), LABEL),
    **dict.fromkeys(("cluster.kv_pool.link.name", "cluster.kv_pool.switch.name", "kv.codec.name", "kv.system"), LABEL),
    **dict.fromkeys(("kv.layout.kind", "kv.retention.kind", "kv.topology.kind", "kv.sharing.kind", "kv.loop.kind"), ONE_VALUE),
    "cluster.replicas": ONE_VALUE,
    "cluster.gpus.tensor_parallel": "must be the count of GPUs",
    "workload.trace.format": "says how to read a file that has one format; a wrong one is refused",
}


def leaves(section: type[Section], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Dotted names of all fields below a section."""
    for name, field in section.model_fields.items():
        inner = list(sections(field.annotation))
        if not inner:
            yield ".".join((*path, name))
        for one in inner:
            yield from leaves(one, (*path, name))


def sections(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from sections(inner)


FIELDS = sorted(set(leaves(ScenarioFile)))


def other(value: Any) -> Any:
    """1.3 times a quantity, one more of what is counted."""
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 1.3
    number, unit = re.fullmatch(r"([\d.e+-]+) ?(.*)", value).groups()  # type: ignore[union-attr]
    return f"{int(number) + 1} tokens" if unit.startswith("token") else f"{float(number) * 1.3} {unit}"


@cache
def base(key: str) -> RunResult:
    return served(CHANGES[key][0] if key else FAR)


def text(result: RunResult) -> tuple[str, str]:
    """Everything in a run's results but wall times and hash."""
    summary = {key: value for key, value in result.summary.items() if key not in ("simulation", "provenance")}
    return repr(summary), result.requests.to_csv()


def test_every_field_has_a_change_or_a_reason():
    """Would catch: a new field without a test, a test of a field that is no more."""
    known = set(CHANGES) | set(EXEMPT)
    assert known <= set(FIELDS)
    assert not set(CHANGES) & set(EXEMPT)


@pytest.mark.parametrize("field", [name for name in FIELDS if name not in EXEMPT])
def test_field_changes_something(field: str):
    """Would catch: a field that is read, checked, documented and then ignored."""
    world, value = CHANGES.get(field, (FAR, None))
    if value is None:
        held: Any = scenario(world).resolved.document
        for key in field.split("."):
            held = held[key]
        value = other(held)
    changed = dict(world)
    section = field.rsplit(".", 1)[0] if isinstance(value, dict) else field
    changed = nested(changed, section, value)
    assert text(served(changed)) != text(base(field if field in CHANGES else ""))


def nested(settings: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`settings` and then `path = value`, also where the path lies below or above one of theirs."""
    values = copy.deepcopy(BASE)
    for name, given in settings.items():
        put(values, name, given)
    put(values, path, value)
    return values
