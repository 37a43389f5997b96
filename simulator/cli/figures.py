"""The commands for results folders: plot, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simulator.cli.app import Json, app, as_json, show

Folders = Annotated[
    list[Path], typer.Argument(metavar="RUN_OR_SWEEP ...", help="run folders, or one sweep folder", show_default=False)
]


@app.command()
def plot(
    folders: Folders,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="default: figures/ in the first folder", show_default=False)
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="these figures alone: latency,attribution", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Figures (pdf, svg, png) of a run, of several runs side by side, or of a sweep, each with its data and caption."""
    from analysis.figures.draw import FOLDER, chosen, figures_of, write
    from analysis.figures.results import open_as_one

    results = open_as_one(folders)
    drawn = chosen(figures_of(results), only.split(",") if only else None)
    files = write(drawn, out or folders[0] / FOLDER)
    rows = [{"figure": name, "caption": figure.caption} for name, figure in drawn.items()]
    if json:
        show(as_json({"folder": str(out or folders[0] / FOLDER), "files": [file.name for file in files], "rows": rows}))
    else:
        show("".join(f"{row['figure']}\n    {row['caption']}\n" for row in rows))
        show(f"{len(drawn)} figures ({len(files)} files) in {out or folders[0] / FOLDER}\n")


@app.command()
def report(
    folders: Folders,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="default: report.html in the first folder", show_default=False)
    ] = None,
) -> None:
    """One self-contained HTML file: a run, a comparison of runs, or a sweep."""
    from analysis.figures.results import open_as_one
    from analysis.report.page import write

    show(f"report in {write(open_as_one(folders), out or folders[0] / 'report.html')}\n")
