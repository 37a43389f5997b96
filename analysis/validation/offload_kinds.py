"""Kinds of measurements of steps whose KV is partly in host memory.

    kind        the measured column     needs
    prefix      step_ms_median          model, new_tokens, past_tokens, mode (fraction_in_host, transfer)
    offload     step_ms_median          model, batch, context, fraction, mode (transfer)
    its power   power_w_median          the same

`mode` none, ondemand, prefetch; `transfer` bf16, int4, gatherN: what they do is in `simulator.experiments.host_link`. Predicted
from the link, the codec kernels and the step model; nothing is fitted to these rows.
"""

from __future__ import annotations

from analysis.validation.bench import Bench, Kind, Row
from simulator import Transfer, codec_named, steptime

PAGE = 16  # tokens
MODES = ("none", "ondemand", "prefetch")
CODECS = {"int8": "int8", "int4": "int4-g64", "int2": "int2"}


def transfer(text: str) -> Transfer:
    """What a `transfer` cell means; ValueError for an unknown one."""
    if text.startswith("gather"):
        return Transfer(blocks=int(text.removeprefix("gather")))
    if text in CODECS:
        return Transfer(codec_named(CODECS[text]))
    if text not in ("bf16", "fp16", "none", ""):
        raise ValueError(f"transfer '{text}' is none of bf16, {', '.join(CODECS)}, gatherN")
    return Transfer()


def far_tokens(tokens: int, fraction: float, keep: int) -> int:
    """Tokens of one sequence that are in host memory: whole pages, the oldest."""
    pages = -(-tokens // PAGE)
    return min(round(fraction * pages), pages - keep) * PAGE


def _far(row: Row, tokens: int, column: str, keep: int) -> int:
    """Tokens of one sequence in host memory."""
    mode, fraction = row["mode"], row.get(column, "")
    if mode not in MODES:
        raise ValueError(f"mode '{mode}' is none of {', '.join(MODES)}")
    if mode == "none":
        return 0
    if not fraction or not 0.0 <= float(fraction) <= 1.0:
        raise ValueError(f"mode {mode} needs a {column} from 0 to 1, found '{fraction}'")
    return far_tokens(tokens, float(fraction), keep)


def _offload(bench: Bench, row: Row) -> float:
    model, head = bench.of_row(row)
    batch, context = int(row["batch"]), int(row["context"])
    far = batch * _far(row, context, "fraction", 1)
    return bench.link.offloaded(
        model, far, row["mode"], transfer(row.get("transfer", "")), contexts=[context] * batch, rows=batch if head else 0
    )


def _prefix(bench: Bench, row: Row) -> float:
    model, head = bench.of_row(row)
    past = int(row["past_tokens"])
    far = _far(row, past, "fraction_in_host", 0)
    return bench.link.offloaded(
        model, far, row["mode"], transfer(row.get("transfer", "")), pieces=[(int(row["new_tokens"]), past)], rows=int(head)
    )


def _power(bench: Bench, row: Row) -> float:
    """Of the bytes and FLOPs of the whole step, the far pages written into HBM on top, over the time it takes."""
    model, _ = bench.of_row(row)
    batch, context = int(row["batch"]), int(row["context"])
    work = steptime(model, batch=batch, context=context)["operators"]
    moved, flops = (sum(operator[what] for operator in work) for what in ("bytes", "flops"))
    far = batch * _far(row, context, "fraction", 1) * model.layers * model.model.kv_bytes_per_token_layer / model.ranks
    packed = transfer(row.get("transfer", "")).codec
    copied = far / packed.ratio if packed else far
    unpacked = far + copied if packed else 0.0
    return model.power(_offload(bench, row), moved + copied + unpacked, flops)


OFFLOAD_KINDS = (
    Kind(
        "prefix", frozenset({"model", "new_tokens", "past_tokens", "mode", "step_ms_median"}), "step_ms_median", 1e-3, _prefix
    ),
    Kind(
        "offload", frozenset({"model", "batch", "context", "fraction", "mode", "step_ms_median"}), "step_ms_median", 1e-3,
        _offload,
    ),
    Kind(
        "offload power", frozenset({"model", "batch", "context", "fraction", "mode", "power_w_median"}), "power_w_median", 1.0,
        _power,
    ),
)  # fmt: skip
