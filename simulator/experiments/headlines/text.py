"""The table of headlines for a terminal: a line a headline, and below it what was assumed and why."""

from __future__ import annotations

from collections import Counter
from textwrap import fill
from typing import Any

from simulator.experiments.render import table

Row = dict[str, Any]
INDENT = "    "


def headlines_text(rows: list[Row]) -> str:
    checked = [row for row in rows if row["simulated"] is not None]
    short = [
        {
            "system": row["system"],
            "headline": row["metric"],
            "published": _published(row),
            "simulated": _several(row["simulated"], row["unit"]),
            "": row["label"],
        }
        for row in checked
    ]
    parts = [table(short), "\n"]
    for row in checked:
        assumed = f" ({row['assumed']})" if row["assumed"] else ""
        parts.append(_paragraph(f"{row['system']}, {row['metric']}, {row['label']}: {row['why']}{assumed}"))
    parts.append("\nNot checked:\n")
    for row in rows:
        if row["simulated"] is None:
            value = f", {_published(row)}" if row["published"] is not None else ""
            parts.append(_paragraph(f"{row['system']}, {row['metric']}{value}: {row['why']}"))
    counts = Counter(row["label"] for row in rows)
    return "".join(parts) + "\n" + ", ".join(f"{count} {name}" for name, count in counts.items()) + "\n"


def _paragraph(text: str) -> str:
    return fill(text, 110, subsequent_indent=INDENT, break_on_hyphens=False) + "\n"


def _published(row: Row) -> str:
    bound = {"up_to": "up to ", "at_most_drop": "at most ", "more_than_drop": "more than ", "over": "over "}
    return bound.get(row["bound"], "") + _several(row["published"], row["unit"])


def _several(value: float | list[float] | tuple[float, float] | str, unit: str) -> str:
    if isinstance(value, str):
        return value
    return " to ".join(_number(one, unit) for one in value) if isinstance(value, tuple | list) else _number(value, unit)


def _number(value: float, unit: str) -> str:
    return f"{value:.3g}{'x' if unit == 'x' else ' %' if unit.startswith('%') else f' {unit}'.rstrip()}"
