"""Kinds of measurements of the host link, each with what the model says of a row.

    kind       the measured column     needs
    copies     gb_s                    direction, bytes_per_copy, copies_in_flight        rows of copies issued from Python
    scattered  total_ms_median         direction, method, kernel_blocks, page_bytes, pages
    latency    ns_median               what, bytes
    two GPUs   gb_s_median             gpu, gpu0_does, gpu1_does, bytes_per_copy
    overlap    slowdown                step, batch, context, link_load                    rows with a load

The copy engine is that of the H100, for other GPUs too: as good as any guess, but no faster than their own port.
"""

from __future__ import annotations

from analysis.validation.bench import Bench, Kind, Row

DIRECTIONS = ("h2d", "d2h")
METHODS = ("memcpyAsync", "memcpyBatchAsync", "kernel")


def _one_of(text: str, column: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise ValueError(f"{column} '{text}' is none of {', '.join(known)}")
    return text


def _copies(bench: Bench, row: Row) -> float:
    size, direction = float(row["bytes_per_copy"]), _one_of(row["direction"], "direction", (*DIRECTIONS, "both"))
    if direction != "both":
        return size / bench.link.copies(direction, size, bench.python_issue)
    return 2 * size / max(bench.link.copies(one, size, bench.python_issue, both=True) for one in DIRECTIONS)


def _scattered(bench: Bench, row: Row) -> float:
    direction, method = _one_of(row["direction"], "direction", DIRECTIONS), _one_of(row["method"], "method", METHODS)
    return bench.link.scattered(direction, method, int(row["pages"]), float(row["page_bytes"]), int(row["kernel_blocks"] or 0))


def _latency(bench: Bench, row: Row) -> float:
    what, size = row["what"], float(row["bytes"])
    if what.startswith("memcpyAsync_plus_stream_sync"):
        return bench.link.lone(_one_of(what.rpartition("_")[2], "what, direction", DIRECTIONS), size)
    if what == "memcpyAsync_h2d_device_time":
        return bench.link.copies("h2d", size)
    if not what.startswith("zero_copy"):
        raise ValueError(f"what '{what}' is neither a memcpyAsync nor a zero_copy read of host memory")
    return bench.link.block_read(size)


def _two_gpus(bench: Bench, row: Row) -> float:
    """Each has a port of its own, so what the other does is no matter."""
    column = f"gpu{_one_of(row['gpu'], 'gpu', ('0', '1'))}_does"
    return bench.link.rate(_one_of(row[column], column, DIRECTIONS))


def _overlap(bench: Bench, row: Row) -> float:
    model, _ = bench.of_row({"model": "llama-2-7b"} | dict(row))
    batch, context, load = int(row["batch"]), int(row["context"]), row["link_load"]
    if not load.startswith("gather"):
        _one_of(load, "link_load", (*DIRECTIONS, "both", "gatherN"))
    if _one_of(row["step"], "step", ("decode", "prefill")) == "decode":
        return bench.link.slowdown(model, load, contexts=[context] * batch)
    return bench.link.slowdown(model, load, pieces=[(context, 0)] * batch)


def _of_host_memory(row: Row) -> bool:
    return "gpu_memory" not in row["what"]  # reads that hit the GPU's L2 are no link


LINK_KINDS = (
    Kind("copies", frozenset({"direction", "bytes_per_copy", "copies_in_flight", "gb_s"}), "gb_s", 1e9, _copies),
    Kind(
        "scattered", frozenset({"direction", "method", "kernel_blocks", "page_bytes", "pages", "total_ms_median"}),
        "total_ms_median", 1e-3, _scattered,
    ),
    Kind("latency", frozenset({"what", "bytes", "ns_median"}), "ns_median", 1e-9, _latency, _of_host_memory),
    Kind(
        "two GPUs", frozenset({"gpu", "gpu0_does", "gpu1_does", "bytes_per_copy", "gb_s_median"}), "gb_s_median", 1e9,
        _two_gpus,
    ),
    Kind(
        "overlap", frozenset({"step", "batch", "context", "link_load", "slowdown"}), "slowdown", 1.0, _overlap,
        lambda row: row["link_load"] != "none",
    ),
)  # fmt: skip
