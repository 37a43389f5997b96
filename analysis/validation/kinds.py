"""Kinds of measurements: recognised by their columns, each with what the model says of a row.

    kind        the measured column     needs
    decode      step_ms_median          model, batch, context (tp, layers, has_lm_head)
    ragged      step_ms_median          model, contexts
    prefill     prefill_ms_median       model, batch, prompt
    mixed       step_ms_median          model, prefill_tokens, past_context, decode_seqs, decode_context (tp, layers)
    gemm        us_median               M, N, K
    all-reduce  graph_us_median         n_gpus, message_bytes
    nccl-tests  implied_time_us         collective, n_ranks, message_bytes (all_reduce only)
    power       power_w_median          state
    dense       time_us                 layer, tokens
    per-sequence time_us                layer, sequences
    moe         time_us                 tokens, activated_experts
    attention   time_us                 prefill_chunk, kv_prefill, n_decode, kv_decode
    skew        t_skew_us               n, nb, pc, kp, kvs, kv_big

and those of `offload_kinds.py` (steps with KV in host memory) and `link_kinds.py` (the link itself).

The last five above are kernel tables: model and degree of tensor parallelism are columns `model` and `tp`, else the folders
MODEL/tpN that the file lies in. They hold times of single kernels of one rank (a profiler's, no gaps); those of `skew` are
sums over three runs, as the equal cells of the attention table show.
Steps are GPU time without host overhead; shards (tp above 1) are taken to run alone, without all-reduces, as all measured
files of one GPU are. `layers` below the model's count means those layers and no LM head unless `has_lm_head` says so.
Ragged batches are run by a decode kernel that does not split sequences, mixed steps by a paged prefill kernel throughout:
FlashInfer's, with which they were measured.
"""

from __future__ import annotations

import re

from analysis.validation.bench import Bench as Bench
from analysis.validation.bench import Kind as Kind
from analysis.validation.bench import Row as Row
from analysis.validation.link_kinds import LINK_KINDS
from analysis.validation.offload_kinds import OFFLOAD_KINDS
from simulator import attention_seconds, expert_seconds, kernel_seconds, step_model, step_seconds, steptime

SKEW_RUNS = 3  # of a kernel that the times of a skew table are sums over
COPY_BYTES_PER_S = 54e9  # what a saturated PCIe 5.0 x16 link brings to HBM: power states h2d and d2h


def _decode(bench: Bench, row: Row) -> float:
    model, head = bench.of_row(row)
    batch = int(row["batch"])
    return step_seconds(model, [int(row["context"])] * batch, rows=batch if head else 0)


def _ragged(bench: Bench, row: Row) -> float:
    model, head = bench.of_row(row)
    contexts = [int(text) for text in row["contexts"].split()]
    return step_seconds(model, contexts, rows=len(contexts) if head else 0, split=False)


def _prefill(bench: Bench, row: Row) -> float:
    model, head = bench.of_row(row)
    batch = int(row["batch"])
    return step_seconds(model, pieces=[(int(row["prompt"]), 0)] * batch, rows=batch if head else 0)


def _mixed(bench: Bench, row: Row) -> float:
    model, head = bench.of_row(row)
    tokens, decodes = int(row["prefill_tokens"]), int(row["decode_seqs"])
    pieces = [(tokens, int(row["past_context"]))] if tokens else []
    rows = decodes + len(pieces) if head else 0
    return step_seconds(model, [int(row["decode_context"])] * decodes, pieces, rows, paged=True)


def _gemm(bench: Bench, row: Row) -> float:
    return bench.model("llama-2-7b").product_alone(int(row["M"]), int(row["N"]), int(row["K"]))


def _all_reduce(bench: Bench, row: Row) -> float:
    ranks = int(row.get("n_gpus") or row["n_ranks"])
    return step_model(bench.gpu, "llama-2-7b", ranks, values=bench.values).all_reduce_bytes(float(row["message_bytes"]))


STEP_STATE = re.compile(r"(?P<phase>decode|prefill)_(?P<model>.+?)(?:_b(?P<batch>\d+))?(?:_[cs](?P<tokens>\d+))$")
PRODUCT_STATE = re.compile(r"gemm_(\d+)_saturated$")


