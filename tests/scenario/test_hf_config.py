"""A Hugging Face config.json as a model: shapes of known models, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import InputError
from simulator.experiments.steptime import model_named
from simulator.scenario import Scenario
from simulator.scenario.hf_config import model_of_config

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip
# keys as the published files have them -> the catalogue's model of the same shape
PUBLISHED: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": LLAMA,
    "mistral-7b-v0.1": LLAMA | {
        "architectures": ["MistralForCausalLM"], "vocab_size": 32000, "max_position_embeddings": 32768, "sliding_window": 4096,
    },
    "mixtral-8x7b": LLAMA | {
        "architectures": ["MixtralForCausalLM"], "vocab_size": 32000, "max_position_embeddings": 32768,
        "sliding_window": None, "num_local_experts": 8, "num_experts_per_tok": 2,
    },
    "qwen2.5-7b": {
        "architectures": ["Qwen2ForCausalLM"], "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 32768,
        "sliding_window": 131072, "use_sliding_window": False, "max_window_layers": 28, "tie_word_embeddings": False,
    },
    "qwen3-32b": {
        "architectures": ["Qwen3ForCausalLM"], "hidden_size": 5120, "intermediate_size": 25600, "num_hidden_layers": 64,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "max_position_embeddings": 40960, "sliding_window": None, "attention_bias": False,
    },
    "qwen3-30b-a3b": {
        "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 48,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936,
        "max_position_embeddings": 40960, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
        "decoder_sparse_step": 1, "mlp_only_layers": [],
    },
    "deepseek-v3": {
        "architectures": ["DeepseekV3ForCausalLM"], "hidden_size": 7168, "intermediate_size": 18432, "num_hidden_layers": 61,
        "num_attention_heads": 128, "num_key_value_heads": 128, "vocab_size": 129280, "max_position_embeddings": 163840,
        "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
        "n_routed_experts": 256, "num_experts_per_tok": 8, "moe_intermediate_size": 2048, "n_shared_experts": 1,
        "first_k_dense_replace": 3, "moe_layer_freq": 1,
    },
    "opt-13b": {
        "architectures": ["OPTForCausalLM"], "hidden_size": 5120, "ffn_dim": 20480, "num_hidden_layers": 40,
        "num_attention_heads": 40, "vocab_size": 50272, "max_position_embeddings": 2048,
    },
    "bloom-176b": {
        "architectures": ["BloomForCausalLM"], "n_embed": 14336, "hidden_size": 14336, "n_layer": 70,
        "num_attention_heads": 112, "vocab_size": 250880,
    },
    "gpt-j-6b": {
        "architectures": ["GPTJForCausalLM"], "n_embd": 4096, "n_inner": None, "n_layer": 28, "n_head": 16, "n_positions": 2048,
        "vocab_size": 50400, "tie_word_embeddings": False,
    },
    "falcon-180b": {
        "architectures": ["FalconForCausalLM"], "hidden_size": 14848, "num_hidden_layers": 80, "num_attention_heads": 232,
        "num_kv_heads": 8, "new_decoder_architecture": True, "vocab_size": 65024, "bias": False, "tie_word_embeddings": False,
    },
}  # fmt: skip
OTHERS: dict[str, tuple[dict[str, Any], float]] = {  # billions of parameters of the model card (recalled)
    "gemma": (LLAMA | {
        "architectures": ["GemmaForCausalLM"], "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "vocab_size": 256000,
    }, 8.54),
    "phi-2": ({
        "architectures": ["PhiForCausalLM"], "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32,
        "num_attention_heads": 32, "vocab_size": 51200, "max_position_embeddings": 2048,
    }, 2.78),
    "falcon-7b": ({
        "architectures": ["FalconForCausalLM"], "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
        "multi_query": True, "vocab_size": 65024,
    }, 6.92),
    "qwen1.5-moe": ({
        "architectures": ["Qwen2MoeForCausalLM"], "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
        "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 151936, "max_position_embeddings": 8192,
        "num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632,
    }, 14.3),
    "deepseek-v2-lite": ({
        "architectures": ["DeepseekV2ForCausalLM"], "hidden_size": 2048, "intermediate_size": 10944, "num_hidden_layers": 27,
        "num_attention_heads": 16, "vocab_size": 102400, "max_position_embeddings": 163840, "kv_lora_rank": 512,
        "q_lora_rank": None, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "n_routed_experts": 64,
        "num_experts_per_tok": 6, "moe_intermediate_size": 1408, "n_shared_experts": 2, "first_k_dense_replace": 1,
    }, 15.7),
}  # fmt: skip


def written(folder: Path, values: Any, name: str = "config.json") -> Path:
    path = folder / name
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_the_catalogues_models(name: str, tmp_path: Path) -> None:
    """Catches a key read under another name, a default that is not transformers', a window that is switched off but read."""
    found, expected = model_of_config(written(tmp_path, PUBLISHED[name])), model_named(name)
    values = {field: value for field, value in vars(found).items() if field != "name"}
    assert values == {field: value for field, value in vars(expected).items() if field != "name"}


@pytest.mark.parametrize("name", OTHERS)
def test_models_that_the_catalogue_lacks(name: str, tmp_path: Path) -> None:
    """Parameters within 1 % of the model card. Catches tied embeddings, shared experts or single KV heads that are missed."""
    values, billions = OTHERS[name]
    assert model_of_config(written(tmp_path, values)).parameters == pytest.approx(billions * 1e9, rel=0.01)


