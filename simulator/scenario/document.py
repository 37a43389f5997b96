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
from simulator.scenario.parts import BoardPart, GpuPart, LinkPart, ModelPart, Part, Section, SwitchPart
from simulator.scenario.quantities import Quantity, Tokens
from simulator.scenario.schema import PREDICTORS, Cost
from simulator.scenario.yaml_source import scalar
from simulator.units import format_quantity


def document_of(scenario: r.ScenarioResolved) -> dict[str, Any]:
    """A plain dict that loads to the same resolved values."""
    return {
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
    }


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
    return {name: _human(section, name, getattr(value, name)) for name in names if name != "link"}


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
        "link": _plain(LinkPart, gpus.gpu.link),
        "count": gpus.count,
        "tensor_parallel": gpus.tensor_parallel,
        "memory_utilization": gpus.memory_utilization,
        "reserve": _size(gpus.reserve),
    }
    if pool is not None:
        parts: list[tuple[str, type[Part], Any]] = [("board", BoardPart, pool.board), ("link", LinkPart, pool.link)]
        if pool.switch is not None:
            parts.append(("switch", SwitchPart, pool.switch))
        cluster["kv_pool"] = {key: _plain(section, part) for key, section, part in parts}
        cluster["kv_pool"] |= {
            "count": pool.boards,
            "links_per_board": pool.links_per_board,
            "memory_price": format_quantity(pool.memory_price, "money_per_size"),
        }
    return cluster


def _kv(scenario: r.ScenarioResolved) -> dict[str, Any]:
    kv, codec = scenario.kv, scenario.kv.codec
    found: dict[str, Any] = {"system": kv.system, "block": _tokens(kv.block_tokens)}
    found["l1"] = "none" if kv.l1 is None else _size(kv.l1)  # said, so that a KV system's default does not fill it in
    found |= {"layout": {"kind": "native"}, "codec": "none", "retention": {"kind": "full"}}
    if scenario.pool is not None:
        found |= {"l2": _size(kv.l2), "burst": _size(kv.burst), "placement": {"eviction": kv.eviction}}
        if codec.compress_at != "none":
            found["codec"] = {name: getattr(codec, name) for name in ("ratio", "compress_at", "decompress_at")}
    found["selection"] = {"kind": kv.selection.kind}
    if kv.selection.kind == "budget":
        found["selection"]["tokens"] = _tokens(kv.selection.budget)
    return found | {
        "topology": {"kind": "colocated"},
        "sharing": {"kind": "private"},
        "loop": {"kind": "autoregressive"},
    }


def _prefetch(prefetch: r.Prefetch) -> dict[str, Any]:
    found: dict[str, Any] = {"predictor": prefetch.predictor}
    for name in PREDICTORS[prefetch.predictor]:
        value = getattr(prefetch, name)
        found[name] = _time(value) if name == "latency" else value
    return found


def _scheduler(steps: r.Scheduler) -> dict[str, Any]:
    return {
        "batching": steps.batching,
        "max_batch": steps.max_batch,
        "token_budget": _tokens(steps.token_budget),
        "prefill_chunk": _tokens(steps.prefill_chunk),
        "reserve": steps.reserve,
        "watermark": steps.watermark,
        "host_overhead": _time(steps.host_overhead),
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