def _power(bench: Bench, row: Row) -> float:
    state = row["state"]
    anything = bench.model("llama-2-7b")
    step, product = STEP_STATE.match(state), PRODUCT_STATE.match(state)
    if step:
        count, tokens = int(step["batch"] or 1), int(step["tokens"])
        work = {"batch": count, "context": tokens} if step["phase"] == "decode" else {"prefill": count * tokens}
        found = steptime(bench.model(step["model"]), **work)
        moved, flops = (sum(operator[what] for operator in found["operators"]) for what in ("bytes", "flops"))
        return anything.power(found["step_s"], moved, flops)
    if product:
        size = int(product[1])
        duration = anything.product_alone(size, size, size, sustained=True)
        return anything.power(duration, 6.0 * size * size, 2.0 * size**3)
    if state.startswith("hbm_copy"):
        rate = anything.gpu.attention_bandwidth_efficiency * anything.gpu.memory_bandwidth
        return anything.power(1.0, rate, 0.0)
    return anything.power(1.0, COPY_BYTES_PER_S if state.startswith(("h2d", "d2h")) else 0.0, 0.0)


def _kernel(bench: Bench, row: Row) -> float:
    return kernel_seconds(bench.model(row["model"], int(row.get("tp") or 1)), row["layer"], int(row["tokens"]))


def _per_sequence(bench: Bench, row: Row) -> float:
    return kernel_seconds(bench.model(row["model"], int(row.get("tp") or 1)), row["layer"], int(row["sequences"]))


def _experts(bench: Bench, row: Row) -> float:
    model = bench.model(row["model"], int(row.get("tp") or 1))
    return expert_seconds(model, int(row["tokens"]), int(row["activated_experts"]))


def _attention(bench: Bench, row: Row) -> float:
    chunk, past = int(row["prefill_chunk"]), int(row["kv_prefill"])
    contexts = [int(row["kv_decode"])] * int(row["n_decode"])
    return attention_seconds(bench.model(row["model"], int(row.get("tp") or 1)), contexts, [(chunk, past)] if chunk else ())


def _skew(bench: Bench, row: Row) -> float:
    count, long = int(row["n"]), int(row["nb"])
    contexts = [int(row["kvs"])] * (count - long) + [int(row["kv_big"])] * long
    pieces = [(int(row["pc"]), int(row["kp"]))] if int(row["pc"]) else ()
    return attention_seconds(bench.model(row["model"], int(row.get("tp") or 1)), contexts, pieces)


def _known_state(row: Row) -> bool:
    state = row["state"]
    known = ("idle", "h2d_copy", "d2h_copy", "hbm_copy")
    return bool(state.startswith(known) or STEP_STATE.match(state) or PRODUCT_STATE.match(state))


# The first whose columns are all there is taken: the more particular before the more general.
KINDS = (
    Kind("ragged", frozenset({"model", "contexts", "step_ms_median"}), "step_ms_median", 1e-3, _ragged),
    Kind(
        "mixed", frozenset({"model", "prefill_tokens", "past_context", "decode_seqs", "decode_context", "step_ms_median"}),
        "step_ms_median", 1e-3, _mixed,
    ),
    *OFFLOAD_KINDS,
    *LINK_KINDS,
    Kind("decode", frozenset({"model", "batch", "context", "step_ms_median"}), "step_ms_median", 1e-3, _decode),
    Kind("prefill", frozenset({"model", "batch", "prompt", "prefill_ms_median"}), "prefill_ms_median", 1e-3, _prefill),
    Kind("gemm", frozenset({"M", "N", "K", "us_median"}), "us_median", 1e-6, _gemm),
    Kind("all-reduce", frozenset({"n_gpus", "message_bytes", "graph_us_median"}), "graph_us_median", 1e-6, _all_reduce),
    Kind(
        "nccl-tests", frozenset({"collective", "n_ranks", "message_bytes", "implied_time_us"}), "implied_time_us", 1e-6,
        _all_reduce, lambda row: row["collective"] == "all_reduce",
    ),
    Kind("dense", frozenset({"layer", "tokens", "time_us"}), "time_us", 1e-6, _kernel, table=True),
    Kind("per-sequence", frozenset({"layer", "sequences", "time_us"}), "time_us", 1e-6, _per_sequence, table=True),
    Kind("moe", frozenset({"tokens", "activated_experts", "time_us"}), "time_us", 1e-6, _experts, table=True),
    Kind(
        "attention", frozenset({"prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"}), "time_us", 1e-6,
        _attention, table=True,
    ),
    Kind(
        "skew", frozenset({"n", "nb", "pc", "kp", "kvs", "kv_big", "t_skew_us"}), "t_skew_us", 1e-6 / SKEW_RUNS, _skew,
        table=True,
    ),
    Kind("power", frozenset({"state", "power_w_median"}), "power_w_median", 1.0, _power, _known_state),
)  # fmt: skip
