"""`speckvsim crosscheck`."""

from __future__ import annotations

from typing import Annotated

import typer

from simulator.cli.app import Json, ScenarioFile, Set, app, as_json, progress, show


@app.command()
def crosscheck(
    context: typer.Context,
    scenario: ScenarioFile,
    set: Set = None,
    steps: Annotated[int, typer.Option(min=50, help="steps of the window, at least")] = 50,
    seed: Annotated[int | None, typer.Option(min=0, help="in place of the scenario's")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
    json: Json = False,
) -> None:
    """The fluid model of far memory against detailed devices, on the same requests."""
    from simulator.experiments.crosscheck import crosscheck as compared
    from simulator.experiments.crosscheck_text import render
    from simulator.scenario import Scenario

    seeds = [] if seed is None else [f"seed={seed}"]
    loaded = Scenario.load(scenario, set=[*(set or []), *seeds])
    with progress(quiet, context.obj) as report:
        found = compared(loaded, steps=steps, progress=report)
    show(as_json(found) if json else render(found))
