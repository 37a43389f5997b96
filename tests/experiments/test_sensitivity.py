"""INV-SENSITIVITY: every field that a scenario may have changes the results of at least one run, or is refused.

For each field of the schema, a world in which it counts and another value; the two runs must differ in the summary or in
the requests (not in `simulation`, which has wall times, nor in `provenance`, which has the hash of the scenario). Where
nothing is said, the world is FAR and the other value is 1.3 times (or 1 more than) the one that the resolved scenario has.
"""

from __future__ import annotations

import copy
import re
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from simulator.experiments.run import RunResult
from simulator.scenario.parts import Section
from simulator.scenario.schema import ScenarioFile
from tests.properties.small import BASE, ROOT, blocks, pool, put, scenario, served

SYNTHETIC = {
    "requests": 30, "arrivals": {"process": "gamma", "rate": "3000 /s", "cv": 2},
    "input": {"dist": "uniform", "low": "10 tokens", "high": "100 tokens"},
    "output": {"dist": "uniform", "low": "2 tokens", "high": "40 tokens"},
}  # fmt: skip
LOGNORMAL = {"dist": "lognormal", "mean": "50 tokens", "cv": 1, "low": "30 tokens", "high": "80 tokens"}
FIXED = {"dist": "fixed", "tokens": "30 tokens"}
AZURE = str(ROOT / "traces" / "AzureLLMInferenceTrace_conv.csv.gz")
SAMPLE = str(ROOT / "traces" / "sample.csv")


def measured(**settings: Any) -> dict[str, Any]:
    """FAR, its ratio measured by the reference codec."""
    return FAR | {"kv.codec": {"ratio": "measured", "measure": settings, "compress_at": "gpu", "decompress_at": "gpu"}}


SLOW = {"type": "pcie-gen4-x16", "read_bandwidth": "2 GB/s", "write_bandwidth": "2 GB/s"}
FAR: dict[str, Any] = pool(l1=12, l3=40, l2=4, outstanding="16 KiB") | {
    "seed": 1,
    "cluster.gpus": {"type": "a100-80gb-sxm", "count": 2, "link": SLOW},
    "cluster.kv_pool.link": SLOW,
    "cluster.kv_pool.switch": {"type": "cxl-2.0-switch", "port_bandwidth": "2 GB/s"},
    "kv.codec": {"ratio": 1.5, "compress_at": "gpu", "decompress_at": "gpu"},
    "prefetch": {"predictor": "statistical", "depth": 1, "coverage": 0.7, "accuracy": 0.7, "latency": "5 us"},
    "scheduler": {"max_batch": 8, "token_budget": "100 tokens", "prefill_chunk": "50 tokens", "host_overhead": "20 us"},
    "slo": {"ttft": "2 ms", "tpot": "0.6 ms"},
    "workload.synthetic": SYNTHETIC,
}
NEAR: dict[str, Any] = {"workload.synthetic": SYNTHETIC}  # GPU only, all HBM
TIGHT = NEAR | {"kv.l1": blocks(14), "scheduler.watermark": 0.0}
PAIR: list[dict[str, Any]] = [{"role": "prefill", "replicas": 1}, {"role": "decode", "replicas": 1}]
SPLIT = NEAR | {"cluster.groups": PAIR, "cluster.transfer.link": {"type": "infiniband-ndr", "read_bandwidth": "0.1 GB/s"}}
SERVED_APART = NEAR | {
    "tenants": [{"name": "a"}, {"name": "b"}], "cluster.groups": [{"name": "a", "tenants": ["a"]}, {"name": "both"}],
}  # fmt: skip
TENSORS = str(ROOT / "traces" / "python_reference" / "kv_layer{}.npy")
AT_FPGA = FAR | {"kv.codec": {"ratio": 1.5}}
EVENTS = AT_FPGA | {"cluster.replicas": 2}
PACKED = FAR | {"kv.codec": {"type": "int8", "compress_at": "gpu", "decompress_at": "gpu"}}
# pages moved by the GPU itself: one copy a layer, a page a call, all pages in a call, by a kernel of one block
HOST: dict[str, Any] = {key: value for key, value in PACKED.items() if "switch" not in key} | {
    "cluster.gpus": FAR["cluster.gpus"] | {"link": "pcie-gen4-x16"},
    "cluster.kv_pool": {
        "board": {"type": "host-dram", "memory": blocks(40)}, "link": "ideal", "copy_engine": {"type": "h100-pcie-gen5"},
    },
}  # fmt: skip
SINGLE = HOST | {"cluster.kv_pool.copy_engine.method": "pages"}
BATCHED = HOST | {"cluster.kv_pool.copy_engine.method": "batch"}
GATHERED = HOST | {"cluster.kv_pool.copy_engine": {"type": "h100-pcie-gen5", "method": "gather", "blocks": 1}}
RENTED = FAR | {"cost.basis": "rent"}
BUDGET = FAR | {"kv.selection": {"kind": "budget", "tokens": "40 tokens"}}
TRACE = {"workload.trace": {"path": AZURE, "limit": 8, "start": "10 s", "end": "1000 s", "rate_scale": 2.0}}
DRAWN = NEAR | {"workload.synthetic": SYNTHETIC | {"input": LOGNORMAL, "output": LOGNORMAL}}
EQUAL = NEAR | {"workload.synthetic": SYNTHETIC | {"input": FIXED, "output": FIXED}}
RECORDED = {"dist": "empirical", "trace": AZURE}
RESAMPLED = (
    {"model.max_context": "8192 tokens"} | NEAR | {"workload.synthetic": SYNTHETIC | {"input": RECORDED, "output": RECORDED}}
)
FULL_HBM = NEAR | {"cluster.gpus": {"type": "a100-80gb-sxm", "memory": "3 GB"}}  # little is left: capacity binds, or shows
MOONCAKE = str(ROOT / "traces" / "mooncake_conversation_trace.jsonl.gz")
SHARED = {"model.max_context": "200000 tokens", "workload.trace": {"path": MOONCAKE, "limit": 6}}
LARGE = FAR | {"cluster.gpus": FAR["cluster.gpus"] | {"all_reduce_switch": "1 B"}}  # every message is a large one
EXPERTS: dict[str, Any] = NEAR | {
    "model.experts": 8, "model.experts_per_token": 2, "model.expert_intermediate": 256, "model.shared_intermediate": 64,
    "model.dense_layers": 1,
}  # fmt: skip
LATENT = NEAR | {"model.kv_latent": 32, "model.q_latent": 48, "model.rope_dim": 16}
SLIDING = NEAR | {"model.window": "32 tokens"}
BY_NAME = NEAR | {"model.weight_bytes": None, "model.kv_bytes": None, "model.weights": "bf16", "model.kv": "bf16"}
SHARED_EXPERTS = {"type": "a100-80gb-sxm", "count": 2, "data_parallel": 2, "expert_parallel": 2, "tensor_parallel": 1}
TWO = NEAR | {"cluster.gpus": {"type": "a100-80gb-sxm", "count": 2}}
CONFIGS = ROOT / "tests" / "scenario" / "configs"
CONFIGURED = NEAR | {"model": {"config": str(CONFIGS / "small-llama.json")}}


