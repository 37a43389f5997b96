"""One step on one GPU type and model, without a scenario: its time, operator by operator.

`step_model` builds the step model from names of the catalogue or a Hugging Face `config.json`; `steptime` takes one step apart.
Times are those of the GPU: the host overhead of a serving engine comes on top (`scheduler.host_overhead` of a scenario).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from simulator import catalog
from simulator.catalog.aliases import ALIASES, canonical
from simulator.catalog.fields import FIELDS, OPTIONAL
from simulator.errors import InputError, Problem, did_you_mean
from simulator.experiments.uncalibrated import uncertainty
from simulator.hardware.gemm import ACTIVATION_BYTES
from simulator.hardware.gpu import KERNELS_PER_HEAD, StepModel
from simulator.hardware.operator import Operator
from simulator.scenario.hf_config import model_of_config
from simulator.scenario.precision import EMBEDDINGS, KV, WEIGHTS
from simulator.scenario.resolved import Gpu, Gpus, Link, Model
from simulator.units import parse

PLAIN = ("number", "integer", "text", "flag")


def step_model(
    gpu: str,
    model: str | Model,
    tensor_parallel: int = 1,
    layers: int | None = None,
    values: Mapping[str, float] | None = None,
    pipeline_parallel: int = 1,
    expert_parallel: int = 1,
    weights: str | None = None,
    kv: str | None = None,
) -> StepModel:
    """The step model of a catalogue GPU and a model (a name, a config.json, or its shape), no host overhead.

    `values` overrides fields of the GPU (SI units); `layers` cuts the model (leading dense layers of a MoE stay);
    `weights` and `kv` choose other precisions than the model's own.
    """
    device = gpu_named(gpu, max(tensor_parallel, expert_parallel, 2 if pipeline_parallel > 1 else 1))
    shape = model if isinstance(model, Model) else model_named(model)
    if values:
        device = replace(device, **values)  # type: ignore[arg-type]
    if layers is not None:
        shape = replace(shape, layers=layers, dense_layers=min(shape.dense_layers, layers))
        shape = replace(shape, full_layers=min(shape.full_layers, layers))
    if weights is not None:
        _known("weights", weights, WEIGHTS)
        embeddings = None if WEIGHTS[weights] == EMBEDDINGS else EMBEDDINGS
        shape = replace(shape, weights=weights, weight_bytes=WEIGHTS[weights], embedding_bytes=embeddings)
    if kv is not None:
        _known("kv", kv, KV)
        shape = replace(shape, kv_bytes=KV[kv])
    _fits(shape, tensor_parallel, pipeline_parallel, expert_parallel)
    ranks = tensor_parallel * pipeline_parallel
    gpus = Gpus(device, ranks, tensor_parallel, 1.0, 0.0, pipeline_parallel=pipeline_parallel, expert_parallel=expert_parallel)
    return StepModel(shape, gpus, 0.0)


def _known(option: str, name: str, table: Mapping[str, float]) -> None:
    if name not in table:
        message = f"'{name}' is not a known precision; expected one of: {', '.join(table)}"
        raise InputError(Problem(f"--{option}", "", message, did_you_mean(name, table)))


def _fits(shape: Model, ranks: int, stages: int, group: int) -> None:
    problems = []
    if shape.heads % ranks:
        problems.append(("--tp", f"the {shape.heads} heads of {shape.name} cannot be split over {ranks} GPUs"))
    if stages > shape.layers:
        problems.append(("--pp", f"{shape.name} has {shape.layers} layers, not enough for {stages} stages"))
    if group > 1 and (not shape.experts or shape.experts % group):
        problems.append(("--ep", f"the {shape.experts} routed experts of {shape.name} cannot be dealt out over {group} GPUs"))
    elif group > 1 and group % ranks:
        problems.append(("--ep", f"an expert group of {group} GPUs is no multiple of the {ranks} tensor-parallel ones"))
    if problems:
        raise InputError([Problem(option, "", message) for option, message in problems])


def gpu_named(name: str, ranks: int = 1) -> Gpu:
    """A GPU of the catalogue; its all-reduce fields are those of the next larger degree, else of the largest."""
    entry = _entry("gpus", name.strip().casefold())
    values: dict[str, Any] = {}
    for field, value in entry.values.items():
        if isinstance(value, dict):
            value, _ = catalog.at_degree(value, ranks)
        values[field] = link_named(str(value)) if field == "link" else _plain("gpus", field, value)
    return Gpu(name=entry.name, **values)


def link_named(name: str) -> Link:
    entry = _entry("links", name)
    return Link(name=entry.name, **{field: _plain("links", field, value) for field, value in entry.values.items()})


def known_model(name: str) -> bool:
    """The catalogue has a model of that name or alias."""
    names = catalog.names("models")
    return canonical(name, names) in names


def model_named(name: str) -> Model:
    """A model of the catalogue by any of its names (`catalog/aliases.py`), or of a Hugging Face config.json."""
    if name.endswith(".json") or Path(name).is_file():
        return model_of_config(Path(name))
    entry = _entry("models", canonical(name, catalog.names("models")), name)
    values = {field: _plain("models", field, value) for field, value in entry.values.items()}
    return Model(name=entry.name, **values)


def _entry(kind: str, name: str, written: str | None = None) -> catalog.Entry:
    try:
        return catalog.load(kind, name)
    except catalog.UnknownName as error:
        near = did_you_mean(name, [*catalog.names(kind), *(ALIASES if kind == "models" else ())])
        hint = "   ".join(filter(None, (near, f"`speckvsim catalog {kind}` lists all {len(catalog.names(kind))}")))
        noun = error.message.rpartition(" known ")[2]
        raise InputError(Problem(f"--{kind[:-1]}", "", f"'{written or name}' is not a known {noun}", hint)) from error


def _plain(kind: str, field: str, value: Any) -> Any:
    dimension = (FIELDS[kind] | OPTIONAL.get(kind, {}))[field]
    if dimension in PLAIN:
        return value
    number = parse(str(value), dimension)
    return int(number) if dimension == "tokens" else number


def steptime(model: StepModel, batch: int = 0, context: int = 0, prefill: int = 0, past: int = 0) -> dict[str, Any]:
    """A step of `batch` decodes that read `context` tokens each, and of one prompt piece of `prefill` tokens after `past`.

    The piece is taken to be its prompt's last, so that it emits a token. FLOPs, bytes and times are those of one GPU (of the
    last stage of a pipeline), summed over its layers and micro-batches; the times of the operators sum to `step_s`. A GPU that
    was not measured has one more key, `uncalibrated`: by how much its step times may be off.
    """
    if not batch and not prefill:
        raise InputError(Problem("--batch", "", "0 decodes and no --prefill tokens: there is no step"))
    tokens, rows = batch + prefill, batch + bool(prefill)
    attentions = bool(batch) + bool(prefill)
    micro = model.micro_batches(tokens)
    each, head = -(-tokens // micro), -(-rows // micro)
    layers = micro * model.stage_layers / model.layers  # times that this GPU runs a layer, for each of the model's
    operators = [(layers * count, operator) for count, operator in model.all_operators(each)]
    if batch:
        sequences = batch / micro * model.layers / model.units
        attention = model.decode_attention(model.reads_of([context]) * batch / micro, sequences)
        operators.append((layers * model.units, attention))
    if prefill:
        attention = model.prefill_attention([(prefill, past)], contexts=[context] * batch)
        operators.append((layers * model.layers / micro, attention))
    operators += [(micro, model.head_operator(head)), (micro, model.sampling(head))]
    found = [_row(times, operator) for times, operator in _merged(operators)]
    found += _collectives(model, each, layers, micro)
    launches = layers * sum(count * model.launches(attentions, moe) for count, moe in model.kinds)
    found.append(_waiting("launch", launches + micro * KERNELS_PER_HEAD * model.gpu.launch))
    if model.stages > micro:
        idle = sum(row["time_s"] for row in found) * (model.stages - micro) / micro
        found.append(_waiting("bubble", idle, bound="pipeline"))
    shares: dict[str, float] = {}
    for row in found:
        shares[row["bound"]] = shares.get(row["bound"], 0.0) + row["time_s"]
    step = sum(row["time_s"] for row in found)
    result = {"step_s": step, "bound": max(shares, key=lambda bound: shares[bound]), "operators": found}
    doubt = uncertainty(model.gpu)
    return result if doubt is None else result | {"uncalibrated": doubt}


def _merged(operators: list[tuple[float, Operator]]) -> list[tuple[float, Operator]]:
    """One entry of each name: operators that layers of both kinds have are listed once."""
    seen: dict[str, tuple[float, Operator]] = {}
    for times, operator in operators:
        if operator.name in seen:
            before, same = seen[operator.name]
            if same == operator:
                seen[operator.name] = (before + times, operator)
                continue
            operator = replace(operator, name=f"{operator.name}_moe")
        seen[operator.name] = (times, operator)
    return list(seen.values())


def _collectives(model: StepModel, tokens: int, layers: float, micro: int) -> list[dict[str, Any]]:
    hidden, found = tokens * model.model.hidden * ACTIVATION_BYTES, []
    exchanging = sum(count for count, moe in model.kinds if moe) if model.exchange(tokens) else 0
    reduces = layers * (2 * model.layers - exchanging)
    if model.ranks > 1:
        found.append(_waiting("all_reduce", reduces * model.all_reduce(tokens), reduces * hidden, "collective"))
    if exchanging:
        times = layers * exchanging
        moved = times * 2 * hidden
        found.append(_waiting("expert_exchange", times * model.exchange(tokens), moved, "collective"))
    if model.stages > 1:
        found.append(_waiting("send_receive", micro * model.send(tokens), micro * hidden, "collective"))
    return found


def _waiting(name: str, time: float, moved: float = 0.0, bound: str = "") -> dict[str, Any]:
    return {"name": name, "time_s": time, "flops": 0.0, "bytes": moved, "bound": bound or name}


def step_seconds(
    model: StepModel,
    contexts: Sequence[int] = (),
    pieces: Sequence[tuple[int, int]] = (),
    rows: int | None = None,
    paged: bool | None = None,
    split: bool = True,
) -> float:
    """A step of decodes with these contexts and prompt pieces (tokens, past); `rows` emit a token, by default all.

    `paged` and `split` say which kernels run: prefill over a paged cache also without a past; decode attention that splits
    long sequences over SMs or does not (`hardware/attention.py`).
    """
    tokens = len(contexts) + sum(take for take, _ in pieces)
    emitting = len(contexts) + len(pieces) if rows is None else rows
    time = model.base(tokens, emitting, bool(contexts) + bool(pieces)) + model.unit_time(tokens) * model.reads_of(contexts)
    each_layer = model.decode_imbalance(contexts) if contexts and not split else 0.0
    if pieces:
        each_layer += model.prefill_attention(pieces, paged, contexts).time
    return time + model.passes(tokens) * each_layer


def _row(times: float, operator: Operator) -> dict[str, Any]:
    work = {"time_s": times * operator.time, "flops": times * operator.flops, "bytes": times * operator.bytes}
    return {"name": operator.name, **work, "bound": operator.bound}
