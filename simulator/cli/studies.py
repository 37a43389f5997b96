"""The commands for studies: sweep, search, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from simulator.cli.app import Json, app, as_json, progress, show

StudyArgument = Annotated[Path, typer.Argument(metavar="STUDY", help="a study file (YAML)", show_default=False)]
Jobs = Annotated[
    int | None, typer.Option("--jobs", min=1, metavar="N", help="processes; default: one per CPU", show_default=False)
]
Backend = Annotated[str, typer.Option(metavar="local|dask", help="processes of this machine, or a Dask cluster")]
Scheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="of Dask; without it --jobs local workers", show_default=False)
]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="default: results/NAME-HASH", show_default=False)]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]


@app.command()
def sweep(
    context: typer.Context,
    study: StudyArgument,
    jobs: Jobs = None,
    backend: Backend = "local",
    scheduler: Scheduler = None,
    out: Out = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="number of points and time; runs nothing else")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a study: many scenarios, on all cores; the same command again goes on where it stopped."""
    from simulator.experiments.studies import engines, text
    from simulator.experiments.studies.sweep import estimate, load
    from simulator.experiments.studies.sweep import sweep as run

    loaded = load(study)
    if dry_run:
        found = estimate(loaded, jobs or engines.available_cpus())
        show(as_json(found) if json else text.estimate_text(found))
        return
    context.obj.message = _kept(out, loaded)
    with progress(quiet, context.obj) as report:
        result = run(loaded, out, jobs, backend, scheduler, report)
    if json:
        summary = {"folder": str(result.folder), "points": len(result.points), "failed": result.failed}
        show(as_json(summary | {"rows": text.sweep_rows(result), "insight": result.insight}))
    else:
        show(text.sweep_text(result))


@app.command()
def search(
    context: typer.Context,
    study: StudyArgument,
    jobs: Jobs = None,
    backend: Backend = "local",
    scheduler: Scheduler = None,
    out: Out = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Capacity under an SLO, the cheapest design, or a front: what the study's `search` asks for."""
    from simulator.experiments.studies import text
    from simulator.experiments.studies.search import search as run
    from simulator.experiments.studies.sweep import load

    loaded = load(study)
    context.obj.message = _kept(out, loaded)
    with progress(quiet, context.obj) as report:
        result = run(loaded, out, jobs, backend, scheduler, report)
    rows = {"folder": str(result.folder), "search": result.kind, "rows": result.rows, "sentences": result.sentences}
    show(as_json(rows) if json else text.search_text(result))


@app.command()
def systems(
    context: typer.Context,
    study: Annotated[Path | None, typer.Argument(metavar="STUDY", help="a study file (YAML)", show_default=False)] = None,
    jobs: Jobs = None,
    backend: Backend = "local",
    scheduler: Scheduler = None,
    out: Out = None,
    headlines: Annotated[
        bool, typer.Option("--headlines", help="instead: published results against simulated ones, with a reason each")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Published systems side by side: a study whose axis is `kv.system`; says what a system needs that nobody published."""
    if headlines:
        show(_headlines(json))
        return
    if study is None:
        raise typer.BadParameter("expected a study file, or --headlines", param_hint="STUDY")
    from simulator.experiments.studies.sweep import load
    from simulator.experiments.systems import systems as run
    from simulator.experiments.systems_text import systems_text

    loaded = load(study)
    context.obj.message = _kept(out, loaded)
    with progress(quiet, context.obj) as report:
        result = run(loaded, out, jobs, backend, scheduler, report)
    show(as_json({"folder": str(result.folder), "rows": result.rows}) if json else systems_text(result))


def _headlines(json: bool) -> str:
    from simulator.experiments.headlines import rows
    from simulator.experiments.headlines.text import headlines_text

    found = rows()
    return as_json({"rows": found}) if json else headlines_text(found)


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN ...", help="run folders, or sweep folders", show_default=False)
    ],
    json: Json = False,
) -> None:
    """Paired differences with 95 % intervals; the first is the baseline (of one sweep: its first arm)."""
    from simulator.experiments.studies.compare import compare as found
    from simulator.experiments.studies.text import compare_text

    rows = found(runs)
    show(as_json({"rows": rows}) if json else compare_text(rows))


def _kept(out: Path | None, study: Any) -> str:
    """What Ctrl-C says."""
    from simulator.experiments.studies.journal import default_folder

    return f"interrupted; finished runs are kept in {out or default_folder(study)}, and the same command goes on"