def failing(**fault: Any) -> dict[str, Any]:
    """FAR with two boards of two links that bound the path, and one fault."""
    boards = {"cluster.kv_pool.count": 2, "cluster.kv_pool.links_per_board": 2}
    return FAR | boards | {"cluster.kv_pool.link.read_bandwidth": "0.1 GB/s", "faults": [fault]}


BREAKS = failing(what="link_down", at="6 ms")
SLOWS = failing(what="link_degraded", at="1 ms", factor=0.5)
LOSES = failing(what="board_lost", at="4 ms", **{"for": "2 ms"})
AGAIN = failing(what="board_lost", mean_time_between="3 ms", **{"for": "2 ms"})
WINDOW = TRACE | {"workload.trace.limit": "none", "workload.trace.end": "12 s"}

PAGES = FAR | {"kv.selection": {"kind": "pages", "tokens": "48 tokens", "overlap": 0.6}}
FRACTION = FAR | {"kv.selection": {"kind": "pages", "fraction": 0.5, "overlap": 0.6}}
GUESSED = FAR | {"kv.l2": blocks(40), "prefetch": {"predictor": "statistical", "coverage": 0.4, "accuracy": 0.3, "depth": 3}}
GROUPS = NEAR | {
    "kv.layout.groups": {"a": {"share": 0.5}, "b": {"share": 0.5, "kind": "window", "window": "20 tokens"}}
}  # fmt: skip
BOUND = NEAR | {"cluster.gpus": {"type": "a100-80gb-sxm", "attention_flops_efficiency": 0.0001}}  # decode attention by FLOPs
QUANTISED = NEAR | {
    "kv.hbm_codec": {"k_bits": 2, "v_bits": 2, "group": 32, "meta_bits": 32, "residual": "8 tokens", "mask_bits": 1}
}  # fmt: skip
NEWEST = {"older_than": "0 tokens", "bits": 16}
AGED = NEAR | {"kv.hbm_codec.by_age": {"new": NEWEST, "old": {"older_than": "20 tokens", "bits": 8}}}
KEPT = NEAR | {"kv.retention": {"keep": 0.5, "window": "10 tokens", "prompt_scale": 0.8}}
SPARSE = NEAR | {"kv.selection": {"kind": "pages", "tokens": "16 tokens", "index": 0.2, "stage": "decode"}}
ELSEWHERE = NEAR | {
    "kv.placement.compute": {
        "at": "near_data", "memory": "10 GB", "bandwidth": "1 GB/s", "link": "1 GB/s", "latency": "9 us"
    }
}  # fmt: skip
RANKS = NEAR | {"model.kv_latent": 32, "model.rope_dim": 16, "cluster.gpus": {"type": "a100-80gb-sxm", "count": 2}}
DRAFTED = NEAR | {"kv.loop": {"kind": "speculative", "draft": 2, "acceptance": 0.5, "draft_cost": 0.1}}
WORKERS = NEAR | {"kv.loop": {"kind": "parallel_workers", "workers": 2, "steps_scale": 0.5}}
CACHED = PAGES | {"kv.placement.eviction": "lru", "kv.l2": blocks(12), "prefetch": {"predictor": "none"}}
HOT = FAR | {"kv.placement": {"eviction": "hot", "threshold": 2}}

