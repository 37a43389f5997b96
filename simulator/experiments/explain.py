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
from simulator.experiments import uncalibrated
from simulator.experiments.device_curves import device_curves
from simulator.experiments.explain_replicas import rates_of_all, replicas
from simulator.experiments.explain_tenants import tenants
from simulator.experiments.policy_bounds import Needs, needs, note, of_a_sequence, twice_compressed
from simulator.experiments.simulation import retained, stream
from simulator.experiments.validity import unmodelled
from simulator.hardware.faults import Occurrence, degraded, health
from simulator.hardware.gpu import StepModel
from simulator.hardware.pool import FarPath, Path, far_path, left_over, ports, single_way
from simulator.hardware.precision import for_precision, native
from simulator.kvcache.geometry import Geometry, geometry
from simulator.kvcache.selection import tokens_read
from simulator.scenario.capacity import kv_copies, ledger
from simulator.scenario.resolved import Model, ScenarioResolved, Switch
from simulator.scenario.scenario import Scenario
from simulator.scenario.source import below
from simulator.scheduler.policy_steps import other_steps
from simulator.workload.requests import Requests
from simulator.workload.synthetic import build

SAMPLE = 20_000  # synthetic requests that are drawn to find the means


def explain(scenario: Scenario, read: Requests | None = None) -> dict[str, Any]:
    """Plain data, ready for JSON; SI units in the names; null where something does not apply or is unlimited.

    `read`: the requests of a run of this scenario, so that a trace is not read again."""
    resolved = scenario.resolved
    sizes, far = geometry(resolved), far_path(resolved) if resolved.pool else None
    work = _workload(resolved) if read is None or resolved.workload.requests > SAMPLE else read
    work = retained(work, resolved.kv.policies.retention) if read is None else work
    load, bounds = _load(work, resolved), _bounds(resolved, sizes, far, work)
    found = {
        "name": resolved.name,
        "sha256": scenario.sha256,
        "values": _values(resolved),
        "workload": load,
        "capacity": _capacity(resolved, sizes),
        "paths": {side: _path(resolved, far, side) | {"ways": _ways(resolved, far, side)} for side in ("read", "write")}
        if far
        else None,
        "replicas": replicas(resolved),
        "tenants": tenants(resolved),
        "devices": {"model": resolved.devices, "curves": device_curves(resolved)} if far else None,
        "faults": _faults(resolved, sizes),
        "bounds": bounds,
        "warnings": _warnings(resolved, sizes, load, bounds),
    }
    return {key: _finite(value) for key, value in found.items()}


def _values(scenario: ScenarioResolved) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for field, source in scenario.sources.items():
        value: Any = scenario.document
        for key in field.split("."):
            value = below(value, key)
        rows.append({"field": field, "value": value, "source": source})
    return rows


