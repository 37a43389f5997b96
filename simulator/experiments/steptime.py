"""One step on one GPU type and model, without a scenario: its time, operator by operator.

`step_model` builds the step model from catalogue names; `steptime` takes one step apart. Times are those of the GPU: the
host overhead of a serving engine comes on top (`scheduler.host_overhead` of a scenario).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from simulator import catalog
from simulator.catalog.fields import FIELDS
from simulator.errors import InputError, Problem, did_you_mean
from simulator.hardware.gpu import KERNELS_PER_HEAD, KERNELS_PER_LAYER, StepModel
from simulator.hardware.operator import Operator
from simulator.scenario.resolved import Gpu, Gpus, Link, Model
from simulator.units import parse

ALIASES = {
    "llama-7b": "llama-2-7b", "llama-13b": "llama-2-13b", "llama-70b": "llama-2-70b", "llama3-8b": "llama-3-8b",
    "llama3-70b": "llama-3-70b", "mistral-7b": "mistral-7b-v0.1", "llama-405b": "llama-3.1-405b",
}  # fmt: skip
ENDINGS = ("-hf", "-instruct", "-chat", "-base")
PLAIN = ("number", "integer", "text", "flag")


def step_model(
    gpu: str, model: str, tensor_parallel: int = 1, layers: int | None = None, values: Mapping[str, float] | None = None
) -> StepModel:
    """The step model of a catalogue GPU and model, no host overhead; `values` overrides fields of the GPU (SI units)."""
    device = gpu_named(gpu, tensor_parallel)
    shape = model_named(model)
    if values:
        device = replace(device, **values)  # type: ignore[arg-type]
    if layers is not None:
        shape = replace(shape, layers=layers)
    if shape.heads % tensor_parallel:
        message = f"the {shape.heads} heads of {shape.name} cannot be split over {tensor_parallel} GPUs"
        raise InputError(Problem("--tp", "", message))
    return StepModel(shape, Gpus(device, tensor_parallel, tensor_parallel, 1.0, 0.0), 0.0)


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


def model_named(name: str) -> Model:
    """A model of the catalogue, whatever the case, the owner's prefix and endings such as -hf; aliases are known."""
    short = name.strip().rpartition("/")[2].casefold().replace("_", "-").replace(" ", "-")
    short = short.removeprefix("meta-")
    for ending in ENDINGS:
        if short not in catalog.names("models"):
            short = short.removesuffix(ending)
    entry = _entry("models", ALIASES.get(short, short), name)
    return Model(name=entry.name, **{field: _plain("models", field, value) for field, value in entry.values.items()})


def _entry(kind: str, name: str, written: str | None = None) -> catalog.Entry:
    try:
        return catalog.load(kind, name)
    except catalog.UnknownName as error:
        near = did_you_mean(name, [*catalog.names(kind), *(ALIASES if kind == "models" else ())])
        hint = "   ".join(filter(None, (near, f"`speckvsim catalog {kind}` lists all {len(catalog.names(kind))}")))
        noun = error.message.rpartition(" known ")[2]
        raise InputError(Problem(f"--{kind[:-1]}", "", f"'{written or name}' is not a known {noun}", hint)) from error


def _plain(kind: str, field: str, value: Any) -> Any:
    dimension = FIELDS[kind][field]
    if dimension in PLAIN:
        return value
    number = parse(str(value), dimension)
    return int(number) if dimension == "tokens" else number


def steptime(model: StepModel, batch: int = 0, context: int = 0, prefill: int = 0, past: int = 0) -> dict[str, Any]:
    """A step of `batch` decodes that read `context` tokens each, and of one prompt piece of `prefill` tokens after `past`.

    The piece is taken to be its prompt's last, so that it emits a token. FLOPs, bytes and times are those of one GPU, summed
    over the layers; the times of the operators sum to `step_s`.
    """
    if not batch and not prefill:
        raise InputError(Problem("--batch", "", "0 decodes and no --prefill tokens: there is no step"))
    tokens, rows, layers = batch + prefill, batch + bool(prefill), model.layers
    attentions = bool(batch) + bool(prefill)
    operators = [(layers, operator) for operator in model.layer_operators(tokens)]
    if batch:
        operators.append((layers, model.decode_attention(batch * context)))
    if prefill:
        operators.append((layers, model.prefill_attention([(prefill, past)])))
    operators.append((1, model.head_operator(rows)))
    found = [_row(operator, times) for times, operator in operators]
    if model.ranks > 1:
        moved = 2 * layers * tokens * model.model.hidden * 2.0
        collective = {"time_s": 2 * layers * model.all_reduce(tokens), "flops": 0.0, "bytes": moved, "bound": "collective"}
        found.append({"name": "all_reduce", **collective})
    kernels = (layers * (KERNELS_PER_LAYER + attentions) + KERNELS_PER_HEAD) * model.gpu.launch
    found.append({"name": "launch", "time_s": kernels, "flops": 0.0, "bytes": 0.0, "bound": "launch"})
    shares: dict[str, float] = {}
    for row in found:
        shares[row["bound"]] = shares.get(row["bound"], 0.0) + row["time_s"]
    step = sum(row["time_s"] for row in found)
    return {"step_s": step, "bound": max(shares, key=lambda bound: shares[bound]), "operators": found}


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
    attention = model.attention_per_token * sum(contexts)
    if contexts and not split:
        attention += model.decode_imbalance(contexts)
    if pieces:
        attention += model.prefill_attention(pieces, paged).time
    return model.base(tokens, emitting, bool(contexts) + bool(pieces)) + model.layers * attention


def _row(operator: Operator, times: int) -> dict[str, Any]:
    work = {"time_s": times * operator.time, "flops": times * operator.flops, "bytes": times * operator.bytes}
    return {"name": operator.name, **work, "bound": operator.bound}