CHATS = {"turns": 3, "spread": "geometric", "think": "1 ms", "prefixes": [{"tokens": "32 tokens", "count": 2}]}
TALK = NEAR | {"workload.synthetic": SYNTHETIC | {"sessions": CHATS}}
STARTED = {"workload.trace": {"path": AZURE, "limit": 8, "starts": {"process": "gamma", "rate": "2 /s", "cv": 2}}}
CLIENTS = str(ROOT / "traces" / "servegen_reason_deepseek-r1.tar.gz")
SERVICE = {
    "model.max_context": "65536 tokens",
    "workload.clients": {"path": CLIENTS, "limit": 8, "start": "1 h", "end": "25 h"},
}
VARYING = {  # process -> the fields that are its own, with another value
    "diurnal": ({"rate": "3000 /s", "amplitude": 0.8, "period": "5 ms"}, {"amplitude": 0.4, "period": "3 ms"}),
    "spike": ({"rate": "1000 /s", "peak": "9000 /s", "at": "2 ms", "over": "1 ms"},
              {"rate": "2000 /s", "peak": "5000 /s", "at": "1 ms", "over": "2 ms"}),
    "mmpp": ({"rates": ["1000 /s", "9000 /s"], "dwell": ["2 ms", "1 ms"]},
             {"rates": ["2000 /s", "9000 /s"], "dwell": ["1 ms", "1 ms"]}),
}  # fmt: skip
# turns of 160 tokens a second apart that do not fit in L1 together; what leaves it parks in the pool
TURNS = {
    "requests": 16, "arrivals": {"process": "constant", "rate": "10 /s"},
    "input": {"dist": "fixed", "tokens": "160 tokens"}, "output": {"dist": "fixed", "tokens": "17 tokens"},
    "sessions": {"turns": 2, "spread": "fixed", "think": "1 s", "think_cv": 0.3},
}  # fmt: skip
PARKED = pool(l1=40, l3=1000, l2=32) | {
    "workload.synthetic": TURNS, "kv.placement.eviction": "lru", "kv.sharing": {"kind": "prefix", "demote_after": "0.5 s"},
    "prefetch": {"predictor": "session", "coverage": 0.8, "accuracy": 0.9, "lead": "0.1 s"},
}  # fmt: skip
CONVERSATION = {"model.max_context": "200000 tokens", "kv.block": "512 tokens", "kv.sharing.kind": "prefix"} | {
    "workload.trace": {"path": str(ROOT / "traces" / "mooncake_conversation_trace.jsonl.gz"), "limit": 6}
}

