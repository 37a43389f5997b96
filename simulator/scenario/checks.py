"""What several sections must agree on, each problem with the line of the value that can be changed.

Byte counts per GPU: weights + activations + reserve + L1 + L2 <= memory * memory_utilization (`capacity.ledger`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from simulator.errors import Problem, did_you_mean
from simulator.scenario.capacity import kv_bytes_per_token_rank
from simulator.scenario.far_events import unfit
from simulator.scenario.faults import fault_checks
from simulator.scenario.policy_checks import policy_checks
from simulator.scenario.resolved import Lengths, Pool, ScenarioResolved
from simulator.scenario.schema import ScenarioFile
from simulator.scenario.serving_checks import serving_checks
from simulator.scenario.source import Source, Where

_GIB = 2.0**30
_GPUS = ("cluster", "gpus")
_POOL = ("cluster", "kv_pool")


def cross_checks(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> list[Problem]:
    """All problems between sections."""
    checks = (
        _parallel, _model, _fits, _tiers, _pool, policy_checks, _devices, _gpu_link, _steps, serving_checks, _lengths, _traces,
    )  # fmt: skip
    return [problem for check in checks for problem in check(scenario, file, source)] + list(fault_checks(scenario, source))


def _parallel(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> Iterator[Problem]:
    model, gpus = scenario.model, scenario.gpus
    ranks, path = gpus.tensor_parallel, (*_GPUS, "tensor_parallel")
    if not source.has(path):
        path = (*_GPUS, "count")
    stages, group = gpus.pipeline_parallel, gpus.expert_parallel
    replicas = gpus.data_parallel
    if ranks * stages * replicas != gpus.count:
        what = f"tensor_parallel {ranks}" + (f" x pipeline_parallel {stages}" if stages > 1 else "")
        what += f" x data_parallel {replicas}" if replicas > 1 else ""
        message = f"{what} is not the count of GPUs ({gpus.count}); one replica uses all of its GPUs"
        yield source.problem(path, message, "write the same number, or leave tensor_parallel out")
    if replicas > 1:
        yield from _lockstep(scenario, source)
    if stages > model.layers:
        yield source.problem((*_GPUS, "pipeline_parallel"), f"{stages} stages for the {model.layers} layers of {model.name}")
    if stages > 1 and scenario.pool is not None:
        yield source.problem((*_GPUS, "pipeline_parallel"), "a pipeline with a kv_pool is not modelled; use tensor_parallel")
    if group > 1 and (not model.experts or model.experts % group):
        message = f"the {model.experts} routed experts of {model.name} cannot be dealt out over {group} GPUs"
        yield source.problem((*_GPUS, "expert_parallel"), message)
    elif group > 1 and group % ranks:
        message = f"an expert group of {group} GPUs is no multiple of the {ranks} tensor-parallel ones"
        yield source.problem((*_GPUS, "expert_parallel"), message)
    if model.heads % ranks:
        yield source.problem(path, f"tensor_parallel {ranks} does not divide the {model.heads} heads of {model.name}")
    elif not model.latent and model.kv_heads % ranks and ranks % model.kv_heads:
        message = f"{model.kv_heads} KV heads of {model.name} cannot be spread over {ranks} GPUs evenly"
        yield source.problem(path, message)
    if model.heads % model.kv_heads:
        message = f"{model.heads} heads do not divide into groups of {model.kv_heads} KV heads"
        yield source.problem(("model", "kv_heads"), message)


def _lockstep(scenario: ScenarioResolved, source: Source) -> Iterator[Problem]:
    model, gpus, path = scenario.model, scenario.gpus, (*_GPUS, "data_parallel")
    if not model.experts:
        message = f"replicas of {model.name} share no experts and would not run in lock step; run one scenario per replica"
        yield source.problem(path, message)
    elif gpus.expert_parallel != (every := gpus.tensor_parallel * gpus.data_parallel):
        message = f"the experts are on {gpus.expert_parallel} of the {every} GPUs of the replicas"
        yield source.problem(path, message, "expert_parallel must be tensor_parallel x data_parallel")
    for what, used in (("pipeline_parallel", gpus.pipeline_parallel > 1), ("a kv_pool", scenario.pool is not None)):
        if used:
            yield source.problem(path, f"replicas in lock step with {what} are not modelled")


def _model(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> Iterator[Problem]:
    """Fields of one model that contradict each other or that nothing uses."""
    model = scenario.model
    if model.experts:
        missing = [name for name in ("experts_per_token", "expert_intermediate") if not getattr(model, name)]
        if missing:
            yield source.problem(("model", "experts"), f"experts need {' and '.join(missing)}")
        if model.experts_per_token > model.experts:
            message = f"{model.experts_per_token} experts a token, but there are only {model.experts}"
            yield source.problem(("model", "experts_per_token"), message)
        if model.dense_layers >= model.layers:
            message = f"{model.dense_layers} dense layers leave none of {model.layers} for the experts"
            yield source.problem(("model", "dense_layers"), message)
    of_experts = ("experts_per_token", "expert_intermediate", "shared_intermediate", "dense_layers")
    unused = [(name, "experts") for name in of_experts]
    unused += [("full_layers", "window"), ("q_latent", "kv_latent"), ("rope_dim", "kv_latent")]
    for name, needed in unused:
        if getattr(model, name) and not getattr(model, needed):
            yield source.problem(("model", name), f"not used without {needed}; remove it or give {needed}")
    if model.window and model.full_layers >= model.layers:
        yield source.problem(("model", "full_layers"), f"{model.full_layers} full layers leave none of {model.layers} a window")
    far = scenario.pool is not None and not scenario.parks
    if model.window and scenario.kv.selection.kind != "dense" and far:
        yield source.problem(
            ("kv", "selection", "kind"), f"selection beside the sliding window of {model.name} and a kv_pool is not modelled"
        )
    if model.window and model.full_layers and far:
        message = f"only some layers of {model.name} have a window; with a kv_pool that is not modelled"
        yield source.problem(("cluster", "kv_pool"), message)


def _fits(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> Iterator[Problem]:
    if scenario.hbm_left < 0:
        yield source.problem(
            ("model",),
            f"{scenario.model.name} does not fit: {_weights(scenario)} exceed {_usable(scenario)}",
            "more GPUs, a smaller weight_bytes or another GPU",
        )


def _tiers(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> Iterator[Problem]:
    kv, left = scenario.kv, scenario.hbm_left
    if kv.blocks is not None and kv.l1 is not None:
        yield source.problem(("kv", "blocks"), "give either l1 or blocks, not both")
    if left < 0 or kv.blocks is not None:  # what an engine reported did fit
        return
    wanted = (kv.l1 or 0.0) + kv.l2
    if wanted > left:
        tier = "l1" if kv.l1 is not None and source.has(("kv", "l1")) else "l2"
        parts = " + ".join(f"{name} {_gib(size)}" for name, size in (("l1", kv.l1), ("l2", kv.l2)) if size)
        message = f"{parts} per GPU do not fit: {_gib(left)} are left of {_usable(scenario)} after {_weights(scenario)}"
        yield source.problem(("kv", tier), message)
        return
    block = kv.block_tokens * kv_bytes_per_token_rank(scenario)
    room = left - kv.l2 if kv.l1 is None else kv.l1
    if room < block:
        message = f"no room for KV: one block of {kv.block_tokens} tokens is {block:.0f} bytes per GPU, L1 has {room:.0f}"
        yield source.problem(("kv", "l1") if kv.l1 is not None else ("model",), message)


def _pool(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> Iterator[Problem]:
    kv, pool = scenario.kv, scenario.pool
    if pool is not None:
        if scenario.parks:
            yield from _parked(scenario, source)
        elif scenario.prefetch.predictor == "session":
            message = "'session' fetches what a prefix cache has parked in the pool"
            yield source.problem(("prefetch", "predictor"), message, "write kv: {sharing: {kind: prefix}}")
        if scenario.prefetch.predictor == "stream" and kv.selection.kind == "pages":
            message = "'stream' fetches all that is stored in the order of use, but pages are drawn for every step"
            yield source.problem(("prefetch", "predictor"), message, "write predictor: history or next_layer")
        if kv.selection.kind == "pages" and kv.sharing != "prefix" and file.kv.selection.overlap is None:
            message = "pages needs overlap, the share of a set that was in the set before; for example 0.8"
            yield source.problem(("kv", "selection"), message)
        if kv.selection.kind == "pages" and scenario.model.window and not scenario.parks:
            message = f"the window of {scenario.model.name} and drawn pages are not modelled together"
            yield source.problem(("kv", "selection", "kind"), message)
        yield from _topology(pool, source)
        if kv.l2 < kv.burst and scenario.scheduler.preemption != "swap_pool":
            message = f"refused: not even one burst fits; l2 is {_kib(kv.l2)}, a burst is {_kib(kv.burst)}"
            yield source.problem(("kv", "l2"), message, "write for example l2: 1 GiB")
        if pool.mover is not None and pool.mover.method != "push":
            for side in ("compress_at", "decompress_at"):
                if getattr(kv.codec, side) == "fpga":
                    message = "the copy engine reads host memory as it is: there is no FPGA on its way"
                    yield source.problem(("kv", "codec", side), message, f"write {side}: gpu")
        return
    if any(problem.field == "kv.system" for problem in source.problems):
        return  # said there already
    without = "there is no cluster.kv_pool, so this is not used; remove it or add a pool"
    unused: tuple[tuple[Where, bool], ...] = (
        (("kv", "l2"), kv.l2 > 0),
        (("kv", "codec"), file.kv.codec is not None),
        (("kv", "burst"), source.has(("kv", "burst"))),
        (("kv", "placement", "eviction"), source.has(("kv", "placement", "eviction"))),
        (("prefetch", "predictor"), file.prefetch.predictor != "none"),
        (("kv", "sharing", "demote_after"), file.kv.sharing.demote_after is not None),
    )
    for path, is_used in unused:
        if is_used:
            yield source.problem(path, without)


def _parked(scenario: ScenarioResolved, source: Source) -> Iterator[Problem]:
    """With a prefix cache the pool holds KV that nobody reads now: what reads running sequences from it is not used."""
    kv, at = scenario.kv, ("kv", "sharing", "kind")
    if kv.placement.eviction != "lru":
        message = f"a prefix cache beside a pool keeps what was used last in every tier; '{kv.placement.eviction}' is not used"
        yield source.problem(("kv", "placement", "eviction"), message, "write eviction: lru")
    if kv.placement.l2 != "exclusive":
        yield source.problem(("kv", "placement", "l2"), "beside a prefix cache L2 holds what is fetched; write l2: exclusive")
    if scenario.prefetch.predictor not in ("none", "next_layer", "session"):
        message = f"'{scenario.prefetch.predictor}' expects the next step to read the same; a prefix is read once"
        yield source.problem(("prefetch", "predictor"), message, "use none, next_layer or session")
    if scenario.prefetch.predictor == "session" and scenario.devices == "detailed":
        message = "fetches for sessions are not modelled on detailed devices"
        yield source.problem(("prefetch", "predictor"), message, "use none or next_layer, or write devices: fluid")
    if scenario.prefetch.control != "fixed":
        yield source.problem(("prefetch", "control"), "a prefix is read once: there is no next step to learn for; use fixed")
    if scenario.model.kept_tokens:
        message = (
            f"all layers of {scenario.model.name} have a window: it keeps no prefix as a whole that others could go on from"
        )
        yield source.problem(at, message, "remove kv.sharing")


def _devices(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> Iterator[Problem]:
    """What far memory does not have whose transfers are events: detailed devices, and a pool that replicas share."""
    shared = scenario.pool is not None and scenario.cluster.pool_shared and bool(scenario.cluster.groups)
    if scenario.devices == "fluid" and not shared:
        return
    instead = "write devices: fluid" if scenario.devices != "fluid" else "write cluster.kv_pool.shared: false"
    if scenario.pool is None:
        message = "detailed devices are those of a kv_pool, and there is none"
        yield source.problem(("devices",), message, f"add one, or {instead}")
        return
    for where, message, use in unfit(scenario, shared):
        yield source.problem(where, message, f"{use}, or {instead}")


def _topology(pool: Pool, source: Source) -> Iterator[Problem]:
    """Fields of the pool and of links that would have no effect, and numbers that do not fit together."""
    if pool.leaf is not None and pool.switch is None:
        yield source.problem((*_POOL, "leaf"), "a leaf switch stands below a root: there is no cluster.kv_pool.switch")
    if pool.leaf is None and pool.leaves > 1:
        yield source.problem((*_POOL, "leaves"), f"{pool.leaves} leaves, but there is no cluster.kv_pool.leaf")
    if pool.leaf is not None and pool.boards * pool.links_per_board < pool.leaves:
        message = f"{pool.leaves} leaf switches for {pool.boards * pool.links_per_board} links of boards"
        yield source.problem((*_POOL, "leaves"), message)
    if pool.others_load > 0.0 and pool.shared_by == 1:
        message = "others_load is the load of other replicas, but the pool is not shared"
        yield source.problem((*_POOL, "others_load"), message, "write for example shared_by: 2")
    if pool.weight != 1.0 and pool.shared_by == 1:
        message = "weight is the share beside other replicas, but the pool is not shared"
        yield source.problem((*_POOL, "weight"), message, "write for example shared_by: 2")
    for name, switch in (("switch", pool.switch), ("leaf", pool.leaf)):
        if switch is not None and switch.weights and switch.arbitration != "weighted":
            message = f"a {switch.arbitration} arbiter has no weights"
            yield source.problem((*_POOL, name, "weights"), message, "write arbitration: weighted")
        if switch is not None and len(switch.weights) > pool.boards:
            yield source.problem((*_POOL, name, "weights"), f"{len(switch.weights)} weights for {pool.boards} boards")
    board = pool.board
    for name in ("tlb", "directory"):
        entries, ways = getattr(board, f"{name}_entries"), getattr(board, f"{name}_ways")
        if entries % ways:
            message = f"{entries} entries are not whole sets of {ways} ways"
            yield source.problem((*_POOL, "board", f"{name}_ways"), message)


def _gpu_link(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> Iterator[Problem]:
    """What only a board's link has."""
    for name in ("load_factor", "power", "price"):
        path = (*_GPUS, "link", name)
        written = source.values.get(path)
        if written is not None and not written.preset:
            message = f"{name} is not used at a GPU's own port, which nobody shares and the GPU's price includes"
            yield source.problem(path, message)


