"""The table of headlines for a terminal: a line a headline, and below it what was assumed and why."""

from __future__ import annotations

from collections import Counter
from textwrap import fill
from typing import Any

from simulator.experiments.render import table

Row = dict[str, Any]
INDENT = "    "


def headlines_text(rows: list[Row]) -> str:
    short = [
        {
            "system": row["system"],
            "headline": row["metric"],
            "published": _published(row),
            "simulated": "-" if row["simulated"] is None else _number(row["simulated"], row["unit"]),
            "": row["label"],
        }
        for row in rows
    ]
    parts = [table(short), "\n"]
    for row in rows:
        assumed = f" ({row['assumed']})" if row["assumed"] else ""
        said = f"{row['system']}, {row['metric']}, {row['label']}: {row['why']}{assumed}"
        parts.append(fill(said, 110, subsequent_indent=INDENT, break_on_hyphens=False) + "\n")
    counts = Counter(row["label"] for row in rows)
    return "".join(parts) + "\n" + ", ".join(f"{count} {name}" for name, count in counts.items()) + "\n"


def _published(row: Row) -> str:
    value, unit = row["published"], row["unit"]
    said = " to ".join(_number(one, unit) for one in value) if isinstance(value, list) else _number(value, unit)
    bound = {"up_to": "up to ", "at_most_drop": "at most ", "more_than_drop": "more than ", "over": "over "}
    return bound.get(row["bound"], "") + said


def _number(value: float, unit: str) -> str:
    return f"{value:.3g}{'x' if unit == 'x' else ' %' if unit.startswith('%') else ' ' + unit}"