def _workload(scenario: ScenarioResolved) -> Requests:
    work = scenario.workload
    drawn = replace(work, requests=min(work.requests, SAMPLE))
    return build(drawn, stream(scenario.seed, "arrivals"), stream(scenario.seed, "lengths"))


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
    model = scenario.model
    token = sizes.token_bytes
    tiers = {"l1": (scenario.l1_per_gpu * scenario.gpus.count, sizes.l1_blocks)}
    if scenario.pool is not None:
        tiers["l2"] = (sizes.l2_bytes, int(sizes.l2_bytes // sizes.block_bytes))
        tiers["l3"] = (sizes.l3_bytes, sizes.l3_blocks)
    return {
        "ledger": ledger(scenario),
        "weights_bytes_per_gpu": scenario.weights_per_gpu,
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


def _path(scenario: ScenarioResolved, far: FarPath, direction: str) -> dict[str, Any]:
    """Stages in the order of the bytes; `raw_bytes_per_s` is what a stage carries in uncompressed KV, `bytes_per_s_of_all`
    what the stages of this name of all replicas carry together."""
    stages: Path = getattr(far, direction)
    of_all = rates_of_all(scenario, direction)
    rows: list[dict[str, Any]] = [
        {
            "stage": name, "bytes_per_s": rate, "wire_per_raw": weight, "raw_bytes_per_s": rate / weight,
            "bytes_per_s_of_all": of_all.get(name, rate),
        }
        for name, rate, weight in stages
    ]  # fmt: skip
    cap, rate = getattr(far, f"{direction}_cap"), getattr(far, f"{direction}_rate")
    bound = min(rows, key=lambda row: row["raw_bytes_per_s"])["stage"] if rate < cap else "outstanding"
    return {
        "stages": rows,
        "latency_s": getattr(far, f"{direction}_latency"),
        "latency_parts": [{"device": device, "seconds": seconds} for device, seconds in getattr(far, f"{direction}_parts")],
        "outstanding_raw_bytes_per_s": cap,
        "raw_bytes_per_s": rate,
        "bound": bound,
    }


def _faults(scenario: ScenarioResolved, sizes: Geometry) -> list[dict[str, Any]]:
    """What each fault leaves, alone: rates are null where far pages cannot be reached."""
    pool, rows = scenario.pool, []
    for fault in scenario.faults if pool else ():
        assert pool is not None
        left = health(pool, [Occurrence(fault, 0.0, fault.duration)])
        path = far_path(degraded(scenario, left)) if left.reachable else None
        rows.append(
            {
                "what": fault.what,
                "link": fault.link or None,
                "replica": fault.replica,
                "at_s": fault.at if fault.mean_time_between is None else None,
                "mean_time_between_s": fault.mean_time_between,
                "duration_s": fault.duration,
                "read_raw_bytes_per_s": path.read_rate if path else None,
                "read_latency_s": path.read_latency if path else None,
                "l3_blocks": sizes.l3_blocks * left.boards // pool.boards,
                "on_loss": fault.on_loss if left.boards < pool.boards else None,
            }
        )
    return rows


def _ways(scenario: ScenarioResolved, far: FarPath, direction: str) -> list[dict[str, Any]]:
    """Each way between a link of a board and a port of a GPU, alike ones together: latency, capacity alone, what bounds it."""
    pool = scenario.pool
    assert pool is not None
    devices = single_way(scenario, direction == "read")
    bound, rate = min(devices, key=lambda device: device[1])
    links, own = pool.boards * pool.links_per_board, ports(scenario)
    through = [f"{pool.leaves} leaves"] if pool.leaf else []
    through += ["the switch"] if pool.switch else []
    between = f" through {' and '.join(through)}" if through else ""
    between += "".join(_arbitrated(name, switch) for name, switch in (("leaf", pool.leaf), ("switch", pool.switch)) if switch)
    if pool.shared_by > 1:
        between += f"; {left_over(pool):.3g} of what {pool.shared_by} replicas share"
    return [
        {
            "way": f"{links} board links to {own} GPU ports{between}",
            "count": links * own,
            "latency_s": getattr(far, f"{direction}_latency"),
            "raw_bytes_per_s": rate,
            "bound": bound,
        }
    ]


def _arbitrated(name: str, switch: Switch) -> str:
    """What an arbiter does that is not round robin."""
    weights = f" {':'.join(f'{weight:g}' for weight in switch.weights)}" if switch.weights else ""
    return "" if switch.arbitration == "round_robin" else f", {name} {switch.arbitration}{weights}"


def _bounds(scenario: ScenarioResolved, sizes: Geometry, far: FarPath | None, work: Requests) -> dict[str, Any] | None:
    if len(work) == 0:
        return None
    if scenario.parks:
        far, sizes = None, replace(sizes, l3_blocks=0)
    model, gpu, gpus = scenario.model, scenario.gpus.gpu, scenario.gpus.count
    prompt, output = float(work.input_tokens.mean()), max(1.0, float(work.output_tokens.mean()))
    context = prompt + output / 2
    selection = scenario.kv.selection
    read = fetched = min(context, float(selection.budget)) if selection.kind == "budget" else _windowed(model, context)
    if selection.kind == "pages":
        one = np.array([round(context)])
        read = float(tokens_read(selection, one, sizes.block_tokens, model.layers))
        fetched = float(tokens_read(replace(selection, index=0.0), one, sizes.block_tokens, model.layers))
    kept = min(context, float(model.kept_tokens)) if model.kept_tokens else context
    sequence = of_a_sequence(scenario, sizes, context, read, kept)
    policy = needs(scenario, sizes, context) or Needs(read, 0.0, read, kept)
    read, kept = policy.read, policy.kept
    fetched, crosses = read if policy.elsewhere else fetched, 1.0
    if scenario.far_in_place and not scenario.kv.policies.identity:
        fetched, crosses = policy.scanned, policy.moved / (policy.scanned or 1.0)
    stored = sizes.dense_tokens(sizes.l1_blocks + sizes.l3_blocks)
    batch = min(float(scenario.scheduler.max_batch), max(1.0, stored // kept), max(1.0, sizes.l1_blocks // sizes.near_blocks))
    other = other_steps(scenario)
    steps = other or StepModel(model, scenario.gpus, scenario.scheduler.host_overhead)
    token = sizes.token_bytes
    moved = scenario.weights_per_gpu - _untouched(scenario, steps, batch)
    moved = policy.passes * (policy.layers * moved + batch * read * token / gpus)
    pairs = steps.decode_attention(1).flops * steps.ranks * model.layers  # FLOPs per (query, key) pair
    flops = 2.0 * model.active_parameters * policy.layers * batch + pairs * batch * policy.multiplied
    flops *= policy.passes * policy.width
    peak = for_precision(gpu, model.weights).peak_flops
    far_tokens = max(0.0, batch * fetched - sizes.dense_tokens(sizes.l1_blocks) - sizes.l2_bytes / token) * crosses
    seconds = {
        "hbm": moved / gpu.memory_bandwidth,
        "flops": flops / (gpus * peak),
        "far_memory": far_tokens * token / far.read_rate if far else 0.0,
    }
    if policy.elsewhere:
        compute = scenario.kv.policies.compute
        size = batch * policy.elsewhere * model.kv_bytes_per_token
        seconds["far_memory"] = policy.passes * size / (compute.devices * compute.bandwidth)
    decode = {name: batch / time if time > 0 else inf for name, time in seconds.items()}
    tightest = min(decode, key=lambda name: decode[name])
    own = steps.prefill_attention([(1, 0)]).flops * steps.ranks * model.layers  # the same in a prompt: less, where expanded
    causal = prompt * _windowed(model, prompt) - _windowed(model, prompt) ** 2 / 2
    own *= scenario.kv.policies.identity  # policies may leave attention of prompts out
    computed = policy.layers * (prompt + output * min(1.0, policy.passes * policy.width))
    request = 2.0 * model.active_parameters * computed + own * causal + pairs * output * min(read, policy.multiplied)
    by_decode, by_flops = decode[tightest] / output, gpus * peak / request
    rows = max(1, int(batch))
    units = (steps.layers / steps.units) * rows * read
    if other is not None:
        units = float(other.reads_of([round(context)] * rows))
    expected = steps.base(rows, rows) + steps.unit_time(rows) * units
    return {
        "batch": batch,
        "context_tokens": context,
        "sequence": sequence,
        "far_tokens_per_step": far_tokens,
        "decode_tokens_per_s": decode,
        "decode_bound_by": tightest,
        "requests_per_s": {"decode": by_decode, "flops": by_flops},
        "expected": {"decode_step_s": expected, "decode_tokens_per_s": rows / expected},
        "roofline": {  # of all GPUs; per decoded token of a step, weights apart: they are read once a step
            "flops_per_s": gpus * peak,
            "hbm_bytes_per_s": gpus * gpu.memory_bandwidth,
            "far_raw_bytes_per_s": far.read_rate if far else None,
            "flops_per_token": flops / batch,
            "kv_bytes_per_token": read * token,
            "weight_bytes_per_step": (scenario.weights_per_gpu - _untouched(scenario, steps, batch)) * gpus,
        },
    }


def _windowed(model: Model, context: float) -> float:
    """Tokens that a layer reads of a context, the mean over the layers."""
    share = model.windowed_layers / model.layers
    return (1 - share) * context + share * min(context, float(model.window)) if share else context


def _untouched(scenario: ScenarioResolved, steps: StepModel, batch: float) -> float:
    """Bytes of experts on a GPU that a step of `batch` tokens does not touch, on average."""
    model, gpus = scenario.model, scenario.gpus
    if not model.experts:
        return 0.0
    cut = gpus.expert_parallel if gpus.expert_parallel > 1 else gpus.tensor_parallel
    held = model.moe_layers // gpus.pipeline_parallel * model.expert_parameters * model.weight_bytes / cut
    return held * (1 - steps.touched_experts(batch) / model.experts)


def _warnings(scenario: ScenarioResolved, sizes: Geometry, load: dict[str, Any], bounds: dict[str, Any] | None) -> list[str]:
    found: list[str] = []
    gpu, model = scenario.gpus.gpu, scenario.model
    if not gpu.calibrated:
        found.append(uncalibrated.warning(gpu))
    copies = kv_copies(scenario)
    if copies > 1:
        ranks, heads = scenario.gpus.tensor_parallel, model.kv_heads
        what = "one latent" if model.latent else f"{heads} KV head{'s' if heads > 1 else ''}"
        found.append(f"every rank holds a copy: {ranks} ranks share {what}, so KV takes and moves {copies:g} times its size")
    if model.experts:
        found.append("experts are taken to be used evenly: trained routers touch fewer in small batches and load one GPU more")
    if scenario.gpus.expert_parallel > scenario.gpus.tensor_parallel and scenario.gpus.data_parallel == 1:
        peers = scenario.gpus.expert_parallel // scenario.gpus.tensor_parallel
        found.append(f"experts are shared with {peers - 1} other replicas, taken to run in lock step with the same load")
    if not native(gpu, model.weights):
        found.append(f"{gpu.name} has no units for {model.weights}: weights are converted to bf16 in every product")
    parts = [("models", model.name)] + ([("boards", scenario.pool.board.name)] if scenario.pool else [])
    for kind, name in parts:
        if name in catalog.names(kind) and "hypothetical" in catalog.load(kind, name).title.lower():
            found.append(f"hypothetical: {name} is {catalog.load(kind, name).title}; nobody released it")
    claims = [field for field, source in scenario.sources.items() if ": published claim;" in source]
    if claims:
        more = f" and {len(claims) - 4} more" if len(claims) > 4 else ""
        found.append(f"published claims, not measured: {', '.join(claims[:4])}{more}")
    found += unmodelled(scenario)
    if bounds is not None and (said := note(scenario, sizes, bounds["context_tokens"])):
        found.append(said)
    if said := twice_compressed(scenario):
        found.append(said)
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
