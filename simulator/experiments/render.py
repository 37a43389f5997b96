"""What a person reads in a terminal: the summary of a run, tables of rows.

Numbers get three digits and a unit that suits them (decimal prefixes); what has no value is "-". Text only: no frames,
bold titles on a terminal and nothing of the kind elsewhere. Names and messages are shown as they are, never as markup.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console, JustifyMethod
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

Row = dict[str, Any]

WIDEST = 100  # columns
UNWRAPPED = 10_000  # of a table that goes into a file or a pipe: one line a row
BAR = 20
MOST_FAULTS = 20  # rows; the summary has all

PARTS = {
    "queue": "waiting for admission",
    "compute": "FLOPs of the GPUs",
    "hbm": "HBM bandwidth",
    "collective": "all-reduce",
    "launch": "kernel launches",
    "host": "serving engine",
    "link": "far KV: links",
    "pool_memory": "far KV: pool memory",
    "dma": "far KV: DMA rate or bytes in flight",
    "staging": "far KV: writes to HBM",
    "decompress": "decompression",
    "writeback": "room for write-back",
}
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_TIMES = ((7200.0, 3600.0, "h"), (120.0, 60.0, "min"), (1.0, 1.0, "s"), (1e-3, 1e-3, "ms"), (1e-6, 1e-6, "us"))


def summary_text(summary: Row, folder: Path | None) -> str:
    """The summary of a run, at most 100 columns wide; `folder` is where its files are."""
    console, text = _console(_summary_width())
    console.print(Text(str(summary.get("name", "")), style="bold"))
    for line in _headline(summary):
        console.print(Padding(Text(line), (0, 0, 0, 2)))
    for warning in summary.get("warnings") or []:
        console.print(Padding(Text(f"warning: {warning}", style="yellow"), (0, 0, 0, 2)))
    for title, part in _sections(summary):
        console.print()
        console.print(Text(title, style="bold"))
        console.print(Padding(part, (0, 0, 0, 2)))
    console.print()
    console.print(Text(_cost_of_running(summary.get("simulation", {}))))
    if folder:
        console.print(Text(f"results in {folder}", overflow="fold"))
    return _unpadded(text.getvalue())


def table(rows: list[Row]) -> str:
    """Rows with the same keys as a table with a header; numbers to the right, long text wrapped on a terminal."""
    console, text = _console(None if sys.stdout.isatty() else UNWRAPPED)
    if rows:
        numeric = {column for column, value in enumerate(rows[0].values()) if isinstance(value, int | float)}
        console.print(_table(list(rows[0]), [[_cell(value) for value in row.values()] for row in rows], numeric))
    return _unpadded(text.getvalue())


def arms_text(rows: list[Row]) -> str:
    """The rows of `run --arms`."""
    header = ["arm", "decode step", "waits", "output tokens/s", "gain share", "coverage", "timeliness", "accuracy"]
    cells = [
        [row["arm"], seconds(row["step_time_s"]), seconds(row["stall_s"]), number(row["output_tokens_per_s"])]
        + [percent(row["gain_share"])]
        + [percent(row["prefetch"][key]) for key in ("coverage", "timeliness", "accuracy")]
        for row in rows
    ]
    console, text = _console(_summary_width())
    console.print(_table(header, cells))
    return _unpadded(text.getvalue())


def _headline(summary: Row) -> list[str]:
    requests, rates, goodput = (summary.get(key, {}) for key in ("requests", "throughput", "goodput"))
    ended = ", ".join(f"{count:,} {name}" for name, count in requests.items() if count or name == "finished")
    output, served = number(rates.get("output_tokens_per_s")), number(rates.get("requests_per_s"))
    lines = [f"{output} output tokens/s, {served} requests/s   ({ended})", bound_sentence(summary)]
    found = summary.get("stability", {})
    if found.get("verdict"):
        lines.append(_load(found))
    if goodput.get("slo_attainment") is not None:
        within, rate = percent(goodput["slo_attainment"]), number(goodput.get("requests_per_s"))
        lines.append(f"within the SLO: {within} of the requests, {rate} requests/s")
    return lines


def _load(found: Row) -> str:
    """How much of what it can serve is asked of the system, and whether that is a steady state."""
    load, first = found.get("utilization"), found.get("warmup_requests")
    of = f" at {percent(load)} of what a full batch would serve" if load is not None else ""
    return f"{found['verdict']}{of}; warm-up: the first {number(first)} requests"


def bound_sentence(summary: Row) -> str:
    """What limits the system, and how much of a request's time that is."""
    bound, parts = summary.get("bound_by"), summary.get("stall", {})
    if bound == "arrivals":
        return "bound by arrivals: no step was running for more than half of the time"
    spent = {name.removesuffix("_s"): value or 0.0 for name, value in parts.items()}
    queue, whole = spent.get("queue", 0.0), sum(spent.values())
    if bound not in spent or whole <= queue:
        return f"bound by {bound or '-'}"
    share = f"{percent(spent[bound] / (whole - queue))} of the mean request's time in service"
    waiting = f"; before that, {percent(queue / whole)} of its time is spent in the queue" if queue > whole / 2 else ""
    meaning = f" ({PARTS[bound]})" if bound in PARTS else ""
    return f"bound by {bound}{meaning}: {share}{waiting}"


