"""`speckvsim codec`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simulator.cli.app import Json, app, as_json, as_table, show


@app.command()
def codec(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE.npy", help="floats [..., tokens, channels]", show_default=False)
    ] = None,
    synthetic: Annotated[
        str | None, typer.Option(metavar="normal|ar1:RHO", help="in place of a file", show_default=False)
    ] = None,
    bits: Annotated[int, typer.Option(help="8, 4 or 2")] = 8,
    axis: Annotated[str, typer.Option(help="token or channel: along which differences are taken")] = "token",
    json: Json = False,
) -> None:
    """What the reference codec makes of a tensor, stage by stage: quantise, delta, run lengths, entropy bounds."""
    from simulator.codec.stages import stages_of

    found = stages_of(file, synthetic, bits, axis)
    if json:
        show(as_json(found.document()))
    else:
        rows = [row | {"ratio": round(row["ratio"], 3), "bytes": round(row["bytes"])} for row in found.rows()]
        show(as_table(rows))
        stored = f"ratio {found.ratio:.3f}; {100 * found.bypassed:.0f} % of the blocks are stored without run lengths"
        show(f"{stored}; relative error {100 * found.relative_error:.2f} %\n")
