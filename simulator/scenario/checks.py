"""What several sections must agree on, each problem with the line of the value that can be changed.

Byte counts per GPU: weights / tensor_parallel + reserve + L1 + L2 <= memory * memory_utilization.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from simulator.errors import Problem, did_you_mean
from simulator.scenario.capacity import kv_bytes_per_token_rank
from simulator.scenario.resolved import Lengths, ScenarioResolved
from simulator.scenario.schema import ScenarioFile
from simulator.scenario.source import Source, Where

_GIB = 2.0**30
_GPUS = ("cluster", "gpus")


def cross_checks(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> list[Problem]:
    """All problems between sections."""
    checks = (_parallel, _fits, _tiers, _pool, _steps, _lengths, _traces)
    return [problem for check in checks for problem in check(scenario, file, source)]


def _parallel(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> Iterator[Problem]:
    model, gpus = scenario.model, scenario.gpus
    ranks, path = gpus.tensor_parallel, (*_GPUS, "tensor_parallel")
    if not source.has(path):
        path = (*_GPUS, "count")
    if ranks != gpus.count:
        message = f"tensor_parallel {ranks} is not the count of GPUs ({gpus.count}); one replica uses all of its GPUs"
        yield source.problem(path, message, "write the same number, or leave tensor_parallel out")
    if model.heads % ranks:
        yield source.problem(path, f"tensor_parallel {ranks} does not divide the {model.heads} heads of {model.name}")
    elif model.kv_heads % ranks and ranks % model.kv_heads:
        message = f"{model.kv_heads} KV heads of {model.name} cannot be spread over {ranks} GPUs evenly"
        yield source.problem(path, message)
    if model.heads % model.kv_heads:
        message = f"{model.heads} heads do not divide into groups of {model.kv_heads} KV heads"
        yield source.problem(("model", "kv_heads"), message)


def _fits(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> Iterator[Problem]:
    if scenario.hbm_left < 0:
        yield source.problem(
            ("model",),
            f"{scenario.model.name} does not fit: {_weights(scenario)} exceed {_usable(scenario)}",
            "more GPUs, a smaller weight_bytes or another GPU",
        )


def _tiers(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> Iterator[Problem]:
    kv, left = scenario.kv, scenario.hbm_left
    if left < 0:
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
        if kv.l2 < kv.burst:
            message = f"refused: not even one burst fits; l2 is {_kib(kv.l2)}, a burst is {_kib(kv.burst)}"
            yield source.problem(("kv", "l2"), message, "write for example l2: 1 GiB")
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
    )
    for path, is_used in unused:
        if is_used:
            yield source.problem(path, without)


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
    for side, lengths in (("input", work.input), ("output", work.output)):
        named.append((("workload", "synthetic", side, "trace"), lengths.trace if lengths else ""))
    for path, name in named:
        if name and not os.path.isfile(name):
            what = "is a folder; expected a trace file" if os.path.isdir(name) else "no such trace file"
            yield source.problem(path, f"{what}: {name}", _nearest(name))


def _nearest(name: str) -> str:
    """The nearest file name beside a trace that does not exist."""
    try:
        return did_you_mean(os.path.basename(name), sorted(os.listdir(os.path.dirname(name))))
    except OSError:
        return ""


def _weights(scenario: ScenarioResolved) -> str:
    share = f"1/{scenario.gpus.tensor_parallel} of " if scenario.gpus.tensor_parallel > 1 else ""
    return f"{_gib(scenario.weights_per_gpu)} ({share}the weights) + {_gib(scenario.gpus.reserve)} reserve per GPU"


def _usable(scenario: ScenarioResolved) -> str:
    gpus = scenario.gpus
    return f"{_gib(gpus.gpu.memory * gpus.memory_utilization)} ({gpus.memory_utilization:g} of {_gib(gpus.gpu.memory)})"


def _gib(size: float) -> str:
    return f"{size / _GIB:.1f} GiB"


def _kib(size: float) -> str:
    return f"{size / 1024:g} KiB"