def _sections(summary: Row) -> Iterator[tuple[str, Table]]:
    verdict = summary.get("stability", {}).get("verdict")
    said = {"OVERLOADED": "grows with the length of the run", "BACKLOGGED": "of this backlog, not of a rate"}
    yield "Latency" + (f" ({verdict}: {said[verdict]})" if verdict in said else ""), _latency(summary.get("latency", {}))
    yield "Where the time of a mean request goes", _where(summary.get("stall", {}))
    tiers = {name: tier for name, tier in summary.get("tiers", {}).items() if tier.get("capacity_bytes")}
    if tiers:
        yield "KV tiers", _tiers(tiers)
    prefetch = summary.get("prefetch", {})
    if prefetch.get("asked"):
        yield "Far KV and prefetch", _far(summary, prefetch)
    elif "l3" in tiers:
        yield "Far KV and prefetch", _table(None, [["no page was read from L3"]])
    if summary.get("faults"):
        yield "Faults", _faults(summary["faults"])
    yield "Utilisation", _utilisation(summary.get("utilization", {}))
    yield "Energy and cost", _energy_and_cost(summary)


def _latency(latency: Row) -> Table:
    names = {"ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "ITL", "e2e_s": "end to end"}
    figures = ("mean", "p50", "p95", "p99")
    cells = [[name, *(seconds(latency.get(key, {}).get(figure)) for figure in figures)] for key, name in names.items()]
    return _table(["", *figures], cells)


def _where(parts: Row) -> Table:
    spent = {name.removesuffix("_s"): value for name, value in parts.items() if value}
    whole = sum(spent.values())
    cells = [
        [name, seconds(value), percent(value / whole), _bar(value / whole), PARTS.get(name, "")]
        for name, value in sorted(spent.items(), key=lambda item: -item[1])
    ]
    return _table(None, cells, right={1, 2})


def _tiers(tiers: Row) -> Table:
    cells = []
    for name, tier in tiers.items():
        capacity = tier["capacity_bytes"]
        used = [tier.get("peak_bytes"), tier.get("mean_bytes")]
        filled = [f"{size(value)} ({percent(value / capacity)})" if value is not None else "-" for value in used]
        cells.append([name.upper() if len(name) == 2 else name, size(capacity), *filled])
    return _table(["", "capacity", "peak", "mean"], cells)


def _far(summary: Row, prefetch: Row) -> Table:
    access, compression = summary.get("kv_access", {}), summary.get("compression", {})
    return _table(
        None,
        [
            ["coverage", percent(prefetch.get("coverage")), "of the far pages were prefetched before a layer asked"],
            ["timeliness", percent(prefetch.get("timeliness")), "of those were complete by then"],
            ["accuracy", percent(prefetch.get("accuracy")), "of the prefetched pages were used"],
            ["wasted", size(prefetch.get("wasted_bytes")), "prefetched and never used"],
            ["read from L3", percent(access.get("l3_read_share")), "of all page reads"],
            ["mean wait", seconds(access.get("miss_s")), "for a page that a layer had to wait for"],
            ["compression", f"{number(compression.get('ratio'))}x", "raw bytes / stored bytes"],
        ],
        right={1},
    )


def _faults(faults: list[Row]) -> Table:
    header = ["", "at", "tokens/s before", "during", "after", "aborted", "recomputed"]
    keys = ("tokens_per_s_before", "during", "after", "aborted", "recomputed")
    cells = [[row["what"], seconds(row["at_s"]), *(number(row[key]) for key in keys)] for row in faults[:MOST_FAULTS]]
    if len(faults) > MOST_FAULTS:
        cells.append([f"... {len(faults) - MOST_FAULTS} more", *[""] * (len(header) - 1)])
    return _table(header, cells)


def _utilisation(devices: Row) -> Table:
    return _table(None, [[name, percent(value), _bar(value)] for name, value in devices.items()], right={1})


def _energy_and_cost(summary: Row) -> Table:
    energy, cost = summary.get("energy", {}), summary.get("cost", {})
    tokens, hour = number(cost.get("usd_per_million_output_tokens")), number(cost.get("usd_per_hour"))
    parts = {key.removesuffix("_j"): value for key, value in energy.items() if key.endswith("_j")}
    return _table(
        None,
        [
            ["energy", f"{_prefixed(energy.get('joules_per_output_token'), 'J')} per output token"],
            ["", ", ".join(f"{name} {_prefixed(value, 'J')}" for name, value in parts.items())],
            ["cost", f"{tokens} USD per million output tokens, {hour} USD per hour"],
            ["", f"basis: {cost.get('basis', '-')}, prices as of {cost.get('prices_as_of', '-')}"],
        ],
    )


def _cost_of_running(simulation: Row) -> str:
    simulated, wall = seconds(simulation.get("simulated_s")), seconds(simulation.get("wall_s"))
    steps, batch = simulation.get("steps"), number(simulation.get("mean_batch"))
    return f"{simulated} simulated in {wall}: {number(steps)} steps, mean decode batch {batch}"


def seconds(value: float | None) -> str:
    if value is None:
        return "-"
    for least, factor, unit in _TIMES:
        if abs(value) >= least:
            return f"{number(value / factor)} {unit}"
    return f"{number(value / 1e-9)} ns" if value else "0 s"


def size(value: float | None) -> str:
    return _prefixed(value, "B")


def percent(value: float | None) -> str:
    """Whole per cent; one more digit near 0 and 100, where it matters."""
    if value is None:
        return "-"
    if 0 < value < 0.0005:
        return "<0.1%"
    if 0.9995 <= value < 1:
        return ">99.9%"
    return f"{value:.0%}" if 0.1 <= value < 0.95 or value in (0, 1) else f"{value:.1%}"


def number(value: float | None) -> str:
    """Three digits, and whole numbers in full."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _prefixed(value: float | None, unit: str) -> str:
    for factor, prefix in _PREFIXES:
        if value is not None and abs(value) >= factor:
            return f"{number(value / factor)} {prefix}{unit}"
    return "-" if value is None else f"{number(value)} {unit}"


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {inner}" for key, inner in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else str(value)


def _bar(share: float) -> str:
    full = "#" if "utf" not in (sys.stdout.encoding or "").lower() else "█"
    return full * round(min(share, 1.0) * BAR)


def _table(header: list[str] | None, rows: list[list[str]], right: set[int] | None = None) -> Table:
    """Cells in columns; `right`: those of numbers, with a header by default all but the first."""
    table = Table(box=None, show_header=header is not None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    width = max((len(row) for row in rows), default=0)
    numbers = right if right is not None else set(range(1, width)) if header else set()
    for column in range(width):
        justify: JustifyMethod = "right" if column in numbers else "left"
        table.add_column(Text(header[column]) if header else "", justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _console(width: int | None = None) -> tuple[Console, StringIO]:
    """A console that writes to a text, so that all is rendered before anything is stored or shown."""
    text = StringIO()
    styled = sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    wide = width or shutil.get_terminal_size().columns
    return Console(file=text, width=wide, force_terminal=styled, highlight=False, markup=False, emoji=False), text


def _summary_width() -> int:
    return min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)


def _unpadded(text: str) -> str:
    """Without the blanks with which cells are filled up."""
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())
