"""The published serving measurements as a person reads them: counts, engines, what is outside and why, what was not run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from analysis.validation.serving import Outcome, Serving, decode_power

Table = Callable[[list[dict[str, Any]]], str]


def text(found: Serving, table: Table) -> str:
    """Everything below the table of errors; `table` renders rows."""
    counts = found.counts()
    share = counts["held_back_within_15_pct_share"]
    held, good = counts["held_back"], counts["held_back_within_15_pct"]
    parts = [
        f"\nPublished serving measurements: {counts['rows']} rows, {counts['expressible']} expressible and run, ",
        f"{len(found.missing)} not.\n",
        f"Not used in a fit: {held}",
        "\n\n" if share is None else f", of which {good} are within 15 % ({100 * share:.1f} %).\n\n",
        table(_engines(found.outcomes)),
    ]
    outside = found.outside()
    if outside:
        parts += ["\nOutside 15 %:\n", table([_short(row) for row in outside]), "\nLikely reasons:\n"]
        parts += [f"  {row['row']}  {row['reason']}\n" for row in outside]
    power = decode_power(found.outcomes)
    shares = [
        {"row": row, "measured": truth, "model": round(model, 3), "error_pct": round(100 * (model / truth - 1), 1)}
        for row, truth, model in zip(power.rows, power.truth.tolist(), power.model.tolist())
    ]
    if shares:
        parts += ["\nMean power of a GPU in decode, of its limit:\n", table(shares)]
    if found.missing:
        parts += ["\nNot expressible:\n"]
        parts += [f"  {', '.join(names)}  {lack}\n" for lack, names in _by_reason(found.missing).items()]
    return "".join(parts)


def _engines(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Errors by the law that was used."""
    rows = []
    for name in dict.fromkeys(one.law.name for one in outcomes):
        family = [one for one in outcomes if one.law.name == name]
        row: dict[str, Any] = {"engine": name, "fitted parameters": len(family[0].law.fit)}
        for what, part in (
            ("fitted", [one for one in family if one.fitted]),
            ("held back", [one for one in family if not one.fitted]),
        ):
            sizes = [abs(one.error_pct) for one in part if one.error_pct is not None]
            row |= {
                what: len(part),
                f"{what}, within 15 %": sum(one.within for one in part),
                f"{what}, median error %": round(float(np.median(sizes)), 1) if sizes else None,
            }
        rows.append(row)
    return rows


def _short(row: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in row.items() if key not in ("reason", "fitted")}
    for key in ("simulated", "error_pct"):
        kept[key] = None if kept[key] is None else round(kept[key], 1)
    return kept | {"used in": "fit" if row["fitted"] else "held back"}


def _by_reason(missing: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, lack in missing.items():
        found.setdefault(lack, []).append(name)
    return found
