"""From the checked file to `ScenarioResolved`: defaults that depend on other fields, SI units, and sources."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from math import inf
from operator import mul
from typing import Any, TypeVar

from pydantic import ValidationError

from simulator.errors import InputError, Problem
from simulator.scenario import resolved as r
from simulator.scenario import workload_schema as w
from simulator.scenario.asked import Level
from simulator.scenario.capacity import profile_activations
from simulator.scenario.checks import cross_checks
from simulator.scenario.cluster import cluster_checks, common_gpus, note_presets, resolve_cluster, sources_of
from simulator.scenario.document import document_of
from simulator.scenario.faults import faults_of
from simulator.scenario.measured_ratio import measure_ratio
from simulator.scenario.messages import problems_of
from simulator.scenario.parts import PROFILE, CodecPart, CopyEnginePart, GpuPart, Part
from simulator.scenario.policy_schema import made
from simulator.scenario.presets import fill
from simulator.scenario.schema import PREDICTORS, Kv, Pool, Prefetch, ScenarioFile, Selection, Sharing
from simulator.scenario.serving_schema import Scheduler, TenantPart
from simulator.scenario.source import Source, Where

T = TypeVar("T")
BURST = 0.1  # s of its bandwidth that a tenant may move at once
SWAP_SPACE = 4 * 2.0**30  # bytes per GPU: vLLM's default


def resolve(source: Source, base_dir: str) -> r.ScenarioResolved:
    """Fill up, check and resolve; `InputError` with every problem. Paths are relative to `base_dir`."""
    measure_ratio(source, base_dir)
    common_gpus(source)
    groups = sources_of(source)
    fill(source, base_dir)
    try:
        file = ScenarioFile.model_validate(source.data)
    except ValidationError as error:
        found = problems_of(error, source, ScenarioFile) + _groups(groups, source, base_dir)[1]
        raise InputError(_in_order(source.problems + found)) from None
    scenario, problems = _resolve(file, base_dir), source.problems
    resolved, refused = _groups(groups, source, base_dir)
    if not refused:
        scenario = replace(scenario, cluster=resolve_cluster(file.cluster, scenario, resolved))
        problems = problems + list(cluster_checks(scenario, file.cluster, source))
    problems = problems + cross_checks(scenario, file, source) + refused
    if problems:
        raise InputError(_in_order(problems))
    document = document_of(scenario)
    return replace(scenario, sources=_sources(document, source), document=document)


def _groups(groups: list[Source], source: Source, base_dir: str) -> tuple[list[r.ScenarioResolved], list[Problem]]:
    """Each group of replicas as a scenario of one replica, and what is wrong with them."""
    found, problems = [], []
    for index, own in enumerate(groups):
        try:
            found.append(resolve(own, base_dir))
        except InputError as error:
            problems += error.problems
        else:
            note_presets(source, index, own)
    return found, problems


def _in_order(problems: list[Any]) -> list[Any]:
    """By line; what has no line comes last."""

    def line(problem: Any) -> tuple[int, int]:
        numbers = [int(part) for part in problem.where.rsplit(":", 2)[1:] if part.isdigit()]
        return (numbers[0], numbers[-1]) if numbers else (10**9, 0)

    return sorted(dict.fromkeys(problems), key=line)


def _resolve(file: ScenarioFile, base_dir: str) -> r.ScenarioResolved:
    steps, model = file.scheduler, _part(r.Model, file.model)
    return r.ScenarioResolved(
        name=file.name,
        seed=file.seed,
        workload=_workload(file, base_dir),
        model=model,
        gpus=_gpus(file.cluster.gpus, model, steps),
        pool=_pool(file.cluster.kv_pool),
        kv=_kv(file.kv, file.cluster.kv_pool is not None and file.kv.sharing.kind == "prefix"),
        prefetch=resolve_prefetch(file.prefetch, file.model.layers),
        scheduler=r.Scheduler(
            batching=steps.batching,
            max_batch=steps.max_batch,
            token_budget=steps.token_budget,
            prefill_chunk=steps.token_budget if steps.prefill_chunk is None else steps.prefill_chunk,
            reserve=steps.reserve,
            watermark=steps.watermark,
            asynchronous=steps.asynchronous,
            host_overhead=steps.host_overhead or 0.0,
            host_per_sequence=steps.host_per_sequence or 0.0,
            queue=steps.queue,
            preemption=steps.preemption,
            swap_space=(steps.swap_space or SWAP_SPACE) if steps.preemption == "swap_host" else 0.0,
            admission=steps.admission,
            max_queue=steps.max_queue or 0,
        ),
        slo=r.Slo(
            file.slo.ttft,
            file.slo.tpot,
            tuple(r.SloClass(*(getattr(part, field.name) for field in fields(r.SloClass))) for part in file.slo.classes),
        ),
        tenants=tuple(map(tenant_of, file.tenants)),
        cost=r.Cost(**{field.name: getattr(file.cost, field.name) for field in fields(r.Cost)}),
        devices=file.devices,
        sources={},
        document={},
        faults=faults_of(file.faults),
    )


def tenant_of(part: TenantPart) -> r.Tenant:
    bandwidth = part.bandwidth or inf
    if bandwidth == inf:
        return r.Tenant(part.name, part.share, part.weight, part.flows)
    return r.Tenant(part.name, part.share, part.weight, part.flows, bandwidth, part.burst or BURST * bandwidth)


def _part(kind: type[T], part: Part, **more: Any) -> T:
    """A dataclass from the part of the same fields."""
    names = [field.name for field in fields(kind) if field.name not in more]  # type: ignore[arg-type]
    values = {name: part.label if name == "name" else getattr(part, name) for name in names}
    return kind(**values, **more)


def _gpus(part: GpuPart, model: r.Model, steps: Scheduler) -> r.Gpus:
    gpu = _part(r.Gpu, part, link=_part(r.Link, part.link))
    if part.tensor_parallel in (None, 1) and part.count == part.expert_parallel == 1:
        gpu = replace(gpu, all_reduce_latency=0.0, all_reduce_bandwidth=inf)  # nothing to reduce, whatever the preset says
    ranks = part.tensor_parallel or max(1, part.count // (part.pipeline_parallel * part.data_parallel))
    activations = part.activations
    if activations == PROFILE:
        activations = profile_activations(model, ranks, steps.token_budget, steps.max_batch)
    return r.Gpus(
        gpu, part.count, ranks, part.memory_utilization, part.reserve, activations, part.pipeline_parallel,
        part.data_parallel, part.expert_parallel,
    )  # fmt: skip


def _pool(pool: Pool | None) -> r.Pool | None:
    if pool is None:
        return None
    return r.Pool(
        board=_part(r.Board, pool.board),
        boards=pool.count,
        links_per_board=pool.links_per_board,
        link=_part(r.Link, pool.link),
        switch=_part(r.Switch, pool.switch) if pool.switch else None,
        leaf=_part(r.Switch, pool.leaf) if pool.leaf else None,
        leaves=pool.leaves,
        gpus_per_port=pool.gpus_per_port,
        placement=pool.placement,
        shared_by=pool.shared_by,
        others_load=pool.others_load,
        weight=pool.weight,
        saturation=pool.saturation,
        memory_price=pool.memory_price,
        mover=_mover(pool.copy_engine) if pool.copy_engine else None,
        memory_power=pool.memory_power,
    )


def _mover(part: CopyEnginePart) -> r.Mover:
    return r.Mover(_part(r.CopyEngine, part), part.method, part.blocks if part.method == "gather" else 0)


def _codec(part: CodecPart) -> r.Codec:
    return r.Codec(**{field.name: getattr(part, field.name) for field in fields(r.Codec)})


def _kv(kv: Kv, parks: bool) -> r.Kv:
    """`parks`: a pool holds what a prefix cache evicts, in order of use."""
    codec = r.Codec(1.0, "none", "none")
    if kv.codec is not None:
        codec = _codec(kv.codec)
    return r.Kv(
        system=kv.system,
        block_tokens=kv.block,
        l1=kv.l1,
        blocks=kv.blocks,
        l2=kv.l2,
        burst=kv.burst,
        placement=r.Placement(
            kv.placement.eviction or ("lru" if parks else "split"),
            kv.placement.l2,
            kv.placement.write_back,
            10 if kv.placement.threshold is None else kv.placement.threshold,
            bool(kv.placement.adapt),
        ),
        codec=codec,
        selection=_selection(kv.selection),
        sharing=kv.sharing.kind,
        policies=policies_of(kv),
        reuse=_reuse(kv.sharing),
    )


def policies_of(kv: Kv) -> r.Policies:
    chosen = kv.selection
    return r.Policies(
        layout=kv.layout.resolved(),
        codec=kv.hbm_codec.resolved(),
        retention=made(r.Retention, kv.retention),
        reading=made(r.Reading, chosen),
        compute=kv.placement.compute.resolved(),
        latent=kv.topology.latent,
        read=kv.sharing.read,
        loop=kv.loop.resolved(),
    )


def _reuse(sharing: Sharing) -> r.ReuseRules:
    names = [field.name for field in fields(r.ReuseRules) if getattr(sharing, field.name) is not None]
    return r.ReuseRules(**{name: getattr(sharing, name) for name in names})


def _selection(given: Selection) -> r.Selection:
    names = ("fraction", "dense_layers", "select_every", "index", "overlap", "floor", "refresh")
    values = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    return r.Selection(given.kind, given.tokens or 0, **values)


def resolve_prefetch(prefetch: Prefetch, layers: int) -> r.Prefetch:
    """A perfect predictor is one with coverage and accuracy 1; the oracle looks ahead as far as there are layers."""
    name = prefetch.predictor
    if name == "none":
        return r.Prefetch("none", 0, 0.0, 1.0, 0.0)
    values: dict[str, Any] = {"depth": layers if name in ("oracle", "stream") else 1, "coverage": 1.0, "accuracy": 1.0}
    values |= {"latency": 0.0}
    if name == "token_model":
        values["model"] = "markov3"
    if name == "cxl_speckv":
        values |= {"depth": 2, "service": 10e-6, "queue": 16, "addresses": "positions"}
    values |= {field: getattr(prefetch, field) for field in PREDICTORS[name] if getattr(prefetch, field) is not None}
    return r.Prefetch(name, **values)


def _workload(file: ScenarioFile, base_dir: str) -> r.Workload:
    trace, synthetic, clients = file.workload.trace, file.workload.synthetic, file.workload.clients
    if trace is not None:
        return r.Workload(
            path=_absolute(trace.path, base_dir),
            format=trace.format,
            limit=trace.limit,
            start=trace.start,
            end=trace.end,
            rate_scale=1.0 if trace.rate_scale is None else trace.rate_scale,
            requests=0,
            input=None,
            output=None,
            block=trace.block or 0,
            skip=trace.malformed == "skip",
            **_process(trace.starts, trace.arrivals or "recorded"),
        )
    if clients is not None:
        return r.Workload(
            path="", format="auto", limit=clients.limit, start=clients.start, end=clients.end, rate_scale=1.0,
            process="recorded", rate=clients.rate or inf, cv=0.0, requests=0, input=None, output=None,
            clients=_absolute(clients.path, base_dir),
        )  # fmt: skip
    assert synthetic is not None  # one of the three: the schema saw to that
    requests = synthetic.requests
    return r.Workload(
        path="",
        format="auto",
        limit=None,
        start=0.0,
        end=inf,
        rate_scale=1.0,
        **_process(synthetic.arrivals, ""),
        requests=file.scheduler.max_batch if requests == "one_batch" else int(requests),
        input=_lengths(synthetic.input, file.model.max_context, base_dir),
        output=_lengths(synthetic.output, file.model.max_context, base_dir),
        chats=_chats(synthetic.sessions, file.model.max_context),
    )


def _process(arrivals: w.Arrivals | None, otherwise: str) -> dict[str, Any]:
    """Arrival process with its rate and what else it needs."""
    if arrivals is None:
        return {"process": otherwise, "rate": 0.0, "cv": 0.0}
    if arrivals.process == "at_once" or arrivals.rate == inf:
        return {"process": "at_once", "rate": 0.0, "cv": arrivals.cv or 0.0}
    names = [field.name for field in fields(r.Varying) if getattr(arrivals, field.name) is not None]
    rate = arrivals.rate or 0.0
    if arrivals.rates is not None and arrivals.dwell is not None:
        rate = sum(map(mul, arrivals.rates, arrivals.dwell)) / sum(arrivals.dwell)
    varying = r.Varying(**{name: getattr(arrivals, name) for name in names})
    return {"process": arrivals.process, "rate": rate, "cv": arrivals.cv or 0.0, "varying": varying}


def _chats(sessions: w.Sessions | None, max_context: int) -> r.Chats | None:
    if sessions is None:
        return None
    prefixes = tuple(Level(level.tokens, level.count) for level in sessions.prefixes)
    fixed = sessions.spread == "fixed"
    return r.Chats(sessions.turns, sessions.think, sessions.think_cv, max_context, fixed, prefixes, sessions.skew)


def _lengths(spec: w.Fixed | w.Uniform | w.LogNormal | w.Geometric | w.Empirical, max_context: int, base_dir: str) -> r.Lengths:
    if isinstance(spec, w.Fixed):
        return r.Lengths("fixed", tokens=spec.tokens)
    if isinstance(spec, w.Uniform):
        return r.Lengths("uniform", low=spec.low, high=spec.high)
    if isinstance(spec, w.LogNormal):
        return r.Lengths("lognormal", low=spec.low, high=spec.high or max_context, mean=float(spec.mean), cv=spec.cv)
    if isinstance(spec, w.Geometric):
        return r.Lengths("geometric", high=spec.high or max_context, mean=float(spec.mean))
    return r.Lengths("empirical", trace=_absolute(spec.trace, base_dir))


def _absolute(path: str, base_dir: str) -> str:
    return os.path.abspath(os.path.join(base_dir, path))


def _sources(document: dict[str, Any], source: Source) -> dict[str, str]:
    """Where each value of the resolved document came from, by its dotted path."""
    found: dict[str, str] = {}
    for path in _leaves(document, ()):
        origin = source.origin(path)
        if origin is None and path[-1] == "name" and len(path) > 1:
            origin = source.origin((*path[:-1], "type"))
        found[".".join(path)] = origin or "default"
    return found


def _leaves(value: Any, path: Where) -> list[Where]:
    if isinstance(value, list):
        value = {str(index): inner for index, inner in enumerate(value)}
    if not isinstance(value, dict):
        return [path]
    return [leaf for key, inner in value.items() for leaf in _leaves(inner, (*path, key))]
