"""One request alone: every step worked out from the operator formulas, without the simulator's own step model.

The formulas are those of `simulator/hardware/gpu.py` and the modules it names, written down again here from the resolved
numbers of the catalogue.
Tolerance 1e-9 relative: the same real numbers, summed in another order.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import pytest

from simulator.experiments.simulation import Simulation
from simulator.scenario import Scenario
from simulator.scenario.resolved import Gpu, ScenarioResolved
from tests.properties.small import BLOCK, LAYERS, MODEL, requests

CLOSE = 1e-9
HOST = 120e-6
WORKLOAD = {
    "synthetic": {
        "requests": 1,
        "arrivals": {"process": "at_once"},
        "input": {"dist": "fixed", "tokens": "1 token"},
        "output": {"dist": "fixed", "tokens": "1 token"},
    }
}  # not used: the requests are given by hand


def load(cluster: dict[str, Any], model: Any = "llama-3.1-8b", **sections: Any) -> ScenarioResolved:
    values = {"name": "alone", "workload": WORKLOAD, "model": model, "cluster": cluster, **sections}
    values["scheduler"] = {"host_overhead": f"{HOST} s", **values.get("scheduler", {})}
    return Scenario.from_dict(values, ".").resolved


def durations(scenario: ScenarioResolved, prompt: int, output: int) -> np.ndarray:
    """Simulated seconds of each step of one request."""
    simulation = Simulation(scenario, requests([(0.0, prompt, output)]), coalesce=False)
    simulation.run()
    starts = simulation.recorder.runs.arrays()["start"]
    assert simulation.recorder.finished[0] == simulation.engine.clock
    return np.diff([*starts, simulation.engine.clock])


def matrix(s: ScenarioResolved, rows: float, columns: float, inner: float) -> float:
    """Seconds of a product (rows x inner) by (inner x columns) in bf16: weights once, activations in and out.

    Outputs are cut into tiles, K into parts, whichever is fastest: every SM has a tile at a time, which takes its FLOPs or its
    operands and a bit; what is idle in the last wave counts in part. The power limit is on what is needed, not on what the
    tiles waste.
    """
    gpu = s.gpus.gpu
    sms = gpu.multiprocessors
    tiled = float("inf")
    shapes = [(high, wide) for high in (16, 32) for wide in (64, 128, 256)]
    shapes += [(high, wide) for high in (64, 128) for wide in (64, 128, 192, 256)] + [(256, 128), (256, 192)]
    for high, wide in shapes:
        for parts in (1, 2, 3, 4, 6, 8):
            flops = 2 * high * wide * inner / parts / (gpu.gemm_flops_efficiency * gpu.peak_flops / sms)
            operands = 2 * (high + wide) * inner / parts / (gpu.gemm_operand_bandwidth / sms)
            waves = parts * ceil(rows / high) * ceil(columns / wide) / sms
            idle = ceil(waves) - waves
            tiled = min(tiled, (waves + gpu.gemm_tail * idle) * (max(flops, operands) + gpu.gemm_wave))
    limited = 2 * rows * columns * inner / (gpu.gemm_sustained_efficiency * gpu.peak_flops)
    moved = columns * inner * s.model.weight_bytes + 2 * rows * inner + 2 * rows * columns
    return together(gpu, max(tiled, limited), moved / (gpu.gemm_bandwidth_efficiency * gpu.memory_bandwidth))


def together(gpu: Gpu, compute: float, memory: float) -> float:
    """The longer one, and the part of the shorter one that does not hide behind it."""
    if compute > memory:
        return compute + gpu.gemm_exposed * memory
    return memory + gpu.gemm_exposed * compute


def kv_seconds(s: ScenarioResolved, context: float) -> float:
    """Seconds to read K and V of `context` tokens in one layer."""
    gpu, model = s.gpus.gpu, s.model
    read = 2 * ceil(model.kv_heads / s.gpus.tensor_parallel) * model.head_dim * model.kv_bytes * context
    return read / (gpu.attention_bandwidth_efficiency * gpu.memory_bandwidth)


def attention(s: ScenarioResolved, context: float) -> float:
    """Seconds of decode attention in one layer: a query row against `context` keys, which are read."""
    gpu, model = s.gpus.gpu, s.model
    flops = 4 * model.heads / s.gpus.tensor_parallel * model.head_dim * context
    return max(flops / (gpu.attention_flops_efficiency * gpu.peak_flops), kv_seconds(s, context))


def prompt_attention(s: ScenarioResolved, tokens: int, past: int) -> float:
    """Seconds of attention in one layer of `tokens` of a prompt after `past`: tiles of 128 query rows, counted one by one.

    A tile computes all its rows against every key up to its own last one. The kernel for a paged past splits no tile over
    SMs: it takes at least as long as its last tile on one SM.
    """
    gpu, model, ranks = s.gpus.gpu, s.model, s.gpus.tensor_parallel
    tiles = [128 * (past + min(first + 128, tokens)) for first in range(0, tokens, 128)]  # pairs of query and key
    pair = 4 * model.head_dim
    if past == 0:
        compute = pair * sum(tiles) * model.heads / ranks / (gpu.attention_flops_efficiency * gpu.peak_flops)
    else:
        all_of_them = pair * sum(tiles) * model.heads / ranks / (gpu.paged_attention_flops_efficiency * gpu.peak_flops)
        one_sm = gpu.peak_flops / gpu.multiprocessors
        compute = max(all_of_them, pair * tiles[-1] / (gpu.paged_attention_tile_efficiency * one_sm))
    return max(compute, kv_seconds(s, past + tokens))


def all_reduce(s: ScenarioResolved, tokens: int) -> float:
    """Seconds of one all-reduce of bf16 hidden states: the low-latency protocol below the switch, the other from there on."""
    gpu, ranks, message = s.gpus.gpu, s.gpus.tensor_parallel, 2 * tokens * s.model.hidden
    on_the_bus = 2 * (ranks - 1) / ranks * message
    if message < gpu.all_reduce_switch:
        return gpu.all_reduce_small_latency + on_the_bus / gpu.all_reduce_small_bandwidth
    return gpu.all_reduce_latency + on_the_bus / gpu.all_reduce_bandwidth


def layer(s: ScenarioResolved, tokens: int, kernels: int = 9) -> float:
    """Seconds of one layer without the work of attention; 8 kernels and one of attention, or two in a mixed step."""
    gpu, model, ranks = s.gpus.gpu, s.model, s.gpus.tensor_parallel
    hidden, query = model.hidden, model.heads * model.head_dim / ranks
    qkv, inner = query + 2 * ceil(model.kv_heads / ranks) * model.head_dim, model.intermediate / ranks
    up = 2 * inner if model.gated_mlp else inner
    streamed = 2 * tokens * (8 * hidden + 2 * qkv + up + inner)
    time = matrix(s, tokens, qkv, hidden) + matrix(s, tokens, hidden, query)
    time += matrix(s, tokens, up, hidden) + matrix(s, tokens, hidden, inner)
    time += streamed / (gpu.elementwise_bandwidth_efficiency * gpu.memory_bandwidth)
    if ranks > 1:
        time += 2 * all_reduce(s, tokens)
    plan = 0.0 if model.heads == model.kv_heads else gpu.attention_latency  # kernels on tensor cores merge partial results
    return time + kernels * gpu.launch + (kernels - 8) * plan


def head(s: ScenarioResolved, rows: int = 1) -> float:
    """Seconds of final norm, LM head, sampling and token gather: four kernels, the product for the rows that emit.

    Sampling passes 10 bytes a logit of the whole vocabulary, at 3.5 times the bandwidth of the memory while they fit the cache.
    """
    gpu = s.gpus.gpu
    sampling = 10 * rows * s.model.vocab / (3.5 * gpu.memory_bandwidth)  # all logits stay in the L2 cache
    return matrix(s, rows, s.model.vocab / s.gpus.tensor_parallel, s.model.hidden) + sampling + 4 * gpu.launch


def prefill(s: ScenarioResolved, tokens: int, past: int, last: bool) -> float:
    return HOST + s.model.layers * (layer(s, tokens) + prompt_attention(s, tokens, past)) + (head(s) if last else 0.0)


def decode(s: ScenarioResolved, context: int) -> float:
    return HOST + s.model.layers * (layer(s, 1) + attention(s, context)) + head(s)


H100 = {"gpus": {"type": "h100-80gb-sxm"}}
A100X8 = {"gpus": {"type": "a100-80gb-sxm", "count": 8}}
A100X4 = {"gpus": {"type": "a100-80gb-sxm", "count": 4}}


@pytest.mark.parametrize(
    ("cluster", "model", "prompt"),
    [
        pytest.param(H100, "llama-3.1-8b", 1000, id="one GPU"),
        pytest.param(H100, "llama-3.1-8b", 16, id="a prompt of exactly one block"),
        pytest.param(H100, "llama-3.1-8b", 1, id="one token"),
        pytest.param(H100, "opt-13b", 300, id="MLP without gate, multi-head attention"),
        pytest.param(A100X8, "llama-3.1-70b", 700, id="eight ranks"),
        pytest.param(A100X8, "llama-3.1-70b", 1500, id="eight ranks, a prompt for the second protocol of all-reduce"),
        pytest.param(A100X4, {"type": "llama-3.1-8b", "kv_heads": 2}, 100, id="two ranks per KV head"),
    ],
)
def test_every_step_of_one_request(cluster: dict[str, Any], model: Any, prompt: int):
    """TTFT and 40 decode steps; 41 tokens take 1 + 40 steps, the k-th decode reads prompt + k tokens.

    Would catch: a decode context off by one, a missing operator, all-reduces missing or counted once a layer, the head
    computed for all prompt tokens, KV of copies split over too many ranks, host overhead per token, tiles or waves not
    rounded up, the power limit on top of their waste, operators whose shorter side hides entirely.
    """
    s = load(cluster, model)
    expected = [prefill(s, prompt, 0, True)] + [decode(s, prompt + step) for step in range(1, 41)]
    np.testing.assert_allclose(durations(s, prompt, 41), expected, rtol=CLOSE)


def test_all_reduce_term():
    """Would catch: an all-reduce that does not grow with the tokens, or has the wrong convention for its bandwidth, or the
    protocols swapped (the message of the prompt is just large enough for the second one): the difference to a run with free
    collectives is 2 a layer of alpha + 2 (t-1)/t bytes / bus bandwidth, by numbers.
    """
    nothing = {"all_reduce_latency": "0 s", "all_reduce_bandwidth": "inf"}
    nothing |= {"all_reduce_small_latency": "0 s", "all_reduce_small_bandwidth": "inf"}
    large = {"all_reduce_latency": "40 us", "all_reduce_bandwidth": "200 GB/s"}
    small = {"all_reduce_small_latency": "10 us", "all_reduce_small_bandwidth": "50 GB/s"}
    switch = {"all_reduce_switch": f"{512 * 8192 * 2} B"}
    free = load({"gpus": {**A100X8["gpus"], **nothing}}, "llama-3.1-70b")
    with_it = load({"gpus": {**A100X8["gpus"], **large, **small, **switch}}, "llama-3.1-70b")
    extra = durations(with_it, 512, 3) - durations(free, 512, 3)
    one = [40e-6 + 1.75 * 512 * 8192 * 2 / 200e9] + 2 * [10e-6 + 1.75 * 8192 * 2 / 50e9]
    np.testing.assert_allclose(extra, [80 * 2 * seconds for seconds in one], rtol=1e-6)


@pytest.mark.parametrize(
    ("budget", "chunk", "pieces"),
    [(512, None, [512, 512, 276]), (512, 256, [256] * 5 + [20]), (2048, 650, [650, 650])],
)
def test_chunked_prefill_of_one_request(budget: int, chunk: int | None, pieces: list[int]):
    """A prompt of 1,300 tokens in pieces: each attends to what came before it, only the last one emits.

    Would catch: pieces that forget their past, a head computed for each of them, a first token after the first piece, the
    smaller of chunk and budget not taken, the first piece computed by the paged kernel or a later one by the other, short
    pieces that spread over SMs they cannot use.
    """
    steps = {"token_budget": f"{budget} tokens"} | ({"prefill_chunk": f"{chunk} tokens"} if chunk else {})
    s = load(H100, scheduler=steps)
    past = np.cumsum([0, *pieces]).tolist()
    expected = [prefill(s, piece, before, after == sum(pieces)) for piece, before, after in zip(pieces, past, past[1:])]
    np.testing.assert_allclose(durations(s, sum(pieces), 2), [*expected, decode(s, sum(pieces) + 1)], rtol=CLOSE)


def test_a_prompt_beside_a_decode():
    """The one place with two requests: 400 prompt tokens, then 700 that share the steps of its decodes, budget 512.

    Steps: 400; 1 decode + 511; 1 decode + 189 after 511, which emits; then two decodes, and one by itself.
    Would catch: one attention kernel launched for both kinds, the budget not shared, products priced for decodes and
    prompts apart, the head computed for one of two rows, a decode in the prompt's attention.
    """
    s = load(H100, scheduler={"token_budget": "512 tokens"})
    simulation = Simulation(s, requests([(0.0, 400, 4), (1e-6, 700, 3)]), coalesce=False)
    simulation.run()
    starts = simulation.recorder.runs.arrays()["start"]

    def mixed(context: int, tokens: int, past: int, rows: int) -> float:
        one = layer(s, 1 + tokens, kernels=10) + attention(s, context) + prompt_attention(s, tokens, past)
        return HOST + s.model.layers * one + head(s, rows)

    two = HOST + s.model.layers * (layer(s, 2) + attention(s, 403 + 701)) + head(s, 2)
    expected = [prefill(s, 400, 0, True), mixed(401, 511, 0, 1), mixed(402, 189, 511, 2), two, decode(s, 702)]
    np.testing.assert_allclose(np.diff([*starts, simulation.engine.clock]), expected, rtol=CLOSE)


# --- far memory: the small model, half of its KV or more behind a link ---------------------------------------------------

PAGE = BLOCK / LAYERS
GPU_PORT = {"type": "ideal", "latency": "250 ns"}


def far(l2: str = "64 MiB", codec: dict[str, Any] | None = None, write: str = "5 GB/s", **prefetch: Any) -> ScenarioResolved:
    """L1 of one block; a link of 5 GB/s bounds the path; the prompt is computed in one piece, so reads nothing far."""
    cluster = {
        "gpus": {"type": "h100-80gb-sxm", "compress_rate": "30 GB/s", "decompress_rate": "20 GB/s", "link": GPU_PORT},
        "kv_pool": {
            "board": {
                "type": "agilex-7-speckv", "memory_latency": "300 ns", "translation": "5 ns", "directory": "7 ns",
                "engine_fill": "25 ns", "outstanding": "inf", "dma_bandwidth": "inf", "memory_bandwidth": "inf",
            },
            "link": {"type": "pcie-gen5-x16", "read_bandwidth": "5 GB/s", "write_bandwidth": write, "latency": "400 ns"},
        },
    }  # fmt: skip
    kv: dict[str, Any] = {"l1": f"{BLOCK} B", "l2": l2, "burst": "4 KiB"}
    if codec:
        kv["codec"] = codec
    return load(cluster, MODEL, kv=kv, prefetch=prefetch or {"predictor": "none"})


def round_trip() -> float:
    """Request there, data back: both links twice, then translation, directory, memory."""
    return 2 * (400e-9 + 250e-9) + (300 + 5 + 7) * 1e-9


def waiting(pages: int) -> float:
    """Seconds that one layer waits for its far pages on demand, without codec."""
    return round_trip() + pages * PAGE / 5e9


def test_decode_with_all_kv_far_on_demand():
    """Each layer asks, waits latency + bytes / rate, computes: step = host + layers (round trip + bytes/rate + c) + head.

    Only the newest block, the one being filled, is in L1. The step that starts a block sends the one before it to the
    pool and still reads it from HBM.
    Would catch: latency once a step instead of once a layer, one latency a page, transfer overlapped without a prefetcher,
    the near block fetched too, a block that stays near for ever.
    """
    s = far()
    expected = [decode(s, 150 + step) + LAYERS * waiting(ceil((149 + step) / 16) - 1) for step in range(1, 60)]
    np.testing.assert_allclose(durations(s, 150, 60)[1:], expected, rtol=CLOSE)


def test_decode_in_waves():
    """L2 holds two pages: a layer with 9 far pages is read in five waves, each with its own round trip.

    The second decode is looked at: in the first one the write-back of the prompt still holds part of L2.
    Would catch: staging space ignored, waves counted down instead of up, the latency of all but the first wave lost.
    """
    s = far(l2=f"{2 * PAGE} B", write="inf")
    expected = decode(s, 152) + LAYERS * (waiting(9) + 4 * round_trip())
    assert durations(s, 150, 3)[2] == pytest.approx(expected, rel=CLOSE)


@pytest.mark.parametrize("where", ["fpga", "gpu"])
def test_decode_with_codec(where: str):
    """Ratio 2.5. FPGA: raw bytes cross the link, the engine's fill adds to the round trip. GPU: compressed bytes cross it,
    each layer unpacks its pages at 20 GB/s of raw bytes, in a kernel of its own, and a step that sends a block home packs it
    at 30 GB/s.

    Would catch: the ratio applied where the data is raw, or not where it is compressed; the GPU's codec work left out of
    the layer; the engine's fill paid on the GPU side; a pack per layer for the bytes of a whole block.
    """
    s = far(codec={"ratio": 2.5, "compress_at": where, "decompress_at": where})
    if where == "fpga":
        page, fill, pack = PAGE / 5e9, 25e-9, 0.0
    else:
        page, fill, pack = PAGE / 2.5 / 5e9 + PAGE / 20e9, 0.0, BLOCK / 30e9
    kernel = s.gpus.gpu.launch if where == "gpu" else 0.0
    simulated = durations(s, 159, 3)
    assert simulated[1] == pytest.approx(decode(s, 160) + LAYERS * (round_trip() + fill + kernel + 9 * page), rel=CLOSE)
    assert simulated[2] == pytest.approx(decode(s, 161) + LAYERS * (round_trip() + fill + kernel + 9 * page) + pack, rel=CLOSE)


def test_next_layer_prefetch_overlaps_with_compute():
    """Layer 0 waits in full; the pages of layer l + 1 are requested when layer l asks for its own and follow them on the
    link, so a later layer waits for what its predecessor's wait and computation did not hide.

    Would catch: prefetch issued when the layer before has finished, layer 0 of the step prefetched by nobody, overlap with
    the host overhead, prefetched pages ahead of demanded ones.
    """
    s = far(predictor="next_layer", depth=1)
    compute, transfer = layer(s, 1) + attention(s, 151), 9 * PAGE / 5e9
    asked = HOST
    link_free = asked + waiting(9)
    end = link_free + compute
    for _ in range(1, LAYERS):
        ready, asked = asked + round_trip(), end
        link_free = max(link_free, ready) + transfer
        end = max(asked, link_free) + compute
    assert durations(s, 150, 2)[1] == pytest.approx(end + head(s), rel=CLOSE)
    on_demand = decode(s, 151) + LAYERS * waiting(9)
    assert end + head(s) < on_demand - 2 * (LAYERS - 1) * round_trip()