# field -> (world, other value)
CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "cluster.gpus.all_reduce_switch": (FAR, "1 B"),
    "cluster.gpus.all_reduce_latency": (LARGE, None),
    "cluster.gpus.all_reduce_bandwidth": (LARGE, None),
    "cluster.gpus.paged_attention_flops_efficiency": (FAR, 0.001),
    "cluster.gpus.attention_kernels": (NEAR, "together"),
    "cluster.gpus.gemm_tail": (NEAR | {"cluster.gpus": {"type": "t4-16gb"}}, 0.01),
    "cluster.gpus.gemm_operand_bandwidth": (NEAR, "1 GB/s"),
    "cluster.gpus.gemm_tiles": (NEAR | {"cluster.gpus": {"type": "t4-16gb"}}, "warpgroup"),
    "cluster.gpus.l2_cache": (NEAR | {"cluster.gpus": {"type": "rtx-4090", "memory_bandwidth": "1 GB/s"}}, "1 B"),
    "seed": (FAR, 2),
    "name": (NEAR, "other"),
    "model.type": (NEAR | {"model": "llama-3.1-8b"}, "llama-2-7b"),
    "model.heads": (FAR, 8),
    "model.config": (CONFIGURED, str(CONFIGS / "small-mixtral.json")),
    "model.weights": (BY_NAME, "fp8"),
    "model.kv": (BY_NAME, "fp8"),
    "model.embedding_bytes": (NEAR, 4),
    "model.tied_embeddings": (NEAR, True),
    "model.positions": (NEAR, 100_000),
    "model.bias": (NEAR, "all"),
    "model.window": (SLIDING, "16 tokens"),
    "model.full_layers": (SLIDING, 2),
    "model.experts": (EXPERTS, 16),
    "model.experts_per_token": (EXPERTS, 3),
    "model.expert_intermediate": (EXPERTS, 512),
    "model.shared_intermediate": (EXPERTS, 128),
    "model.dense_layers": (EXPERTS, 2),
    "model.kv_latent": (LATENT, 64),
    "model.q_latent": (LATENT, 96),
    "model.rope_dim": (LATENT, 32),
    "cluster.gpus.expert_parallel": (EXPERTS, 2),
    "cluster.gpus.data_parallel": (EXPERTS, SHARED_EXPERTS),
    "cluster.gpus.pipeline_parallel": (TWO, 2),
    "cluster.gpus.activations": (NEAR, "1 GiB"),
    "cluster.gpus.fp8_flops": (NEAR | {"model.weights": "fp8"}, "600 TFLOP/s"),
    "cluster.gpus.int8_flops": (NEAR | {"model.weights": "int8"}, "1 TFLOP/s"),
    "kv.blocks": (NEAR, 20),
    "model.kv_heads": (FAR, 4),
    "model.gated_mlp": (FAR, False),
    "model.max_context": (FAR, "60 tokens"),
    "cluster.gpus.type": (NEAR, "h100-80gb-sxm"),
    "cluster.gpus.link.type": (FAR | {"cluster.gpus.link": "pcie-gen4-x8"}, "pcie-gen5-x8"),
    "cluster.gpus.count": (FAR, 4),
    "cluster.gpus.calibrated": (FAR, False),
    "cluster.gpus.memory": (FULL_HBM, "3.5 GB"),
    "cluster.gpus.memory_utilization": (NEAR, 0.8),
    "cluster.gpus.reserve": (NEAR, "3 GiB"),
    "cluster.gpus.gemm_flops_efficiency": (NEAR | {"cluster.gpus": {"type": "t4-16gb"}}, 0.3),
    "cluster.gpus.peak_flops": (NEAR, "10 TFLOP/s"),
    "cluster.gpus.attention_flops_efficiency": (NEAR, 0.001),
    "cluster.gpus.gemm_bandwidth_efficiency": (NEAR, 0.5),
    "cluster.gpus.attention_bandwidth_efficiency": (NEAR, 0.5),
    "cluster.gpus.rent": (RENTED, "5 USD/h"),
    "cluster.kv_pool.board.type": (FAR, "alveo-v80"),
    "cluster.kv_pool.board.engines": (AT_FPGA, 2),
    "cluster.kv_pool.board.engine_rate": (AT_FPGA, "30 GB/s"),
    "cluster.kv_pool.board.engine_fill": (AT_FPGA, "1 us"),
    "cluster.kv_pool.board.outstanding": (FAR, "1 KiB"),
    "cluster.kv_pool.link.type": (FAR | {"cluster.kv_pool.link": "pcie-gen4-x8"}, "pcie-gen5-x8"),
    "cluster.kv_pool.switch.type": (FAR, "cxl-2.0-switch-slow"),
    "kv.codec.arrays": (HOST, 2),
    "kv.codec.compress_efficiency": (PACKED, 0.5),
    "kv.codec.decompress_efficiency": (PACKED, 0.5),
    "cluster.kv_pool.copy_engine.method": (HOST, "pages"),
    "cluster.kv_pool.copy_engine.blocks": (GATHERED, 8),
    **{
        f"cluster.kv_pool.copy_engine.{name}": (HOST, value)
        for name, value in {
            "read_bandwidth": "10 GB/s",
            "write_bandwidth": "10 GB/s",
            "duplex": 0.1,
            "read_setup": "20 us",
            "start": "30 us",
            "write_cost": 30,
            "read_cost": 30,
        }.items()
    },
    **{f"cluster.kv_pool.copy_engine.{name}": (SINGLE, "50 us") for name in ("issue", "write_setup")},
    "cluster.kv_pool.copy_engine.batch_setup": (BATCHED, "20 us"),
    **{
        f"cluster.kv_pool.copy_engine.{name}": (GATHERED, value)
        for name, value in {
            "block_latency": "10 us",
            "block_bandwidth": "1 GB/s",
            "gather_outstanding": "1 KiB",
            "gather_read_bandwidth": "1 GB/s",
            "gather_write_bandwidth": "1 GB/s",
            "gather_cost": 30,
            "gather_sms": 50,
            "gather_tail": 30,
            "gather_spare": 0.01,
        }.items()
    },
    "kv.block": (FAR, "32 tokens"),
    "kv.l1": (TIGHT, blocks(16)),
    "kv.placement.eviction": (FAR, "lru"),
    "kv.codec.type": (FAR | {"kv.codec": "int8"}, "int4-g64"),
    "kv.codec.measure.synthetic": (measured(synthetic="normal", bits=2), "ar1:0.9999"),
    "kv.codec.measure.tensors": (measured(tensors=TENSORS.format(3), bits=2), TENSORS.format(7)),
    "kv.codec.measure.bits": (measured(synthetic="normal"), 4),
    "kv.codec.measure.axis": (measured(synthetic="ar1:0.9999", bits=4), "channel"),
    "kv.codec.compress_at": (FAR, "fpga"),
    "kv.codec.decompress_at": (FAR, "fpga"),
    "kv.selection.kind": (FAR, {"kind": "budget", "tokens": "40 tokens"}),
    "kv.selection.tokens": (BUDGET, "20 tokens"),
    "kv.selection.fraction": (FRACTION, 0.8),
    "kv.selection.dense_layers": (PAGES, 1),
    "kv.selection.select_every": (PAGES, 2),
    "kv.selection.index": (PAGES, 0.5),
    "kv.selection.overlap": (PAGES, 0.9),
    "kv.selection.floor": (PAGES, 0.5),
    "kv.selection.refresh": (PAGES, 3),
    **{
        f"kv.layout.groups.{name}": (GROUPS, {"a": {"share": 0.5}, "b": {"share": 0.5, **value}})
        for name, value in {
            "kind": {},
            "window": {"kind": "window", "window": "40 tokens"},
            "sink": {"kind": "window", "window": "20 tokens", "sink": "9 tokens"},
            "fraction": {"kind": "window", "window": "20 tokens", "fraction": 0.3},
            "kv_scale": {"kv_scale": 0.5},
            "tokens_per_entry": {"tokens_per_entry": 3},
            "run_every": {"run_every": 3},
            "state": {"kind": "ssm", "state": "9 KiB"},
        }.items()
    },
    "kv.layout.groups.share": (GROUPS, {"a": {"share": 0.3}, "b": {"share": 0.7, "kind": "window", "window": "20 tokens"}}),
    "kv.layout.groups.flops_scale": (BOUND, {"a": {"flops_scale": 0.5}}),
    "kv.layout.query_heads": (BOUND, 0.5),
    **{
        f"kv.hbm_codec.{name}": (QUANTISED, value)
        for name, value in {
            "k_bits": 3,
            "v_bits": 3,
            "group": 16,
            "meta_bits": 16,
            "residual": "20 tokens",
            "density": 0.5,
            "mask_bits": 2,
        }.items()
    },
    "kv.hbm_codec.ratio": (NEAR, 3),
    "kv.hbm_codec.by_layer": (NEAR, [2, 4]),
    **{
        f"kv.hbm_codec.by_age.{name}": (AGED, {"new": NEWEST, "old": {"older_than": "20 tokens", "bits": 8} | value})
        for name, value in {"older_than": {"older_than": "40 tokens"}, "bits": {"bits": 4}}.items()
    },
    **{
        f"kv.retention.{name}": (KEPT, value)
        for name, value in {
            "prompt_scale": 0.5,
            "pre_cost": 0.5,
            "keep": 0.3,
            "window": "40 tokens",
        }.items()
    },
    "kv.retention.when": (NEAR | {"kv.retention.keep": 0.5}, "prefill_end"),
    "kv.selection.stage": (SPARSE, "both"),
    "kv.selection.k_fraction": (NEAR, 0.5),
    "kv.selection.v_fraction": (NEAR, 0.5),
    "kv.selection.index_flops": (SPARSE | {"kv.selection.stage": "both"}, 0.5),
    "kv.selection.index_stored": (SPARSE, 0.5),
    **{
        f"kv.placement.compute.{name}": (ELSEWHERE, value)
        for name, value in {
            "at": {"at": "gpu"},
            "memory": "20 GB",
            "devices": 2,
            "bandwidth": "2 GB/s",
            "link": "2 GB/s",
            "latency": "90 us",
        }.items()
    },
    "kv.topology.latent": (RANKS, "sharded"),
    "kv.sharing.read": (SHARED | {"kv.sharing": {"kind": "prefix", "read": "once"}}, "each"),
    "kv.loop.kind": (NEAR, {"kind": "speculative", "draft": 3, "acceptance": 0.5}),
    **{f"kv.loop.{name}": (DRAFTED, value) for name, value in {"draft": 3, "acceptance": 0.9, "draft_cost": 0.3}.items()},
    "kv.loop.workers": (WORKERS, 3),
    "kv.loop.steps_scale": (WORKERS, 0.7),
    "kv.loop.recompute": (NEAR | {"kv.loop": {"kind": "denoise", "steps_scale": 0.5, "recompute": 0.1}}, 0.3),
    "kv.placement.l2": (CACHED, "inclusive"),
    "kv.placement.write_back": (CACHED, "immediate"),
    "kv.placement.threshold": (HOT, 0),
    "kv.placement.adapt": (HOT, True),
    "prefetch.predictor": (FAR, {"predictor": "oracle"}),
    "prefetch.depth": (FAR | {"kv.l2": blocks(40)}, 3),
    "prefetch.coverage": (FAR, 0.2),
    "prefetch.accuracy": (FAR, 0.4),
    "prefetch.latency": (FAR, "200 us"),
    "prefetch.control": (FAR | {"kv.l2": blocks(40)}, "ucb"),
    "prefetch.priority": (GUESSED, "equal"),
    "prefetch.service": (FAR, "100 us"),
    "prefetch.batch": (FAR | {"prefetch.service": "100 us"}, 8),
    "prefetch.placement": (FAR | {"prefetch.service": "100 us"}, "gpu"),
    "prefetch.queue": (FAR, 1),
    "prefetch.guesses": (FAR | {"prefetch": {"predictor": "token_model"}}, 1),
    "prefetch.model": (FAR | {"prefetch": {"predictor": "token_model"}}, "markov0"),
    "prefetch.addresses": (FAR | {"prefetch": {"predictor": "cxl_speckv"}}, "far_pages"),
    "prefetch.score": (FAR | {"prefetch": {"predictor": "attention", "coverage": 0.5, "accuracy": 0.5}}, 0.5),
    "slo.ttft": (FAR, "0.5 ms"),
    "slo.tpot": (FAR, "0.4 ms"),
    "scheduler.batching": (FAR, "static"),
    "scheduler.max_batch": (FAR, 4),
    "scheduler.token_budget": (FAR, "64 tokens"),
    "scheduler.prefill_chunk": (FAR, "20 tokens"),
    "scheduler.reserve": (TIGHT, "full"),
    "scheduler.watermark": (TIGHT, 0.2),
    "scheduler.asynchronous": (NEAR, True),
    "scheduler.host_per_sequence": (NEAR, "5 us"),
    "kv.sharing.kind": (SHARED, "prefix"),
    "scheduler.engine": (NEAR, "vllm-v1"),
    "cost.basis": (FAR, "rent"),
    "cost.prices": (FAR, "2025-06"),
    "cluster.kv_pool.memory_power": (FAR, "0.3 W/GB"),
    "faults.what": (SLOWS, {"what": "link_down", "at": "1 ms"}),
    "faults.link": (BREAKS, "switch"),
    "faults.count": (BREAKS, 2),
    "faults.factor": (SLOWS, 0.25),
    "faults.latency": (failing(what="latency_spike", at="1 ms", latency="10 us"), "1 ms"),
    "faults.at": (LOSES, "5 ms"),
    "faults.for": (LOSES, "3 ms"),
    "faults.mean_time_between": (AGAIN, "4 ms"),
    "faults.on_loss": (LOSES, "abort"),
    "faults.replica": (LOSES | {"cluster.replicas": 2, "cluster.kv_pool.shared": False}, 1),
    "cluster.replicas": (NEAR, 2),
    "cluster.routing": (NEAR | {"cluster.replicas": 2}, "least_outstanding"),
    "cluster.kv_pool.shared": (EVENTS, False),
    "cluster.groups.replicas": (SPLIT, 2),
    "cluster.groups.gpus": (SPLIT, {"gpus": {"type": "h100-80gb-sxm"}}),
    "cluster.groups.scheduler": (SPLIT, {"scheduler": {"prefill_chunk": "20 tokens"}}),
    "cluster.groups.kv": (SPLIT, {"kv": {"l1": blocks(14)}}),
    "cluster.groups.tenants": (SERVED_APART, {"tenants": ["b"]}),
    "cluster.transfer.count": (SPLIT, 2),
    "cluster.transfer.threshold": (SPLIT, "50 tokens"),
    "cluster.transfer.link.read_bandwidth": (SPLIT, "0.2 GB/s"),
    "cluster.transfer.link.latency": (SPLIT, "1 ms"),
    "cluster.transfer.link.type": (SPLIT, {"type": "pcie-gen3-x16"}),
    "cost.as_of": (FAR, "another day"),
    "workload.synthetic.requests": (NEAR, 31),
    "workload.synthetic.arrivals.process": (NEAR, {"process": "poisson", "rate": "3000 /s"}),
    "workload.synthetic.input.dist": (NEAR, FIXED),
    "workload.synthetic.output.dist": (NEAR, FIXED),
    "workload.synthetic.input.low": (DRAWN, "35 tokens"),
    "workload.synthetic.input.high": (DRAWN, "60 tokens"),
    "workload.synthetic.output.low": (DRAWN, "35 tokens"),
    "workload.synthetic.output.high": (DRAWN, "60 tokens"),
    "workload.synthetic.input.trace": (RESAMPLED, SAMPLE),
    "workload.synthetic.output.trace": (RESAMPLED, SAMPLE),
    "workload.trace.path": (TRACE | {"workload.trace.start": "0 s"}, SAMPLE),
    "workload.trace.limit": (TRACE, 7),
    "workload.trace.start": (TRACE, "11 s"),
    "workload.trace.end": (WINDOW, "11 s"),
    "workload.trace.rate_scale": (TRACE, 3),
    "workload.trace.arrivals": (TRACE | {"workload.trace.rate_scale": None}, "at_once"),
}
CHANGES |= {
    "workload.clients.start": (SERVICE, "2 h"),
    "workload.clients.end": (SERVICE | {"workload.clients.limit": 10**6, "workload.clients.end": "3610 s"}, "3605 s"),
    "workload.clients.rate": (SERVICE, "100 /s"),
    "workload.clients.limit": (SERVICE, 7),
    "workload.synthetic.sessions.turns": (TALK, 2),
    "workload.synthetic.sessions.spread": (TALK, {"turns": 3, "spread": "fixed", "think": "1 ms"}),
    "workload.synthetic.sessions.think": (TALK, "2 ms"),
    "workload.synthetic.sessions.think_cv": (TALK, 0.2),
    "workload.synthetic.sessions.skew": (TALK | {"kv.sharing.kind": "prefix"}, 3),
    "workload.synthetic.sessions.prefixes.tokens": (TALK, "48 tokens"),
    "workload.synthetic.sessions.prefixes.count": (TALK | {"kv.sharing.kind": "prefix"}, 9),
    "kv.sharing.demote_after": (PARKED, "0.2 s"),
    "kv.sharing.drop_after": (PARKED, "0.6 s"),
    "kv.sharing.partial": (CONVERSATION, True),
    "prefetch.lead": (PARKED, "1 us"),
    "workload.trace.starts.cv": (STARTED, 3),
    "workload.trace.starts.process": (STARTED, {"process": "poisson", "rate": "2 /s"}),
    "workload.trace.starts.rate": (STARTED, "3 /s"),
}
for process, (own, others) in VARYING.items():
    for name, changed in others.items():
        drawn = NEAR | {"workload.synthetic": SYNTHETIC | {"arrivals": {"process": process} | own}}
        CHANGES[f"workload.synthetic.arrivals.{name}"] = (drawn, changed)
        started = {"workload.trace": {"path": AZURE, "limit": 40, "starts": {"process": process} | own}}
        CHANGES.setdefault(f"workload.trace.starts.{name}", (started, changed))
