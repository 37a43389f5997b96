"""What `validate` writes: a csv with every compared row, a csv with the table, and a scatter figure.

    validate_rows.csv      data_set, row (line in its file, or id), metric, measured, model, error_pct
    validate.csv           the table that is printed
    validate.pdf|svg|png   model against measurement; its caption in validate.txt

All files are made in a folder beside the target and renamed into it, so that none is half-written; the same results give the
same bytes. Other files in the target are left alone.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from analysis.files import filled
from analysis.validation.compare import Compared

FOLDER = Path("results") / "validate"
ROWS = "validate_rows.csv"
TABLE = "validate.csv"


def write(found: Sequence[Compared], folder: Path) -> list[Path]:
    """Write all files; returns where they are."""
    from analysis.validation.figure import draw

    with filled(folder) as aside:
        (aside / ROWS).write_text(rows_csv(found), encoding="utf-8")
        (aside / TABLE).write_text(table_csv([one.summary() for one in found]), encoding="utf-8")
        draw(found, aside)
        made = sorted(file.name for file in aside.iterdir())
    return [folder / name for name in made]


def rows_csv(found: Sequence[Compared]) -> str:
    """Every compared row, in the unit of its metric."""
    lines: list[list[Any]] = [["data_set", "row", "metric", "measured", "model", "error_pct"]]
    for one in found:
        if one.subset:
            continue
        for row, model, truth in zip(one.rows, one.model.tolist(), one.truth.tolist()):
            error = 100.0 * (model / truth - 1.0)
            lines.append([one.data_set, row, one.metric, f"{truth:.6g}", f"{model:.6g}", f"{error:.3f}"])
    return _csv(lines)


def table_csv(summaries: Sequence[dict[str, Any]]) -> str:
    """The table of errors."""
    names = list(summaries[0]) if summaries else []
    cells = [[_cell(row.get(name)) for name in names] for row in summaries]
    return _csv([names, *cells])


def _cell(value: Any) -> Any:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else value


def _csv(lines: list[list[Any]]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
