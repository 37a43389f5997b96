"""A Hugging Face `config.json` as the shape of a model.

Decided by the architecture's name; every key has the name that `transformers` gives it. Precision is that of
`quantization_config` (fp8, and the 8- and 4-bit methods), else 16 bits. A windowed layer is one that `layer_types`,
`sliding_window_pattern` or `max_window_layers` says has it.

Not read: rotary settings, normalisation, multi-token prediction, vision towers. Architectures that are not listed, and values
that the simulator has no physics for (experts of several widths, value heads of another size), are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulator.errors import InputError, Problem, did_you_mean
from simulator.scenario.precision import EMBEDDINGS, WEIGHTS
from simulator.scenario.resolved import Model

# architecture -> what is not said by its keys
GATED: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {}, "MistralForCausalLM": {}, "MixtralForCausalLM": {}, "Qwen3ForCausalLM": {},
    "Qwen3MoeForCausalLM": {}, "DeepseekForCausalLM": {}, "DeepseekV2ForCausalLM": {}, "DeepseekV3ForCausalLM": {},
    "Qwen2ForCausalLM": {"bias": "qkv"}, "Qwen2MoeForCausalLM": {"bias": "qkv"},
    "GemmaForCausalLM": {"tied": True}, "Gemma2ForCausalLM": {"tied": True}, "Gemma3ForCausalLM": {"tied": True},
    "Phi3ForCausalLM": {},
}  # fmt: skip
PLAIN: dict[str, dict[str, Any]] = {
    "OPTForCausalLM": {"bias": "all", "tied": True, "learned": 2}, "BloomForCausalLM": {"bias": "all", "tied": True},
    "GPTJForCausalLM": {}, "FalconForCausalLM": {}, "PhiForCausalLM": {"bias": "all"},
    "GPT2LMHeadModel": {"bias": "all", "tied": True, "learned": 0},
}  # fmt: skip
ARCHITECTURES = sorted({**GATED, **PLAIN})

# field of a model -> keys that give it, in order of preference
KEYS: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "hidden": ("hidden_size", "n_embd"),
    "heads": ("num_attention_heads", "n_head"),
    "vocab": ("vocab_size",),
}
CONTEXT = ("max_position_embeddings", "n_positions", "seq_length", "max_sequence_length")
DEFAULT_CONTEXT = {"BloomForCausalLM": 2048, "FalconForCausalLM": 2048}  # neither says: ALiBi and rotary embeddings


def model_of_config(path: Path) -> Model:
    """The shape in a file, its name that of the file's folder or the file; `InputError` with everything that is wrong."""
    values, _ = fields_of(path)
    return Model(name=name_of(path), **values)


def name_of(path: Path) -> str:
    return path.resolve().parent.name if path.stem == "config" else path.stem