for side in ("input", "output"):
    CHANGES[f"workload.synthetic.{side}.mean"] = (DRAWN, "60 tokens")
    CHANGES[f"workload.synthetic.{side}.cv"] = (DRAWN, 0.5)
    CHANGES[f"workload.synthetic.{side}.tokens"] = (EQUAL, "31 tokens")

SHARED = FAR | {
    "cluster.kv_pool.shared_by": 2, "cluster.kv_pool.others_load": 0.45, "cluster.kv_pool.saturation": 4,
    "cluster.kv_pool.link": SLOW | {"load_factor": 1}, "cluster.kv_pool.board.load_factor": 1,
    "cluster.kv_pool.switch": {"type": "cxl-2.0-switch", "port_bandwidth": "2 GB/s", "load_factor": 1},
}  # fmt: skip
BUSY = SHARED | {"cluster.kv_pool.others_load": 0.95}
TREE = SHARED | {
    "cluster.kv_pool.count": 2,
    "cluster.kv_pool.leaf": {"type": "cxl-2.0-switch", "uplinks": 1, "port_bandwidth": "1 GB/s", "load_factor": 1},
    "cluster.kv_pool.leaves": 1,
}
WIDE = TREE | {"cluster.kv_pool.leaf": TREE["cluster.kv_pool.leaf"] | {"downlinks": 1, "uplinks": 4}}
DOWN = FAR | {"cluster.kv_pool.switch": {"type": "cxl-2.0-switch", "downlinks": 1, "port_bandwidth": "1 GB/s"}}
CHANGES |= {
    "cluster.kv_pool.switch.downlinks": (DOWN, 2),
    "cluster.kv_pool.switch.uplinks": (FAR, 1),
    "cluster.kv_pool.gpus_per_port": (FAR, 2),
    "cluster.kv_pool.shared_by": (BUSY, 3),
    "cluster.kv_pool.weight": (BUSY, 3),
    "cluster.kv_pool.others_load": (SHARED, 0.3),
    "cluster.kv_pool.saturation": (BUSY, 5),
    "cluster.kv_pool.leaves": (TREE, 2),
    "cluster.kv_pool.leaf.type": (TREE, "pcie-gen4-switch"),
    "cluster.kv_pool.leaf.uplinks": (TREE, 2),
    "cluster.kv_pool.leaf.downlinks": (WIDE, 2),
}
for part in ("switch", "link", "board"):
    CHANGES[f"cluster.kv_pool.{part}.load_factor"] = (SHARED, 0.5)