def _steps(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> Iterator[Problem]:
    steps = scenario.scheduler
    if steps.prefill_chunk > steps.token_budget:
        message = f"{steps.prefill_chunk} tokens exceed the token_budget of a step ({steps.token_budget} tokens)"
        yield source.problem(("scheduler", "prefill_chunk"), message)
    if steps.max_batch > steps.token_budget:
        message = f"max_batch {steps.max_batch} exceeds the token_budget of a step ({steps.token_budget} tokens)"
        path = ("scheduler", "token_budget" if source.has(("scheduler", "token_budget")) else "max_batch")
        yield source.problem(path, message, "a step has room for one token of every sequence")
    limit = scenario.model.max_context
    if scenario.kv.block_tokens > limit:
        yield source.problem(
            ("kv", "block"), f"{scenario.kv.block_tokens} tokens exceed the model's max_context ({limit} tokens)"
        )


def _lengths(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> Iterator[Problem]:
    """Refuse a workload none of whose requests can be served."""
    work, limit = scenario.workload, scenario.model.max_context
    if work.input is None or work.output is None:
        return
    least = _least(work.input) + _least(work.output)
    if least > limit:
        message = f"every request has at least {least} tokens, more than the model's max_context ({limit} tokens)"
        yield source.problem(("workload", "synthetic", "input"), message, key=True)


def _least(lengths: Lengths) -> int:
    return lengths.tokens if lengths.dist == "fixed" else max(lengths.low, 1)


def _traces(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> Iterator[Problem]:
    work = scenario.workload
    named: list[tuple[Where, str]] = [(("workload", "trace", "path"), work.path)]
    if work.clients and not os.path.exists(work.clients):
        yield source.problem(("workload", "clients", "path"), f"no such file: {work.clients}", _nearest(work.clients))
    for side, lengths in (("input", work.input), ("output", work.output)):
        named.append((("workload", "synthetic", side, "trace"), lengths.trace if lengths else ""))
    for path, name in named:
        if name and not os.path.isfile(name) and not os.path.isfile(os.path.join(name, "requests.jsonl")):
            what = "is a folder; expected a trace file" if os.path.isdir(name) else "no such trace file"
            yield source.problem(path, f"{what}: {name}", _nearest(name))


def _nearest(name: str) -> str:
    """The nearest file name beside a trace that does not exist."""
    try:
        return did_you_mean(os.path.basename(name), sorted(os.listdir(os.path.dirname(name))))
    except OSError:
        return ""


def _weights(scenario: ScenarioResolved) -> str:
    gpus = scenario.gpus
    share = f"1/{gpus.count} of " if gpus.count > 1 else ""
    activations = f" + {_gib(gpus.activations)} activations" if gpus.activations else ""
    return f"{_gib(scenario.weights_per_gpu)} ({share}the weights){activations} + {_gib(gpus.reserve)} reserve per GPU"


def _usable(scenario: ScenarioResolved) -> str:
    gpus = scenario.gpus
    return f"{_gib(gpus.gpu.memory * gpus.memory_utilization)} ({gpus.memory_utilization:g} of {_gib(gpus.gpu.memory)})"


def _gib(size: float) -> str:
    return f"{size / _GIB:.1f} GiB"


def _kib(size: float) -> str:
    return f"{size / 1024:g} KiB"
