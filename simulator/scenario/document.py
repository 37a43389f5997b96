"""The resolved scenario as plain data in human units: `scenario.resolved.yaml`.

Every value is explicit, so the document loads to the same values even where a preset has changed since; quantities
are written by `units.format_quantity`, which is exact. Paths of traces are absolute. Fields that the scenario does not
use (those of a pool without a pool, of a predictor that is not chosen) are left out, as the schema would refuse them.
"""

from __future__ import annotations

from math import inf
from typing import Any

import yaml

from simulator.scenario import resolved as r
from simulator.scenario.cluster import OWN_KV, cluster_document
from simulator.scenario.faults import faults_document
from simulator.scenario.parts import (
    BoardPart,
    CodecPart,
    CopyEnginePart,
    GpuPart,
    LinkPart,
    ModelPart,
    Part,
    SwitchPart,
)
from simulator.scenario.plain import plain as _plain
from simulator.scenario.policy_document import policies_document
from simulator.scenario.schema import PREDICTORS, Cost
from simulator.scenario.serving_schema import SloClass
from simulator.scenario.yaml_source import scalar
from simulator.units import format_quantity

NOT_BETWEEN = ("credits", "load_factor", "power", "price", "requests")  # of a link that replicas do not use between them
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
        "slo": _slo(scenario.slo),
        "cost": _plain(Cost, scenario.cost),
        "devices": scenario.devices,
    }
    if scenario.tenants:
        found["tenants"] = [_tenant(tenant) for tenant in scenario.tenants]
    return found | ({"faults": faults_document(scenario.faults)} if scenario.faults else {})


def _tenant(tenant: r.Tenant) -> dict[str, Any]:
    found: dict[str, Any] = {"name": tenant.name, "share": tenant.share, "weight": tenant.weight, "flows": tenant.flows}
    if tenant.bandwidth < inf:
        found |= {"bandwidth": format_quantity(tenant.bandwidth, "rate"), "burst": _size(tenant.burst)}
    return found


