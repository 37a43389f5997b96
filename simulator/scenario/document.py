"""The resolved scenario as plain data in human units: `scenario.resolved.yaml`.

Every value is explicit, so the document loads to the same values even where a preset has changed since; quantities
are written by `units.format_quantity`, which is exact. Paths of traces are absolute. Fields that the scenario does not
use (those of a pool without a pool, of a predictor that is not chosen) are left out, as the schema would refuse them.
"""

from __future__ import annotations

from dataclasses import fields
from math import inf
from typing import Any

import yaml

from simulator.scenario import resolved as r
from simulator.scenario.faults import faults_document
from simulator.scenario.parts import (
    BoardPart,
    CodecPart,
    CopyEnginePart,
    GpuPart,
    LinkPart,
    ModelPart,
    Part,
    Section,
    SwitchPart,
)
from simulator.scenario.quantities import Quantity, Tokens
from simulator.scenario.schema import PREDICTORS, Cost
from simulator.scenario.yaml_source import scalar
from simulator.units import format_quantity

BOARD_LINK_ONLY = ("load_factor", "power", "price")  # of a link that a GPU's own port does not use


def document_of(scenario: r.ScenarioResolved) -> dict[str, Any]:
    """A plain dict that loads to the same resolved values."""
    found = {
        "name": scenario.name,
        "seed": scenario.seed,
        "workload": _workload(scenario.workload),
        "model": _plain(ModelPart, scenario.model),
        "cluster": _cluster(scenario),
        "kv": _kv(scenario),
        "prefetch": _prefetch(scenario.prefetch),
        "scheduler": _scheduler(scenario.scheduler),
        "slo": {name: _time(value) for name in ("ttft", "tpot") if (value := getattr(scenario.slo, name)) is not None},
        "cost": _plain(Cost, scenario.cost),
        "devices": scenario.devices,
    }
    return found | ({"faults": faults_document(scenario.faults)} if scenario.faults else {})


def to_yaml(document: dict[str, Any]) -> str:
    """YAML that our reader reads back to the same data."""
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)
    return text