def test_precision_and_windows_of_a_config(tmp_path: Path) -> None:
    """Catches a quantised checkpoint taken for 16 bits, and windows in the wrong layers."""
    quantised = LLAMA | {"quantization_config": {"quant_method": "fp8"}}
    shape = model_of_config(written(tmp_path, quantised))
    assert (shape.weights, shape.weight_bytes, shape.embedding_bytes) == ("fp8", 1.0, 2.0)
    gptq = model_of_config(written(tmp_path, LLAMA | {"quantization_config": {"quant_method": "gptq", "bits": 4}}))
    assert (gptq.weights, gptq.weight_bytes) == ("int4", 0.515625)
    gemma = LLAMA | {"architectures": ["Gemma2ForCausalLM"], "sliding_window": 4096}
    assert model_of_config(written(tmp_path, gemma)).windowed_layers == 16
    typed = gemma | {"layer_types": ["sliding_attention"] * 20 + ["full_attention"] * 12}
    assert model_of_config(written(tmp_path, typed)).full_layers == 12


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("{", ["config.json:1:2", "is no JSON"]),
        ("[1]", ["expected a mapping"]),
        ({}, ["architectures: names no architecture", "known:"]),
        (LLAMA | {"architectures": ["LlamaForCausalLm"]}, ["did you mean 'LlamaForCausalLM'?"]),
        ({key: value for key, value in LLAMA.items() if key not in ("vocab_size", "intermediate_size")},
         ["vocab_size: missing; it gives vocab", "intermediate_size", "2 problems"]),
        (LLAMA | {"hidden_size": "4096"}, ["hidden_size: expected a whole number of at least 1, found \"4096\""]),
        (LLAMA | {"quantization_config": {"quant_method": "aqlm"}}, ["quantization_config: 'aqlm'"]),
        (PUBLISHED["deepseek-v3"] | {"v_head_dim": 64}, ["v_head_dim: 64 is not qk_nope_head_dim (128)"]),
        (PUBLISHED["mixtral-8x7b"] | {"num_experts_per_tok": 9}, ["9 experts a token, but there are only 8"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(values: Any, said: list[str], tmp_path: Path) -> None:
    """Catches a traceback, a guess, and errors one at a time."""
    with pytest.raises(InputError) as raised:
        model_of_config(written(tmp_path, values))
    for text in said:
        assert text in str(raised.value)


SCENARIO: dict[str, Any] = {
    "name": "x", "cluster": {"gpus": {"type": "h100-80gb-sxm"}},
    "workload": {"synthetic": {
        "requests": 3, "arrivals": {"process": "at_once"}, "input": {"dist": "fixed", "tokens": "10 tokens"},
        "output": {"dist": "fixed", "tokens": "4 tokens"},
    }},
}  # fmt: skip


def test_a_scenario_takes_a_config(tmp_path: Path) -> None:
    """Its path is relative to the scenario, single fields override it, and what was resolved needs the file no more.

    Catches a path from the working directory, a config that beats the user's own value, a document that points to it.
    """
    written(tmp_path, LLAMA)
    scenario = Scenario.from_dict(SCENARIO | {"model": {"config": "config.json", "weights": "fp8"}}, tmp_path)
    model = scenario.resolved.model
    assert (model.name, model.layers, model.weight_bytes, model.embedding_bytes) == (tmp_path.name, 32, 1.0, 2.0)
    assert scenario.resolved.sources["model.layers"] == "config.json: num_hidden_layers"
    again = Scenario.from_dict(scenario.resolved.document, "/")
    assert again.resolved.model == model and again.sha256 == scenario.sha256


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"config": "none.json"}, ["model.config", "none.json", "no such file"]),
        ({"config": "config.json", "type": "llama-2-7b"}, ["give either type or config, not both"]),
        ({"type": "llama-2-7b", "weights": "fp9"}, ["model.weights: 'fp9' is not a known precision", "did you mean 'fp8'?"]),
        ({"type": "llama-2-7b", "experts": 8}, ["experts need experts_per_token and expert_intermediate"]),
        ({"type": "llama-2-7b", "dense_layers": 1}, ["model.dense_layers: not used without experts"]),
        ({"type": "mistral-7b", "full_layers": 32}, ["32 full layers leave none of 32 a window"]),
    ],
)
def test_wrong_models_of_a_scenario(model: dict[str, Any], said: list[str], tmp_path: Path) -> None:
    """Catches a second error that only repeats the first, and contradictions that are ignored."""
    written(tmp_path, LLAMA)
    with pytest.raises(InputError) as raised:
        Scenario.from_dict(SCENARIO | {"model": model}, tmp_path)
    for text in said:
        assert text in str(raised.value)
    assert len(raised.value.problems) == 1


@pytest.mark.parametrize("name", ["LLAMA-70B", "meta-llama/Llama-2-70b-hf", "llama_2_70b"])
def test_a_scenario_takes_other_names(name: str) -> None:
    """Catches a name that only the command line knows."""
    assert Scenario.from_dict(SCENARIO | {"model": name, "cluster": {"gpus": {"type": "h100-80gb-sxm", "count": 4}}}, ".")


@pytest.mark.parametrize(
    ("written_as", "name"),
    [
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3-30b-a3b"), ("meta-llama/Llama-3.1-8B", "llama-3.1-8b"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama-3-8b"), ("mistralai/Mistral-7B-v0.1", "mistral-7b-v0.1"),
        ("deepseek-ai/DeepSeek-V3", "deepseek-v3"), ("DeepSeek-V3/R1", "deepseek-v3"), ("facebook/opt-6.7b", "opt-6.7b"),
        ("EleutherAI/gpt-j-6b", "gpt-j-6b"), ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b"),
        ("Llama-3.3-70B", "llama-3.1-70b"),
    ],
)  # fmt: skip
def test_aliases(written_as: str, name: str) -> None:
    """Catches a table that is only found in the spelling of one source."""
    assert model_named(written_as).name == name
