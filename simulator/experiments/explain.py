"""What a scenario comes to before anything is run: values with their sources, capacities, paths, bounds, warnings.

Bounds are rooflines at peak rates: no schedule, prefetcher or cache can be faster for these requests.

    decode, tokens/s <= batch / max(bytes / HBM bandwidth, FLOPs / peak, far bytes / rate of the path)   of a step
    requests/s       <= min(decode bound / mean output, peak / FLOPs of a mean request)

at the largest batch that `max_batch` and the KV capacity allow and at the mean context of the workload (prompt + half
of the output). Far bytes are what does not fit in L1 and L2, i.e. a perfect cache. `expected` adds the efficiencies,
launches and host overhead of `hardware.gpu` and no stall.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf, isfinite
from typing import Any

import numpy as np

from simulator import catalog
from simulator.hardware.gpu import StepModel
from simulator.hardware.pool import FarPath, Path, far_path
from simulator.kvcache.geometry import Geometry, geometry
from simulator.scenario.capacity import kv_copies
from simulator.scenario.resolved import ScenarioResolved
from simulator.scenario.scenario import Scenario
from simulator.workload.requests import Requests
from simulator.workload.synthetic import build

SAMPLE = 20_000  # synthetic requests that are drawn to find the means


def explain(scenario: Scenario) -> dict[str, Any]:
    """Plain data, ready for JSON; SI units in the names; null where something does not apply or is unlimited."""
    resolved = scenario.resolved
    sizes, far = geometry(resolved), far_path(resolved) if resolved.pool else None
    work = _workload(resolved)
    load, bounds = _load(work, resolved), _bounds(resolved, sizes, far, work)
    found = {
        "name": resolved.name,
        "sha256": scenario.sha256,
        "values": _values(resolved),
        "workload": load,
        "capacity": _capacity(resolved, sizes),
        "paths": {"read": _path(far, "read"), "write": _path(far, "write")} if far else None,
        "bounds": bounds,
        "warnings": _warnings(resolved, sizes, load, bounds),
    }
    return {key: _finite(value) for key, value in found.items()}


def _values(scenario: ScenarioResolved) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for field, source in scenario.sources.items():
        value: Any = scenario.document
        for key in field.split("."):
            value = value[key]
        rows.append({"field": field, "value": value, "source": source})
    return rows


def _workload(scenario: ScenarioResolved) -> Requests:
    work = scenario.workload
    drawn = replace(work, requests=min(work.requests, SAMPLE))
    arrivals, lengths = np.random.SeedSequence(scenario.seed).spawn(2)
    return build(drawn, np.random.default_rng(arrivals), np.random.default_rng(lengths))


def _load(work: Requests, scenario: ScenarioResolved) -> dict[str, Any]:
    """Means of the requests; those of a synthetic workload from a sample."""
    count = len(work)
    if count == 0:
        return {"requests": 0, "rate_per_s": None, "input_tokens_mean": None, "output_tokens_mean": None, "too_long": 0}
    span = float(work.arrival[-1] - work.arrival[0])
    rate = scenario.workload.rate or ((count - 1) / span if span > 0 else None)
    too_long = int((work.input_tokens + work.output_tokens > scenario.model.max_context).sum())
    return {
        "requests": scenario.workload.requests or count,
        "rate_per_s": rate,
        "input_tokens_mean": float(work.input_tokens.mean()),
        "output_tokens_mean": float(work.output_tokens.mean()),
        "too_long": too_long / count,
    }


def _capacity(scenario: ScenarioResolved, sizes: Geometry) -> dict[str, Any]:
    gpus, model = scenario.gpus, scenario.model
    token = sizes.block_bytes / sizes.block_tokens
    tiers = {"l1": (scenario.l1_per_gpu * sizes.ranks, sizes.l1_blocks)}
    if scenario.pool is not None:
        tiers["l2"] = (sizes.l2_bytes, int(sizes.l2_bytes // sizes.block_bytes))
        tiers["l3"] = (sizes.l3_bytes, sizes.l3_blocks)
    return {
        "weights_bytes_per_gpu": model.parameters * model.weight_bytes / gpus.tensor_parallel,
        "hbm_left_bytes_per_gpu": scenario.hbm_left,
        "kv_bytes_per_token": token,
        "kv_bytes_per_token_one_copy": model.kv_bytes_per_token,
        "kv_copies": kv_copies(scenario),
        "block_bytes": sizes.block_bytes,
        "page_bytes": sizes.page_bytes,
        "tiers": {
            name: {"bytes": size, "blocks": blocks, "tokens": blocks * sizes.block_tokens}
            for name, (size, blocks) in tiers.items()
        },
    }


def _path(far: FarPath, direction: str) -> dict[str, Any]:
    """Stages in the order of the bytes; `raw_bytes_per_s` is what a stage carries in uncompressed KV."""
    stages: Path = getattr(far, direction)
    rows: list[dict[str, Any]] = [
        {"stage": name, "bytes_per_s": rate, "wire_per_raw": weight, "raw_bytes_per_s": rate / weight}
        for name, rate, weight in stages
    ]
    cap, rate = getattr(far, f"{direction}_cap"), getattr(far, f"{direction}_rate")
    bound = min(rows, key=lambda row: row["raw_bytes_per_s"])["stage"] if rate < cap else "outstanding"
    return {
        "stages": rows,
        "latency_s": getattr(far, f"{direction}_latency"),
        "outstanding_raw_bytes_per_s": cap,
        "raw_bytes_per_s": rate,
        "bound": bound,
    }


def _bounds(scenario: ScenarioResolved, sizes: Geometry, far: FarPath | None, work: Requests) -> dict[str, Any] | None:
    if len(work) == 0:
        return None
    model, gpu, ranks = scenario.model, scenario.gpus.gpu, scenario.gpus.tensor_parallel
    prompt, output = float(work.input_tokens.mean()), max(1.0, float(work.output_tokens.mean()))
    context = prompt + output / 2
    selection = scenario.kv.selection
    read = min(context, float(selection.budget)) if selection.kind == "budget" else context
    stored = (sizes.l1_blocks + sizes.l3_blocks) * sizes.block_tokens
    batch = min(float(scenario.scheduler.max_batch), max(1.0, stored // context))
    steps = StepModel(model, scenario.gpus, scenario.scheduler.host_overhead)
    token = sizes.block_bytes / sizes.block_tokens
    moved = scenario.weights_per_gpu + batch * read * token / ranks
    pairs = 4.0 * model.heads * model.head_dim * model.layers  # FLOPs per (query, key) pair
    flops = 2.0 * model.parameters * batch + pairs * batch * read
    far_tokens = max(0.0, batch * read - sizes.l1_blocks * sizes.block_tokens - sizes.l2_bytes / token)
    seconds = {
        "hbm": moved / gpu.memory_bandwidth,
        "flops": flops / (ranks * gpu.peak_flops),
        "far_memory": far_tokens * token / far.read_rate if far else 0.0,
    }
    decode = {name: batch / time if time > 0 else inf for name, time in seconds.items()}
    tightest = min(decode, key=lambda name: decode[name])
    request = 2.0 * model.parameters * (prompt + output) + pairs * (prompt * prompt / 2 + output * read)
    by_decode, by_flops = decode[tightest] / output, ranks * gpu.peak_flops / request
    rows = max(1, int(batch))
    expected = steps.base(rows, rows) + steps.layers * steps.attention_per_token * rows * read
    return {
        "batch": batch,
        "context_tokens": context,
        "far_tokens_per_step": far_tokens,
        "decode_tokens_per_s": decode,
        "decode_bound_by": tightest,
        "requests_per_s": {"decode": by_decode, "flops": by_flops},
        "expected": {"decode_step_s": expected, "decode_tokens_per_s": rows / expected},
    }


def _warnings(scenario: ScenarioResolved, sizes: Geometry, load: dict[str, Any], bounds: dict[str, Any] | None) -> list[str]:
    found: list[str] = []
    gpu, model = scenario.gpus.gpu, scenario.model
    if not gpu.calibrated:
        found.append(f"uncalibrated: the efficiencies of {gpu.name} are defaults, not measurements of this part")
    copies = kv_copies(scenario)
    if copies > 1:
        ranks, heads = scenario.gpus.tensor_parallel, model.kv_heads
        found.append(
            f"every rank holds a copy: {ranks} ranks share {heads} KV head{'s' if heads > 1 else ''}, "
            f"so KV takes and moves {copies:g} times its size"
        )
    parts = [("models", model.name)] + ([("boards", scenario.pool.board.name)] if scenario.pool else [])
    for kind, name in parts:
        if name in catalog.names(kind) and "hypothetical" in catalog.load(kind, name).title.lower():
            found.append(f"hypothetical: {name} is {catalog.load(kind, name).title}; nobody released it")
    claims = [field for field, source in scenario.sources.items() if ": published claim;" in source]
    if claims:
        more = f" and {len(claims) - 4} more" if len(claims) > 4 else ""
        found.append(f"published claims, not measured: {', '.join(claims[:4])}{more}")
    if scenario.scheduler.host_overhead == 0:
        found.append("scheduler.host_overhead is 0 s: serving engines add a millisecond or more to each step")
    if load["too_long"]:
        share = f"{load['too_long']:.1%}"
        found.append(f"{share} of the requests exceed max_context ({model.max_context} tokens) and will be rejected")
    if load["requests"] == 0:
        found.append("the workload has no requests")
    if bounds is not None and load["rate_per_s"] is not None:
        limit = min(bounds["requests_per_s"].values())
        if load["rate_per_s"] > limit:
            found.append(f"offered load exceeds capacity: {load['rate_per_s']:.3g} /s offered, at most {limit:.3g} /s served")
    if bounds is not None and bounds["batch"] < scenario.scheduler.max_batch:
        found.append(
            f"max_batch {scenario.scheduler.max_batch} is not reached: KV has room for about {bounds['batch']:.0f} "
            f"sequences of {bounds['context_tokens']:.0f} tokens"
        )
    return found


def _finite(value: Any) -> Any:
    """Unlimited is null: JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not isfinite(value) else value
