"""`speckvsim reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simulator.cli.app import Json, app, as_table, progress, show


@app.command()
def reproduce(
    context: typer.Context,
    out: Annotated[Path, typer.Option(metavar="DIR", help="ledger, figures and page")] = Path("results/reproduce"),
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
) -> None:
    """The claims of CXL-SpecKV, simulated as assumed and as measured; where a pool pays at all."""
    from analysis.files import check_folder
    from analysis.reproduction.advice import sentences
    from analysis.reproduction.ledger import ledger, write
    from analysis.reproduction.text import LEGEND, short

    check_folder(out)
    with progress(quiet, context.obj) as report:
        found = ledger(report)
    write(found, out)
    if json:
        show((out / "ledger.json").read_text(encoding="utf-8"))
        return
    show(as_table([{key: value for key, value in row.items() if key != "it would hold"} for row in short(found.claims)]))
    for claim in found.claims:
        show(f"\n{claim.name}: {claim.claim}\n    would hold: {claim.regime.text}\n")
        show(f"    {claim.contradiction}\n" if claim.contradiction else "")
    show("".join(f"\n{line}" for line in sentences(found.advice)) + "\n")
    show(f"\n{LEGEND}\n\n{out / 'ledger.html'}\n")
