"""A recorded vLLM run as a scenario: the same requests on the model's engine.

The engine arguments of `meta.json` become scheduler, cluster and KV fields; what they leave open has the default of the engine
preset (`catalog/engines`). The GPU is the one given, else the one that the run names: `device` in `meta.json`, `hardware` in
`config.json`. The KV block count is computed by the engine's rule unless the run overrides it. Prefix caching is on unless
`enable_prefix_caching` is false (the default since 0.8), as far as the block ids are known.

Engine arguments that the model does not speak of are refused where they change what is served, and else told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from simulator import catalog
from simulator.errors import InputError, Problem, did_you_mean
from simulator.experiments.steptime import model_named
from simulator.workload.vllm_run import VllmRun, read_run

ENGINES = ("vllm-0.19",)  # presets by version, the latest last
DTYPES = {"auto", "bfloat16", "float16", "half"}
# arguments that change nothing which is modelled
SILENT = {
    "model", "seed", "dtype", "tokenizer", "served_model_name", "disable_log_stats", "disable_log_requests",
    "trust_remote_code", "swap_space", "download_dir", "load_format", "max_model_len", "enable_chunked_prefill",
    "enforce_eager",
}  # fmt: skip


def recorded_scenario(path: str | Path, gpu: str | None = None) -> tuple[dict[str, Any], VllmRun, list[str]]:
    """(scenario as plain data, the run, what a reader should know); InputError with all that is wrong."""
    run = read_run(path)
    where = f"{path}/meta.json"
    arguments = run.meta.get("engine_kwargs")
    if not isinstance(arguments, Mapping):
        raise InputError(Problem(where, "engine_kwargs", "missing; expected an object of engine arguments"))
    reader = _Arguments(arguments, where)
    problems: list[Problem] = []
    name = reader.collect(problems, lambda: _model(run, arguments, where))
    device = reader.collect(problems, lambda: gpu_of_run(run, gpu, str(path)))
    tensor, data = reader.count("tensor_parallel_size", 1), reader.count("data_parallel_size", 1)
    pipeline = reader.count("pipeline_parallel_size", 1)
    gpus: dict[str, Any] = {"type": device, "count": tensor * data * pipeline, "tensor_parallel": tensor}
    if pipeline > 1:
        gpus["pipeline_parallel"] = pipeline
    if data > 1:
        gpus["data_parallel"] = data
    if arguments.get("enable_expert_parallel") and tensor * data > 1:
        gpus["expert_parallel"] = tensor * data
    if (share := reader.number("gpu_memory_utilization")) is not None:
        gpus["memory_utilization"] = share
    scheduler: dict[str, Any] = {"engine": _engine(run, reader.notes)}
    for argument, field, unit in (
        ("max_num_seqs", "max_batch", ""), ("max_num_batched_tokens", "token_budget", " tokens"),
        ("long_prefill_token_threshold", "prefill_chunk", " tokens"),
    ):  # fmt: skip
        if (value := reader.count(argument, 0)) > 0:
            scheduler[field] = f"{value}{unit}" if unit else value
    kv: dict[str, Any] = {"block": f"{reader.count('block_size', 16)} tokens"}
    if blocks := reader.count("num_gpu_blocks_override", 0):
        kv["blocks"] = blocks
    if run.ids is not None and arguments.get("enable_prefix_caching") is not False:
        kv["sharing"] = {"kind": "prefix"}
    reader.unknown()
    problems += reader.problems
    if problems:
        raise InputError(problems)
    scenario = {
        "name": re.sub(r"[^A-Za-z0-9_.-]", "-", run.name),
        "workload": {"trace": {"path": str(Path(path).resolve()), "format": "vllm"}},
        "model": _shape(name, arguments),
        "cluster": {"gpus": gpus},
        "kv": kv,
        "scheduler": scheduler,
    }
    return scenario, run, [*run.notes, *reader.notes]


class _Arguments:
    """Engine arguments, read one by one; what is wrong is collected."""

    def __init__(self, values: Mapping[str, Any], where: str):
        self.values, self.where = values, where
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._read = {"enable_expert_parallel", "enable_prefix_caching", "kv_cache_dtype"}

    def collect(self, problems: list[Problem], find: Callable[[], str]) -> str:
        try:
            return find()
        except InputError as error:
            problems += error.problems
            return ""

    def count(self, name: str, default: int) -> int:
        """A whole number of at least 1; the default where it is missing or null."""
        self._read.add(name)
        value = self.values.get(name)
        if value is None or (value == 0 and default == 0):
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self._wrong(name, f"{value!r} found; expected a whole number of at least 1")
            return max(default, 1)
        return value

    def number(self, name: str) -> float | None:
        self._read.add(name)
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value <= 1.0:
            self._wrong(name, f"{value!r} found; expected a share above 0 and at most 1")
            return None
        return float(value)

    def unknown(self) -> None:
        """Arguments that are set and not understood: formats are refused, others are told."""
        for name, value in self.values.items():
            if name in ("quantization", "speculative_config") and value is not None:
                self._wrong(name, f"{value!r} found; the replay has no {name.partition('_')[0]}")
            elif name not in self._read | SILENT and value not in (None, False):
                self.notes.append(f"engine argument {name}={value!r} is not modelled")
        dtype, kv = self.values.get("dtype"), self.values.get("kv_cache_dtype")
        if dtype is not None and dtype not in DTYPES:
            self._wrong("dtype", f"{dtype!r} found; expected one of {', '.join(sorted(DTYPES))}")
        if kv is not None and kv not in DTYPES and not str(kv).startswith("fp8"):
            self._wrong("kv_cache_dtype", f"{kv!r} found; expected auto, bfloat16 or fp8")

    def _wrong(self, name: str, message: str) -> None:
        self.problems.append(Problem(self.where, f"engine_kwargs.{name}", message))


def _model(run: VllmRun, arguments: Mapping[str, Any], where: str) -> str:
    name = arguments.get("model") or run.meta.get("model")
    if not isinstance(name, str):
        raise InputError(Problem(where, "model", "missing; expected the name of a model"))
    try:
        return model_named(name).name
    except InputError as error:
        raise InputError([Problem(where, "model", one.message, one.hint) for one in error.problems]) from None


def _shape(name: str, arguments: Mapping[str, Any]) -> Any:
    """The model as a scenario names it; a KV cache of 8 bits and a shorter context are fields of their own."""
    shape: dict[str, Any] = {"type": name}
    if str(arguments.get("kv_cache_dtype", "")).startswith("fp8"):
        shape["kv_bytes"] = 1
    if isinstance(arguments.get("max_model_len"), int):
        shape["max_context"] = f"{arguments['max_model_len']} tokens"
    return shape if len(shape) > 1 else name


def gpu_of_run(run: VllmRun, given: str | None, where: str) -> str:
    """The catalogue name of the run's GPU: the one given, else the one named in the run."""
    found = given
    for key in ("device", "device_name", "gpu", "gpu_name", "hardware"):
        found = found or _text(run.meta.get(key))
    for node in run.config.get("nodes", []):
        for instance in node.get("instances", []):
            found = found or _text(instance.get("hardware"))
    field = "--gpu" if given else "device"
    if not found:
        hint = "give it: --gpu NAME (`speckvsim catalog gpus` lists all)"
        raise InputError(Problem(where, field, "the run does not name its GPU", hint))
    known = catalog.names("gpus")
    plain = {_plain(name): name for name in known}
    sought = _plain(found)
    if sought in plain:
        return plain[sought]
    inside = [name for key, name in plain.items() if _words(name) <= _words(found)]
    if len(inside) == 1:
        return inside[0]
    begins = [name for key, name in plain.items() if key.startswith(sought)]
    if len(begins) == 1:
        return begins[0]
    near = did_you_mean(found.casefold().replace(" ", "-"), known) or "`speckvsim catalog gpus` lists all"
    raise InputError(Problem(where, field, f"'{found}' is not a GPU of the catalogue", near))


def _text(value: Any) -> str | None:
    """A name, also where it is that of a device description."""
    if isinstance(value, Mapping):
        value = value.get("name") or value.get("gpu")
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) and value.strip() else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _words(name: str) -> set[str]:
    """Words of a name, sizes in GB apart from their unit."""
    return set(re.sub(r"(\d+)\s*gb", r"\1gb", name.casefold()).replace("-", " ").replace("_", " ").split())


def _engine(run: VllmRun, notes: list[str]) -> str:
    version = str(run.meta.get("vllm_version", ""))
    preset = f"vllm-{'.'.join(version.split('.')[:2])}"
    if preset in ENGINES:
        return preset
    notes.append(f"no host-overhead law for vLLM '{version}': that of {ENGINES[-1]} is taken")
    return ENGINES[-1]
