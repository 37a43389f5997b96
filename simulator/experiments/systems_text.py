"""What a person reads of a comparison of systems. The same rows go out with --json."""

from __future__ import annotations

from textwrap import fill
from typing import Any

from simulator.experiments.render import seconds, table
from simulator.experiments.studies.fields import scenario_field
from simulator.experiments.studies.view import said, three
from simulator.experiments.systems import SYSTEM, SystemsResult

Row = dict[str, Any]


def systems_text(result: SystemsResult) -> str:
    """A table of the systems that ran, what the others need, and what was published about quality."""
    study = result.sweep.study
    axes = [path for path in study.axes if path != SYSTEM]
    arms = len(study.arms) > 1
    ran = [row for row in result.rows if row["status"] == "finished"]
    parts = [table([_short(row, axes, arms) for row in ran])] if ran else []
    parts += list(dict.fromkeys(_lacking(row) for row in result.rows if row["status"] != "finished"))
    notes = dict.fromkeys(f"  {row['system']}: {row['quality']}" for row in ran if row["system"] != "none")
    if notes:
        parts.append("\nQuality as published, never simulated\n" + "".join(f"{note}\n" for note in notes))
    new = result.sweep.simulated
    parts.append(f"\n{len(ran)} of {len(result.rows)} ran ({new} new runs); results in {result.folder}\n")
    return "".join(parts)


def _short(row: Row, axes: list[str], arms: bool) -> Row:
    shown: Row = {"system": row["system"]} | ({"arm": row["arm"]} if arms else {})
    shown |= {path: said(scenario_field(path), row[path]) for path in axes}
    return shown | {
        "tokens/s": _three(row["output_tokens_per_s"]),
        "relative": "-" if row["relative"] is None else f"{row['relative']:.2f}x",
        "TPOT": _seconds(row["tpot_s"]),
        "TTFT p99": _seconds(row["ttft_p99_s"]),
        "sequences": str(row["sequences"]),
        "batch": _three(row["mean_batch"]),
        "USD/1M": _three(row["usd_per_million_output_tokens"]),
        "J/token": _three(row["joules_per_output_token"]),
        "bound by": row["bound_by"],
    }


def _lacking(row: Row) -> str:
    said = "needs: " + ", ".join(row["needs"]) if row["needs"] else f"failed: {row['error']}"
    return fill(f"{row['system']}  {said}", 110, subsequent_indent="    ", break_on_hyphens=False) + "\n"


def _three(value: float | None) -> str:
    return "-" if value is None else three(value)


def _seconds(value: float | None) -> str:
    return "-" if value is None else seconds(value)
