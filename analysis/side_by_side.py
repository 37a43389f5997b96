"""Several runs side by side as a Markdown table, from their run folders.

    python -m analysis.side_by_side RUN RUN ...                      prints it
    python -m analysis.side_by_side --into README.md:NAME RUN ...    replaces what stands between the markers of NAME

Reads `summary.json` only, so it works on folders from another machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Summary = dict[str, Any]

ROWS: dict[str, Callable[[Summary], str]] = {
    "output tokens/s": lambda s: f"{s['throughput']['output_tokens_per_s']:.0f}",
    "decode tokens/s": lambda s: f"{s['throughput']['decode_output_tokens_per_s']:.0f}",
    "TTFT mean / P99": lambda s: f"{_time(s['latency']['ttft_s']['mean'])} / {_time(s['latency']['ttft_s']['p99'])}",
    "TPOT mean / P99": lambda s: f"{_time(s['latency']['tpot_s']['mean'])} / {_time(s['latency']['tpot_s']['p99'])}",
    "mean batch": lambda s: f"{s['simulation']['mean_batch']:.1f}",
    "KV read from L3": lambda s: _share(s["kv_access"]["l3_read_share"]),
    "coverage / accuracy": lambda s: f"{_share(s['prefetch']['coverage'])} / {_share(s['prefetch']['accuracy'])}",
    "bound by": lambda s: s["bound_by"],
    "J per output token": lambda s: f"{s['energy']['joules_per_output_token']:.1f}",
    "USD per million tokens": lambda s: f"{s['cost']['usd_per_million_output_tokens']:.2f}",
}


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def table(summaries: list[Summary]) -> str:
    """A row a metric, a column a run, headed by the names of the scenarios."""
    head = ["", *(summary["name"] for summary in summaries)]
    lines = [head, ["---", *["---:"] * len(summaries)]]
    lines += [[label, *(cell(summary) for summary in summaries)] for label, cell in ROWS.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def replace_section(text: str, name: str, content: str) -> str:
    """`text` with what stands between `<!-- table: name -->` and the next `<!-- end -->` replaced."""
    before, marker, rest = text.partition(f"<!-- table: {name} -->")
    _, end, after = rest.partition("<!-- end -->")
    if not (marker and end):
        raise ValueError(f"no section {name!r}")
    return f"{before}{marker}\n{content}\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", metavar="FILE:NAME")
    parser.add_argument("runs", nargs="+", type=Path)
    given = parser.parse_args()
    printed = table([json.loads((run / "summary.json").read_text()) for run in given.runs])
    if given.into:
        file, _, name = given.into.partition(":")
        Path(file).write_text(replace_section(Path(file).read_text(), name, printed))
    else:
        print(printed)


if __name__ == "__main__":
    main()
