"""From the checked file to `ScenarioResolved`: defaults that depend on other fields, SI units, and sources."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from math import inf
from typing import Any, TypeVar

from pydantic import ValidationError

from simulator.errors import InputError
from simulator.scenario import resolved as r
from simulator.scenario import workload_schema as w
from simulator.scenario.checks import cross_checks
from simulator.scenario.document import document_of
from simulator.scenario.measured_ratio import measure_ratio
from simulator.scenario.messages import problems_of
from simulator.scenario.parts import GpuPart, Part
from simulator.scenario.presets import fill
from simulator.scenario.schema import Kv, Pool, Prefetch, ScenarioFile
from simulator.scenario.source import Source, Where

T = TypeVar("T")


def resolve(source: Source, base_dir: str) -> r.ScenarioResolved:
    """Fill up, check and resolve; `InputError` with every problem. Paths are relative to `base_dir`."""
    measure_ratio(source, base_dir)
    fill(source)
    try:
        file = ScenarioFile.model_validate(source.data)
    except ValidationError as error:
        raise InputError(_in_order(source.problems + problems_of(error, source, ScenarioFile))) from None
    scenario = _resolve(file, base_dir)
    problems = source.problems + cross_checks(scenario, file, source)
    if problems:
        raise InputError(_in_order(problems))
    document = document_of(scenario)
    return replace(scenario, sources=_sources(document, source), document=document)


def _in_order(problems: list[Any]) -> list[Any]:
    """By line; what has no line comes last."""

    def line(problem: Any) -> tuple[int, int]:
        numbers = [int(part) for part in problem.where.rsplit(":", 2)[1:] if part.isdigit()]
        return (numbers[0], numbers[-1]) if numbers else (10**9, 0)

    return sorted(dict.fromkeys(problems), key=line)


def _resolve(file: ScenarioFile, base_dir: str) -> r.ScenarioResolved:
    steps = file.scheduler
    return r.ScenarioResolved(
        name=file.name,
        seed=file.seed,
        workload=_workload(file, base_dir),
        model=_part(r.Model, file.model),
        gpus=_gpus(file.cluster.gpus),
        pool=_pool(file.cluster.kv_pool),
        kv=_kv(file.kv),
        prefetch=_prefetch(file.prefetch, file.model.layers),
        scheduler=r.Scheduler(
            batching=steps.batching,
            max_batch=steps.max_batch,
            token_budget=steps.token_budget,
            prefill_chunk=steps.token_budget if steps.prefill_chunk is None else steps.prefill_chunk,
            reserve=steps.reserve,
            watermark=steps.watermark,
            host_overhead=steps.host_overhead or 0.0,
        ),
        slo=r.Slo(file.slo.ttft, file.slo.tpot),
        cost=r.Cost(**{field.name: getattr(file.cost, field.name) for field in fields(r.Cost)}),
        sources={},
        document={},
    )


def _part(kind: type[T], part: Part, **more: Any) -> T:
    """A dataclass from the part of the same fields."""
    names = [field.name for field in fields(kind) if field.name not in more]  # type: ignore[arg-type]
    values = {name: part.label if name == "name" else getattr(part, name) for name in names}
    return kind(**values, **more)


def _gpus(part: GpuPart) -> r.Gpus:
    gpu = _part(r.Gpu, part, link=_part(r.Link, part.link))
    if part.tensor_parallel in (None, 1) and part.count == 1:  # nothing to reduce, whatever the preset's table says
        gpu = replace(gpu, all_reduce_latency=0.0, all_reduce_bandwidth=inf)
    return r.Gpus(gpu, part.count, part.tensor_parallel or part.count, part.memory_utilization, part.reserve)


def _pool(pool: Pool | None) -> r.Pool | None:
    if pool is None:
        return None
    return r.Pool(
        board=_part(r.Board, pool.board),
        boards=pool.count,
        links_per_board=pool.links_per_board,
        link=_part(r.Link, pool.link),
        switch=_part(r.Switch, pool.switch) if pool.switch else None,
        memory_price=pool.memory_price,
    )


def _kv(kv: Kv) -> r.Kv:
    codec = r.Codec(1.0, "none", "none")
    if kv.codec is not None:
        codec = r.Codec(kv.codec.ratio, kv.codec.compress_at, kv.codec.decompress_at)
    return r.Kv(
        system=kv.system,
        block_tokens=kv.block,
        l1=kv.l1,
        l2=kv.l2,
        burst=kv.burst,
        eviction=kv.placement.eviction,
        codec=codec,
        selection=r.Selection(kv.selection.kind, kv.selection.tokens or 0),
    )


def _prefetch(prefetch: Prefetch, layers: int) -> r.Prefetch:
    """A perfect predictor is one with coverage and accuracy 1; the oracle looks ahead as far as there are layers."""
    depth = 1 if prefetch.depth is None else prefetch.depth
    if prefetch.predictor == "statistical":
        coverage, accuracy = prefetch.coverage or 0.0, prefetch.accuracy or 1.0
        return r.Prefetch("statistical", depth, coverage, accuracy, prefetch.latency or 0.0)
    if prefetch.predictor == "next_layer":
        return r.Prefetch("next_layer", depth, 1.0, 1.0, 0.0)
    if prefetch.predictor == "oracle":
        return r.Prefetch("oracle", layers, 1.0, 1.0, 0.0)
    return r.Prefetch("none", 0, 0.0, 1.0, 0.0)


def _workload(file: ScenarioFile, base_dir: str) -> r.Workload:
    trace, synthetic = file.workload.trace, file.workload.synthetic
    if trace is not None:
        return r.Workload(
            path=_absolute(trace.path, base_dir),
            format=trace.format,
            limit=trace.limit,
            start=trace.start,
            end=trace.end,
            rate_scale=1.0 if trace.rate_scale is None else trace.rate_scale,
            process=trace.arrivals,
            rate=0.0,
            cv=0.0,
            requests=0,
            input=None,
            output=None,
        )
    assert synthetic is not None  # one of the two: the schema saw to that
    arrivals, requests = synthetic.arrivals, synthetic.requests
    at_once = arrivals.process == "at_once" or arrivals.rate == inf
    return r.Workload(
        path="",
        format="auto",
        limit=None,
        start=0.0,
        end=inf,
        rate_scale=1.0,
        process="at_once" if at_once else arrivals.process,
        rate=0.0 if at_once else arrivals.rate or 0.0,
        cv=arrivals.cv or 0.0,
        requests=file.scheduler.max_batch if requests == "one_batch" else int(requests),
        input=_lengths(synthetic.input, file.model.max_context, base_dir),
        output=_lengths(synthetic.output, file.model.max_context, base_dir),
    )


def _lengths(spec: w.Fixed | w.Uniform | w.LogNormal | w.Empirical, max_context: int, base_dir: str) -> r.Lengths:
    if isinstance(spec, w.Fixed):
        return r.Lengths("fixed", tokens=spec.tokens)
    if isinstance(spec, w.Uniform):
        return r.Lengths("uniform", low=spec.low, high=spec.high)
    if isinstance(spec, w.LogNormal):
        return r.Lengths("lognormal", low=spec.low, high=spec.high or max_context, mean=float(spec.mean), cv=spec.cv)
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
    if not isinstance(value, dict):
        return [path]
    return [leaf for key, inner in value.items() for leaf in _leaves(inner, (*path, key))]