for name in ("port_bandwidth", "latency", "load_factor", "power", "price"):
    CHANGES[f"cluster.kv_pool.leaf.{name}"] = (TREE, None)
CHANGES["cluster.kv_pool.link.price"] = (FAR, "100 USD")
CHANGES["cluster.kv_pool.link.power"] = (FAR, "10 W")

POOL = "cluster.kv_pool"
BOARD = f"{POOL}.board"
DETAILED = FAR | {"devices": "detailed", "workload.synthetic": SYNTHETIC | {"requests": 15}}
DESCRIPTORS = DETAILED | {f"{BOARD}.descriptor": "3 us"}
CYCLES = DETAILED | {"kv.codec": {"ratio": 1.5}, f"{BOARD}.engine_rate": "1 GB/s"}
SMALL_TLB = DETAILED | {
    f"{BOARD}.tlb_entries": 64, f"{BOARD}.tlb_ways": 1, f"{BOARD}.tlb_page": "4 KiB", f"{BOARD}.tlb_walk": "9 us",
}  # fmt: skip
FEW_LINES = DETAILED | {
    "prefetch": {"predictor": "none"}, f"{BOARD}.directory_entries": 4, f"{BOARD}.directory_ways": 1,
    f"{BOARD}.directory_grain": "4 KiB",
}  # fmt: skip
SLOW_MEMORY = DETAILED | {f"{BOARD}.memory_bandwidth": "1 GB/s", f"{BOARD}.turnaround": "2 us", f"{BOARD}.outstanding": "inf"}
ROWS = DETAILED | {f"{BOARD}.memory_bandwidth": "10 GB/s", f"{BOARD}.banks": 1, f"{BOARD}.row_cycle": "50 us"}
THREE_BOARDS = DETAILED | {
    f"{POOL}.count": 3, f"{BOARD}.memory": "1 MiB", f"{BOARD}.outstanding": "inf",
    f"{POOL}.switch": {"type": "cxl-2.0-switch", "uplinks": 1, "port_bandwidth": "500 MB/s", "buffer": "4 KiB"},
}  # fmt: skip
ONE_LEAF = THREE_BOARDS | {
    f"{POOL}.leaf": {"type": "cxl-2.0-switch", "uplinks": 1, "port_bandwidth": "500 MB/s", "buffer": "4 KiB"},
}  # fmt: skip
OF_DETAILED_DEVICES: dict[str, tuple[dict[str, Any], Any]] = {
    "devices": (DETAILED, "fluid"),
    "kv.codec.spread": (SLOW_MEMORY, 0.5),
    "cluster.gpus.link.credits": (DETAILED, "1 KiB"),
    f"{POOL}.link.credits": (DETAILED, "1 KiB"),
    f"{POOL}.placement": (THREE_BOARDS, "hash"),
    f"{POOL}.switch.buffer": (THREE_BOARDS, "16 MiB"),
    f"{POOL}.switch.arbitration": (THREE_BOARDS, "deadline"),
    f"{POOL}.switch.weights": (THREE_BOARDS | {f"{POOL}.switch.arbitration": "weighted"}, [5, 1]),
    f"{POOL}.leaf.weights": (ONE_LEAF | {f"{POOL}.leaf.arbitration": "weighted"}, [5, 1]),
    f"{POOL}.leaf.buffer": (ONE_LEAF, "16 MiB"),
    f"{POOL}.leaf.arbitration": (ONE_LEAF, "deadline"),
    f"{BOARD}.cycle": (CYCLES, "333 ns"),
    f"{BOARD}.descriptor": (DESCRIPTORS, "4 us"),
    f"{BOARD}.tlb_entries": (SMALL_TLB, 4),
    f"{BOARD}.tlb_ways": (SMALL_TLB, 64),
    f"{BOARD}.tlb_page": (SMALL_TLB, "8 KiB"),
    f"{BOARD}.tlb_walk": (SMALL_TLB, "12 us"),
    f"{BOARD}.directory_entries": (FEW_LINES, 4096),
    f"{BOARD}.directory_ways": (FEW_LINES, 4),
    f"{BOARD}.directory_grain": (FEW_LINES, "64 KiB"),
    f"{BOARD}.banks": (ROWS, 2),
    f"{BOARD}.row": (ROWS, "2 KiB"),
    f"{BOARD}.row_cycle": (ROWS, "60 us"),
    f"{BOARD}.channels": (ROWS, 64),
    f"{BOARD}.interleave": (SLOW_MEMORY, "4 KiB"),
    f"{BOARD}.turnaround": (SLOW_MEMORY, "0 s"),
    f"{BOARD}.write_batch": (SLOW_MEMORY, "1 KiB"),
}
CHANGES |= OF_DETAILED_DEVICES

