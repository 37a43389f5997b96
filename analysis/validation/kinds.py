"""Kinds of measurements: recognised by their columns, each with what the model says of a row.

    kind        the measured column     needs
    decode      step_ms_median          model, batch, context (tp, layers, has_lm_head)
    ragged      step_ms_median          model, contexts
    prefill     prefill_ms_median       model, batch, prompt
    mixed       step_ms_median          model, prefill_tokens, past_context, decode_seqs, decode_context (tp, layers)
    prefix      step_ms_median          model, new_tokens, past_tokens, mode: rows whose prefix is on the GPU
    offload     step_ms_median          model, batch, context, fraction, mode: rows with nothing offloaded
    gemm        us_median               M, N, K
    all-reduce  graph_us_median         n_gpus, message_bytes
    power       power_w_median          state

Steps are GPU time without host overhead; shards (tp above 1) are taken to run alone, without all-reduces, as all measured
files of one GPU are. `layers` below the model's count means those layers and no LM head unless `has_lm_head` says so.
Ragged batches are run by a decode kernel that does not split sequences, mixed steps by a paged prefill kernel throughout:
FlashInfer's, with which they were measured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import inf

from simulator import StepModel, step_model, step_seconds, steptime

Row = Mapping[str, str]
NO_COLLECTIVE = {"all_reduce_latency": 0.0, "all_reduce_bandwidth": inf, "all_reduce_switch": 0.0}
COPY_BYTES_PER_S = 54e9  # what a saturated PCIe 5.0 x16 link brings to HBM: power states h2d and d2h


class Bench:
    """A GPU to predict for; `values` overrides its fields (SI units), as a fit does."""

    def __init__(self, gpu: str, values: Mapping[str, float] | None = None):
        self.gpu, self.values = gpu, dict(values or {})
        self.model = cache(self._model)

    def _model(self, name: str, ranks: int = 1, layers: int | None = None) -> StepModel:
        return step_model(self.gpu, name, ranks, layers, self.values | NO_COLLECTIVE)

    def of_row(self, row: Row) -> tuple[StepModel, bool]:
        """The step model of a row, and whether its LM head runs."""
        ranks, layers = int(row.get("tp") or 1), int(row.get("layers") or 0)
        whole = self.model(row["model"], ranks)
        model = self.model(row["model"], ranks, layers) if layers and layers != whole.layers else whole
        flag = row.get("has_lm_head") or ""
        return model, model.layers >= whole.layers if flag == "" else flag.strip().lower() in ("1", "true", "yes")


@dataclass(frozen=True)
class Kind:
    name: str
    columns: frozenset[str]  # that a file must have
    truth: str  # the measured column
    unit: float  # SI value of 1 in that column
    predict: Callable[[Bench, Row], float]  # SI
    counts: Callable[[Row], bool] = lambda row: True  # rows the model speaks of


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


def _prefix(bench: Bench, row: Row) -> float:
    model, head = bench.of_row(row)
    return step_seconds(model, pieces=[(int(row["new_tokens"]), int(row["past_tokens"]))], rows=int(head))


def _gemm(bench: Bench, row: Row) -> float:
    return bench.model("llama-2-7b").product_alone(int(row["M"]), int(row["N"]), int(row["K"]))


def _all_reduce(bench: Bench, row: Row) -> float:
    ranks = int(row["n_gpus"])
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


def _known_state(row: Row) -> bool:
    state = row["state"]
    known = ("idle", "h2d_copy", "d2h_copy", "hbm_copy")
    return bool(state.startswith(known) or STEP_STATE.match(state) or PRODUCT_STATE.match(state))


def _resident(row: Row) -> bool:
    return row["mode"] == "none"


# The first whose columns are all there is taken: the more particular before the more general.
KINDS = (
    Kind("ragged", frozenset({"model", "contexts", "step_ms_median"}), "step_ms_median", 1e-3, _ragged),
    Kind(
        "mixed", frozenset({"model", "prefill_tokens", "past_context", "decode_seqs", "decode_context", "step_ms_median"}),
        "step_ms_median", 1e-3, _mixed,
    ),
    Kind(
        "prefix", frozenset({"model", "new_tokens", "past_tokens", "mode", "step_ms_median"}), "step_ms_median", 1e-3,
        _prefix, _resident,
    ),
    Kind(
        "offload", frozenset({"model", "batch", "context", "fraction", "mode", "step_ms_median"}), "step_ms_median", 1e-3,
        _decode, _resident,
    ),
    Kind("decode", frozenset({"model", "batch", "context", "step_ms_median"}), "step_ms_median", 1e-3, _decode),
    Kind("prefill", frozenset({"model", "batch", "prompt", "prefill_ms_median"}), "prefill_ms_median", 1e-3, _prefill),
    Kind("gemm", frozenset({"M", "N", "K", "us_median"}), "us_median", 1e-6, _gemm),
    Kind("all-reduce", frozenset({"n_gpus", "message_bytes", "graph_us_median"}), "graph_us_median", 1e-6, _all_reduce),
    Kind("power", frozenset({"state", "power_w_median"}), "power_w_median", 1.0, _power, _known_state),
)  # fmt: skip