class _Dumper(yaml.SafeDumper):
    """No anchors; text that our reader would take for a number, a boolean or null is quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if scalar(text) == text else "'")


_Dumper.add_representer(str, _text)


def _plain(section: type[Section], value: Any) -> dict[str, Any]:
    """The fields of a dataclass that `section` has, in the units of `section`."""
    names = [field.name for field in fields(value) if field.name in section.model_fields]
    plain = {name: _human(section, name, getattr(value, name)) for name in names if name != "link"}
    return {name: held for name, held in plain.items() if held is not None}


def _human(section: type[Section], name: str, value: Any) -> Any:
    for kind in section.model_fields[name].metadata:
        if isinstance(kind, Quantity):
            return format_quantity(value, kind.dimension)
        if isinstance(kind, Tokens):
            return _tokens(value)
    return value


def _cluster(scenario: r.ScenarioResolved) -> dict[str, Any]:
    gpus, pool = scenario.gpus, scenario.pool
    cluster: dict[str, Any] = {"replicas": 1, "gpus": _plain(GpuPart, gpus.gpu)}
    cluster["gpus"] |= {
        "link": {key: value for key, value in _plain(LinkPart, gpus.gpu.link).items() if key not in BOARD_LINK_ONLY},
        "count": gpus.count,
        "tensor_parallel": gpus.tensor_parallel,
        "pipeline_parallel": gpus.pipeline_parallel,
        "data_parallel": gpus.data_parallel,
        "expert_parallel": gpus.expert_parallel,
        "memory_utilization": gpus.memory_utilization,
        "reserve": _size(gpus.reserve),
        "activations": _size(gpus.activations),
    }
    if pool is not None:
        parts: list[tuple[str, type[Part], Any]] = [("board", BoardPart, pool.board), ("link", LinkPart, pool.link)]
        if pool.switch is not None:
            parts.append(("switch", SwitchPart, pool.switch))
        mover = pool.mover
        if mover is not None:
            parts.append(("copy_engine", CopyEnginePart, mover.engine))
        if pool.leaf is not None:
            parts.append(("leaf", SwitchPart, pool.leaf))
        cluster["kv_pool"] = {key: _plain(section, part) for key, section, part in parts}
        if pool.leaf is not None:
            cluster["kv_pool"]["leaves"] = pool.leaves
        cluster["kv_pool"] |= {
            "count": pool.boards,
            "links_per_board": pool.links_per_board,
            "placement": pool.placement,
            "gpus_per_port": pool.gpus_per_port,
            "shared_by": pool.shared_by,
            "others_load": pool.others_load,
            "saturation": pool.saturation,
            "memory_price": format_quantity(pool.memory_price, "money_per_size"),
            "memory_power": format_quantity(pool.memory_power, "power_per_size"),
        }
        if mover is not None:
            cluster["kv_pool"]["copy_engine"] |= {"method": mover.method, **({"blocks": mover.blocks} if mover.blocks else {})}
    return cluster


def _kv(scenario: r.ScenarioResolved) -> dict[str, Any]:
    kv, codec = scenario.kv, scenario.kv.codec
    found: dict[str, Any] = {"system": kv.system, "block": _tokens(kv.block_tokens)}
    found["l1"] = "none" if kv.l1 is None else _size(kv.l1)  # said, so that a KV system's default does not fill it in
    found["blocks"] = "none" if kv.blocks is None else kv.blocks
    found |= {"layout": {"kind": "native"}, "codec": "none", "retention": {"kind": "full"}}
    if scenario.pool is not None:
        found |= {"l2": _size(kv.l2), "burst": _size(kv.burst), "placement": _placement(kv.placement)}
        if codec.compress_at != "none":
            found["codec"] = {name: value for name, value in _plain(CodecPart, codec).items() if value is not None}
    found["selection"] = _selection(kv.selection)
    return found | {
        "topology": {"kind": "colocated"},
        "sharing": {"kind": kv.sharing},
        "loop": {"kind": "autoregressive"},
    }


def _placement(placement: r.Placement) -> dict[str, Any]:
    found: dict[str, Any] = {name: getattr(placement, name) for name in ("eviction", "l2", "write_back")}
    if placement.eviction == "hot":
        found |= {"threshold": placement.threshold, "adapt": placement.adapt}
    return found


def _selection(selection: r.Selection) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": selection.kind}
    if selection.budget:
        found["tokens"] = _tokens(selection.budget)
    if selection.kind == "pages":
        names = ["dense_layers", "select_every", "index", "overlap", "floor", "refresh"]
        found |= {name: getattr(selection, name) for name in (["fraction"] if selection.fraction else []) + names}
    return found


def _prefetch(prefetch: r.Prefetch) -> dict[str, Any]:
    found: dict[str, Any] = {"predictor": prefetch.predictor}
    for name in PREDICTORS[prefetch.predictor]:
        value = getattr(prefetch, name)
        found[name] = _time(value) if name in ("latency", "service") else value
    return found


def _scheduler(steps: r.Scheduler) -> dict[str, Any]:
    return {
        "batching": steps.batching,
        "max_batch": steps.max_batch,
        "token_budget": _tokens(steps.token_budget),
        "prefill_chunk": _tokens(steps.prefill_chunk),
        "reserve": steps.reserve,
        "watermark": steps.watermark,
        "asynchronous": steps.asynchronous,
        "host_overhead": _time(steps.host_overhead),
        "host_per_sequence": _time(steps.host_per_sequence),
    }


def _workload(work: r.Workload) -> dict[str, Any]:
    if work.path:
        trace: dict[str, Any] = {"path": work.path, "format": work.format, "limit": work.limit or "none"}
        trace |= {"start": _time(work.start), "end": _time(work.end), "arrivals": work.process}
        trace["rate_scale"] = work.rate_scale
        return {"trace": trace}
    arrivals: dict[str, Any] = {"process": work.process}
    if work.process != "at_once":
        arrivals["rate"] = format_quantity(work.rate, "request_rate")
    if work.process == "gamma":
        arrivals["cv"] = work.cv
    assert work.input is not None and work.output is not None
    lengths = {"input": _lengths(work.input), "output": _lengths(work.output)}
    return {"synthetic": {"requests": work.requests, "arrivals": arrivals, **lengths}}


def _lengths(lengths: r.Lengths) -> dict[str, Any]:
    used: dict[str, dict[str, Any]] = {
        "fixed": {"tokens": _tokens(lengths.tokens)},
        "uniform": {"low": _tokens(lengths.low), "high": _tokens(lengths.high)},
        "lognormal": {
            "mean": _tokens(int(lengths.mean)),
            "cv": lengths.cv,
            "low": _tokens(lengths.low),
            "high": _tokens(lengths.high),
        },
        "empirical": {"trace": lengths.trace},
    }
    return {"dist": lengths.dist, **used[lengths.dist]}


def _time(value: float) -> str:
    return "inf" if value == inf else format_quantity(value, "time")


def _size(value: float) -> str:
    return format_quantity(value, "size")


def _tokens(value: int) -> str:
    return format_quantity(value, "tokens")