CLASSES = [
    {"name": "a", "ttft": "20 ms", "tpot": "0.25 ms", "priority": 2}, {"name": "b", "ttft": "1 ms", "priority": 1},
]  # fmt: skip
OF_CLASSES = TIGHT | {"slo.classes": CLASSES, "scheduler.queue": "priority", "scheduler.max_batch": 4}
TENANTS = NEAR | {"tenants": [{"name": "a"}, {"name": "b", "weight": 2}]}
BUDGET_OF_A = SPLIT | {"tenants": [{"name": "a", "bandwidth": "10 MB/s", "burst": "100 KB"}, {"name": "b"}]}
SWAPS = TIGHT | {"scheduler.preemption": "swap_host", "scheduler.swap_space": blocks(4)}
LIMITED = NEAR | {"scheduler.max_batch": 2, "scheduler.admission": "limit", "scheduler.max_queue": 6}
CHANGES |= {
    **{f"slo.classes.{name}": (OF_CLASSES, value) for name, value in
       {"name": "c", "ttft": "30 ms", "tpot": "0.2 ms", "weight": 3, "priority": 0, "share": 4}.items()},
    **{f"tenants.{name}": (TENANTS, value) for name, value in {"name": "c", "share": 5, "weight": 3}.items()},
    "tenants.bandwidth": (BUDGET_OF_A, "20 MB/s"),
    "tenants.burst": (BUDGET_OF_A, "10 KB"),
    "tenants.flows": (SPLIT | TENANTS, "together"),
    "scheduler.queue": (TIGHT | {"scheduler.max_batch": 4}, "shortest_first"),
    "scheduler.preemption": (TIGHT, "swap_host"),
    "scheduler.swap_space": (SWAPS, blocks(40)),
    "scheduler.admission": (NEAR | {"scheduler.max_batch": 2, "slo.ttft": "0.8 ms"}, "deadline"),
    "scheduler.max_queue": (LIMITED, 3),
}  # fmt: skip