def fields_of(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(fields of a `Model` but its name, the key that each came from)."""
    config = _read(path)
    problems: list[Problem] = []
    names = config.get("architectures") or []
    name = names[0] if isinstance(names, list) and names else None
    if name not in (*GATED, *PLAIN):
        hint = "   ".join(filter(None, (did_you_mean(str(name), ARCHITECTURES), f"known: {', '.join(ARCHITECTURES)}")))
        missing = "names no architecture" if name is None else f"'{name}' is not an architecture that is modelled"
        raise InputError(Problem(str(path), "architectures", missing, hint))
    reader = _Config(path, config, problems)
    values = _shape(reader, str(name))
    if problems:
        raise InputError(problems)
    return values, reader.used


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(Problem(str(path), "", f"cannot be read: {(error.strerror or str(error)).lower()}")) from error
    except json.JSONDecodeError as error:
        raise InputError(Problem(f"{path}:{error.lineno}:{error.colno}", "", f"is no JSON: {error.msg}")) from error
    except UnicodeDecodeError as error:
        raise InputError(Problem(str(path), "", "is no JSON: not text in UTF-8")) from error
    if not isinstance(config, dict):
        raise InputError(Problem(str(path), "", "is no config.json: expected a mapping at the top"))
    text = config.get("text_config")
    return config | text if isinstance(text, dict) else config


class _Config:
    """The keys of a config.json; what is missing or of the wrong kind is collected."""

    def __init__(self, path: Path, values: Mapping[str, Any], problems: list[Problem]):
        self.path, self.values, self.problems = path, values, problems
        self.used: dict[str, str] = {}

    def whole(self, field: str, keys: tuple[str, ...], least: int = 1, default: int | None = None) -> int:
        """A whole number from the first of `keys` that is there (null counts as absent)."""
        for key in keys:
            value = self.values.get(key)
            if value is None:
                continue
            if type(value) is not int or value < least:
                self.refuse(key, f"expected a whole number of at least {least}, found {json.dumps(value)[:40]}")
                return least
            self.used[field] = key
            return value
        if default is None:
            near = did_you_mean(keys[0], list(self.values))
            self.refuse(" or ".join(keys), f"missing; it gives {field}", near)
            return least
        return default

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key)
        return default if value is None else bool(value)

    def refuse(self, key: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(str(self.path), key, message, hint))


def _shape(config: _Config, name: str) -> dict[str, Any]:
    facts = GATED.get(name, PLAIN.get(name, {}))
    values: dict[str, Any] = {field: config.whole(field, keys) for field, keys in KEYS.items()}
    hidden, heads = values["hidden"], values["heads"]
    inner = ("ffn_dim",) if name == "OPTForCausalLM" else ("n_inner", "intermediate_size", "ffn_hidden_size")
    own = None if name in GATED or name in ("OPTForCausalLM", "PhiForCausalLM") else 4 * hidden
    context = config.whole("max_context", CONTEXT, default=DEFAULT_CONTEXT.get(name))
    bias = facts.get("bias", "none")
    if bias == "none" and config.flag("attention_bias", False):
        bias = "qkv"
    if name == "FalconForCausalLM" and config.flag("bias", False):
        bias = "all"
    values |= {
        "kv_heads": _kv_heads(config, name, heads),
        "head_dim": config.whole("head_dim", ("head_dim",), default=max(1, hidden // heads)),
        "intermediate": config.whole("intermediate", inner, default=own),
        "gated_mlp": name in GATED,
        "max_context": context,
        "tied_embeddings": config.flag("tie_word_embeddings", facts.get("tied", name == "FalconForCausalLM")),
        "positions": context + facts["learned"] if "learned" in facts else 0,
        "bias": bias,
        "kv_bytes": 2.0,
    }
    if hidden % heads and "head_dim" not in config.used:
        config.refuse("hidden_size", f"{hidden} is no multiple of {heads} heads, and there is no head_dim")
    values |= _precision(config) | _window(config, name, values["layers"])
    if name.startswith("DeepseekV"):
        values |= _latent(config)
    return values | _experts(config, name, values["layers"])


def _kv_heads(config: _Config, name: str, heads: int) -> int:
    if name == "FalconForCausalLM" and not config.flag("new_decoder_architecture", False):
        return 1 if config.flag("multi_query", True) else heads
    return config.whole("kv_heads", ("num_key_value_heads", "num_kv_heads"), default=heads)


def _precision(config: _Config) -> dict[str, Any]:
    quantised = config.values.get("quantization_config")
    if not isinstance(quantised, dict):
        return {"weights": "bf16", "weight_bytes": WEIGHTS["bf16"]}
    method, bits = str(quantised.get("quant_method", "")), quantised.get("bits")
    precision = {"fp8": "fp8", "fbgemm_fp8": "fp8", "awq": "int4"}.get(method)
    if precision is None or (method == "awq" and bits not in (4, None)):
        precision = {8: "int8", 4: "int4"}.get(bits) if isinstance(bits, int) else None
    if precision is None:
        expected = "fp8, or a method with 8 or 4 bits"
        config.refuse("quantization_config", f"'{method}' with bits {bits} is not modelled; expected {expected}")
        precision = "bf16"
    return {"weights": precision, "weight_bytes": WEIGHTS[precision], "embedding_bytes": EMBEDDINGS}


def _window(config: _Config, name: str, layers: int) -> dict[str, Any]:
    window = config.whole("window", ("sliding_window",), default=0)
    if not window or not config.flag("use_sliding_window", True):
        return {}
    kinds = config.values.get("layer_types")
    if isinstance(kinds, list):
        full = sum(kind != "sliding_attention" for kind in kinds[:layers])
    elif name in ("Gemma2ForCausalLM", "Gemma3ForCausalLM"):
        full = layers // config.whole("full_layers", ("sliding_window_pattern",), default=2 if name.startswith("Gemma2") else 6)
    elif name.startswith("Qwen"):
        full = min(layers, config.whole("full_layers", ("max_window_layers",), least=0, default=0))
    else:
        full = 0
    return {"window": window, "full_layers": full} if full < layers else {}


def _latent(config: _Config) -> dict[str, Any]:
    nope = config.whole("head_dim", ("qk_nope_head_dim",))
    value = config.whole("v_head_dim", ("v_head_dim",))
    if nope != value:
        config.refuse("v_head_dim", f"{value} is not qk_nope_head_dim ({nope}): heads of two sizes are not modelled")
    return {
        "head_dim": nope,
        "kv_latent": config.whole("kv_latent", ("kv_lora_rank",)),
        "q_latent": config.whole("q_latent", ("q_lora_rank",), default=0),
        "rope_dim": config.whole("rope_dim", ("qk_rope_head_dim",)),
    }


def _experts(config: _Config, name: str, layers: int) -> dict[str, Any]:
    count = config.whole("experts", ("num_local_experts", "n_routed_experts", "num_experts"), default=0)
    if not count:
        if name.startswith(("Mixtral", "Qwen2Moe", "Qwen3Moe")):
            config.refuse("num_experts", "missing; it gives experts")
        return {}
    inner = ("intermediate_size",) if name == "MixtralForCausalLM" else ("moe_intermediate_size",)
    width = config.whole("expert_intermediate", inner)
    shared = config.whole("shared_intermediate", ("shared_expert_intermediate_size",), least=0, default=0)
    if not shared:
        shared = width * config.whole("shared_intermediate", ("n_shared_experts",), least=0, default=0)
    dense = config.whole("dense_layers", ("first_k_dense_replace",), least=0, default=0)
    only = config.values.get("mlp_only_layers") or []
    every = config.whole("moe_layer_freq", ("moe_layer_freq", "decoder_sparse_step"), default=1)
    if every > 1:
        dense += layers - dense - (layers - dense) // every
    used = config.whole("experts_per_token", ("num_experts_per_tok", "num_experts_per_token", "moe_top_k"))
    if used > count:
        config.refuse("num_experts_per_tok", f"{used} experts a token, but there are only {count}")
    return {
        "experts": count,
        "experts_per_token": used,
        "expert_intermediate": width,
        "shared_intermediate": shared,
        "dense_layers": min(layers, max(dense, len(only) if isinstance(only, list) else 0)),
    }
