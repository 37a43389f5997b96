"""Pieces of what a page shows: tables, cells, documents."""

from __future__ import annotations

from math import isfinite
from typing import Any

import yaml

from analysis.figures.style import number

Table = dict[str, Any]


def empty(title: str, kind: str) -> dict[str, Any]:
    return {
        "title": title, "kind": kind, "headlines": [], "sentences": [], "findings": [], "bound": None, "limits": None,
        "tables": [], "values": [], "documents": [], "provenance": [], "checks": None,
    }  # fmt: skip


def table(title: str, columns: list[str], rows: list[list[Any]], note: str = "") -> Table:
    return {"title": title, "columns": columns, "rows": rows, "note": note}


def cell(value: Any, unit: str, half: float | None = None) -> dict[str, str]:
    """Text as shown, and what it is sorted by."""
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return {"text": "", "sort": ""}
    if isinstance(value, bool) or not isinstance(value, int | float):
        return {"text": str(value), "sort": str(value)}
    spread = f" ±{number(half)}" if half is not None and isfinite(half) and half > 0 else ""
    return {"text": f"{number(float(value))}{spread}", "sort": repr(float(value))}


def at(document: Any, path: str) -> Any:
    for key in path.split("."):
        document = document.get(key) if isinstance(document, dict) else None
    return document


def dump(document: Any) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