BETWEEN = "not used between replicas, and refused there"
GPU_PORT = "not used at a GPU's own port, and refused there"
LABEL = "a label: it says what the values are, which are tested one by one"
ONE_VALUE = "one accepted value says what is modelled; every other one is refused"
EXEMPT = {
    "cluster.gpus.attention_sequence_bandwidth": "of kernels that do not split sequences: `step_seconds` and `validate` only",
    **dict.fromkeys(("model.name", "cluster.gpus.name", "cluster.gpus.link.name", "cluster.kv_pool.board.name"), LABEL),
    "cluster.kv_pool.copy_engine.name": LABEL,
    "cluster.kv_pool.copy_engine.type": LABEL,
    "cluster.kv_pool.copy_engine.gather_power": "counts at the power limit, which this model never meets: test_interference",
    **dict.fromkeys(("cluster.kv_pool.link.name", "cluster.kv_pool.switch.name", "kv.codec.name", "kv.system"), LABEL),
    "kv.layout.groups.over": "for the reader; refuses heads of a layer that run for some tokens only",
    "kv.topology.kind": ONE_VALUE,
    **dict.fromkeys(("kv.layout.kind", "kv.retention.kind"), "for the reader; the fields beside it decide"),
    "cluster.groups.name": "a label, but each must have another one",
    "cluster.groups.role": "roles come in pairs: test_disaggregation",
    "cluster.transfer.link.name": LABEL,
    "cluster.transfer.link.write_bandwidth": "of the way back, which nothing takes",
    **{f"cluster.transfer.link.{name}": BETWEEN for name in ("credits", "load_factor", "power", "price", "requests")},
    **{f"cluster.gpus.link.{name}": GPU_PORT for name in ("load_factor", "power", "price")},
    "cluster.kv_pool.leaf.name": LABEL,
    "cluster.gpus.tensor_parallel": "must be the count of GPUs",
    "workload.trace.block": "must fit the ids in the file: a wrong one is refused",
    "workload.trace.malformed": "of files with malformed rows: tests/workload",
    "workload.clients.path": "names the data",
    "workload.trace.format": "says how to read a file that has one format; a wrong one is refused",
}


def leaves(section: type[Section], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Dotted names of all fields below a section."""
    for name, field in section.model_fields.items():
        inner = list(sections(field.annotation))
        if not inner:
            yield ".".join((*path, name))
        for one in inner:
            yield from leaves(one, (*path, name))


def sections(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from sections(inner)


FIELDS = sorted(set(leaves(ScenarioFile)))


def other(value: Any) -> Any:
    """1.3 times a quantity, one more of what is counted."""
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 1.3
    number, unit = re.fullmatch(r"([\d.e+-]+) ?(.*)", value).groups()  # type: ignore[union-attr]
    return f"{int(number) + 1} tokens" if unit.startswith("token") else f"{float(number) * 1.3} {unit}"


@cache
def base(key: str) -> RunResult:
    return served(CHANGES[key][0] if key else FAR)


def text(result: RunResult) -> tuple[str, str]:
    """Everything in a run's results but wall times and hash."""
    summary = {key: value for key, value in result.summary.items() if key not in ("simulation", "provenance")}
    return repr(summary), result.requests.to_csv()


def test_every_field_has_a_change_or_a_reason():
    """Would catch: a new field without a test, a test of a field that is no more."""
    known = set(CHANGES) | set(EXEMPT)
    assert known <= set(FIELDS)
    assert not set(CHANGES) & set(EXEMPT)


@pytest.mark.parametrize("field", [name for name in FIELDS if name not in EXEMPT])
def test_field_changes_something(field: str):
    """Would catch: a field that is read, checked, documented and then ignored."""
    world, value = CHANGES.get(field, (FAR, None))
    if value is None:
        held: Any = scenario(world).resolved.document
        for key in field.split("."):
            held = held[key]
        value = other(held)
    changed = dict(world)
    section = field.rsplit(".", 1)[0] if isinstance(value, dict) else field
    changed = nested(changed, section, value)
    assert text(served(changed)) != text(base(field if field in CHANGES else ""))


LISTS = ("faults", "cluster.groups", "slo.classes", "tenants", "workload.synthetic.sessions.prefixes")


def nested(settings: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`settings` and then `path = value`, also where the path lies below or above one of theirs; of a list, in its first."""
    values = copy.deepcopy(BASE)
    for name, given in settings.items():
        put(values, name, given)
    for name in LISTS:
        if path.startswith(name):
            held: Any = values
            for key in name.split("."):
                held = held[key]
            first, *others = held
            if isinstance(value, dict):
                first = value if name == "faults" else first | value
            else:
                first = first | {path.removeprefix(f"{name}."): value}
            put(values, name, [first, *others])
            return values
    put(values, path, value)
    return values