def to_yaml(document: dict[str, Any]) -> str:
    """YAML that our reader reads back to the same data."""
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)
    return text


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # the same text, by libyaml where it is
    """No anchors; text that our reader would take for a number, a boolean or null is quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if scalar(text) == text else "'")


_Dumper.add_representer(str, _text)


def _cluster(scenario: r.ScenarioResolved) -> dict[str, Any]:
    gpus, pool = scenario.gpus, scenario.pool
    cluster = cluster_document(scenario, lambda group: _group(scenario.of(group)))
    cluster["gpus"] = _gpus(gpus)
    if scenario.cluster.transfer is not None:
        way = scenario.cluster.transfer
        link = {name: value for name, value in _plain(LinkPart, way.link).items() if name not in NOT_BETWEEN}
        cluster["transfer"] = {"link": link, "count": way.links, "threshold": _tokens(way.threshold)}
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
            **({"shared": scenario.cluster.pool_shared} if scenario.cluster.groups else {}),
            "shared_by": pool.shared_by,
            "others_load": pool.others_load,
            **({"weight": pool.weight} if pool.shared_by > 1 else {}),
            "saturation": pool.saturation,
            "memory_price": format_quantity(pool.memory_price, "money_per_size"),
            "memory_power": format_quantity(pool.memory_power, "power_per_size"),
        }
        if mover is not None:
            cluster["kv_pool"]["copy_engine"] |= {"method": mover.method, **({"blocks": mover.blocks} if mover.blocks else {})}
    return cluster


def _gpus(gpus: r.Gpus) -> dict[str, Any]:
    return _plain(GpuPart, gpus.gpu) | {
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


def _group(scenario: r.ScenarioResolved) -> dict[str, Any]:
    """What a group of replicas has of its own."""
    kv = {name: value for name, value in _kv(scenario).items() if name in OWN_KV}
    return {"gpus": _gpus(scenario.gpus), "scheduler": _scheduler(scenario.scheduler), "kv": kv}


def _kv(scenario: r.ScenarioResolved) -> dict[str, Any]:
    kv, codec = scenario.kv, scenario.kv.codec
    found: dict[str, Any] = {"system": kv.system, "block": _tokens(kv.block_tokens)}
    found["l1"] = "none" if kv.l1 is None else _size(kv.l1)  # said, so that a KV system's default does not fill it in
    found["blocks"] = "none" if kv.blocks is None else kv.blocks
    policies = policies_document(kv.policies)
    found |= {name: policies[name] for name in ("layout", "hbm_codec", "retention")} | {"codec": "none"}
    found["placement"] = policies["placement"]
    if scenario.pool is not None:
        found |= {"l2": _size(kv.l2), "burst": _size(kv.burst), "placement": _placement(kv.placement)}
        if codec.compress_at != "none":
            found["codec"] = {name: value for name, value in _plain(CodecPart, codec).items() if value is not None}
    found["selection"] = _selection(kv.selection) | policies["selection"]
    return found | {
        "topology": {"kind": "colocated", **policies["topology"]},
        "sharing": _sharing(kv) | policies["sharing"],
        "loop": policies["loop"],
    }


def _sharing(kv: r.Kv) -> dict[str, Any]:
    if kv.sharing == "private":
        return {"kind": kv.sharing}
    after = {name: _time(getattr(kv.reuse, name)) for name in ("demote_after", "drop_after") if getattr(kv.reuse, name) < inf}
    return {"kind": kv.sharing, "partial": kv.reuse.partial, **after}


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
        found[name] = _time(value) if name in ("latency", "service", "lead") else value
    return found


def _scheduler(steps: r.Scheduler) -> dict[str, Any]:
    return {
        "batching": steps.batching,
        "max_batch": steps.max_batch,
        "token_budget": _tokens(steps.token_budget),
        "prefill_chunk": _tokens(steps.prefill_chunk),
        "queue": steps.queue,
        "preemption": steps.preemption,
        **({"swap_space": _size(steps.swap_space)} if steps.preemption == "swap_host" else {}),
        "admission": steps.admission,
        **({"max_queue": steps.max_queue} if steps.admission == "limit" else {}),
        "reserve": steps.reserve,
        "watermark": steps.watermark,
        "asynchronous": steps.asynchronous,
        "host_overhead": _time(steps.host_overhead),
        "host_per_sequence": _time(steps.host_per_sequence),
    }


def _slo(slo: r.Slo) -> dict[str, Any]:
    found: dict[str, Any] = {name: _time(value) for name in ("ttft", "tpot") if (value := getattr(slo, name)) is not None}
    return found | ({"classes": [_plain(SloClass, one) for one in slo.given]} if slo.given else {})


def _workload(work: r.Workload) -> dict[str, Any]:
    if work.path:
        trace: dict[str, Any] = {"path": work.path, "format": work.format, "limit": work.limit or "none"}
        trace |= {"start": _time(work.start), "end": _time(work.end), "malformed": "skip" if work.skip else "refuse"}
        if work.block:
            trace["block"] = _tokens(work.block)
        if work.process in ("recorded", "at_once"):
            trace |= {"arrivals": work.process, "rate_scale": work.rate_scale}
        else:
            trace["starts"] = _arrivals(work)
        return {"trace": trace}
    if work.clients:
        window = {"start": _time(work.start), "end": _time(work.end), "limit": work.limit}
        rate = {} if work.rate == inf else {"rate": _rate(work.rate)}
        return {"clients": {"path": work.clients, **window, **rate}}
    arrivals = _arrivals(work)
    assert work.input is not None and work.output is not None
    lengths = {"input": _lengths(work.input), "output": _lengths(work.output)}
    sessions = {"sessions": _sessions(work.chats)} if work.chats else {}
    return {"synthetic": {"requests": work.requests, "arrivals": arrivals, **lengths, **sessions}}


def _arrivals(work: r.Workload) -> dict[str, Any]:
    arrivals: dict[str, Any] = {"process": work.process}
    varying = work.varying
    if work.process == "mmpp":
        return arrivals | {"rates": [_rate(one) for one in varying.rates], "dwell": [_time(one) for one in varying.dwell]}
    if work.process != "at_once":
        arrivals["rate"] = _rate(work.rate)
    if work.process == "gamma":
        arrivals["cv"] = work.cv
    if work.process == "diurnal":
        arrivals |= {"amplitude": varying.amplitude, "period": _time(varying.period)}
    if work.process in ("ramp", "spike"):
        arrivals |= {"peak": _rate(varying.peak), "over": _time(varying.over)}
    if work.process == "spike":
        arrivals["at"] = _time(varying.at)
    return arrivals


def _sessions(chats: r.Chats) -> dict[str, Any]:
    return {
        "turns": chats.turns,
        "spread": "fixed" if chats.fixed else "geometric",
        "think": _time(chats.think),
        "think_cv": chats.think_cv,
        "prefixes": [{"tokens": _tokens(level.tokens), "count": level.count} for level in chats.prefixes],
        "skew": chats.skew,
    }


def _rate(value: float) -> str:
    return format_quantity(value, "request_rate")


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
        "geometric": {"mean": _tokens(int(lengths.mean)), "high": _tokens(lengths.high)},
        "empirical": {"trace": lengths.trace},
    }
    return {"dist": lengths.dist, **used[lengths.dist]}


def _time(value: float) -> str:
    return "inf" if value == inf else format_quantity(value, "time")


def _size(value: float) -> str:
    return format_quantity(value, "size")


def _tokens(value: int) -> str:
    return format_quantity(value, "tokens")
