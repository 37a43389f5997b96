"""The commands that run, explain and check, each importing what it needs when it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.cli.app import Json, ScenarioFile, Set, app, as_json, as_table, progress, show, trace_app

if TYPE_CHECKING:
    from simulator.scenario import Scenario

ARMS = ("none", "next_layer", "oracle")


@app.command()
def run(
    context: typer.Context,
    scenario: ScenarioFile,
    set: Set = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="run folder; without it results/NAME-HASH, with --json none")
    ] = None,
    json: Json = False,
    check: Annotated[bool, typer.Option("--check", help="check the invariants as well; changes no number")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="in place of the scenario's")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
    arms: Annotated[str | None, typer.Option(metavar="ARM,ARM", help="compare prefetchers: none,next_layer,oracle")] = None,
) -> None:
    """Simulate one scenario: a summary here, tables in the run folder."""
    from simulator.experiments import store

    loaded = _load(scenario, set, seed)
    folder = out if out or json or arms else store.default_folder(loaded)
    if folder:
        store.check_folder(folder)
    shown = _arms(loaded, arms.split(","), check, json) if arms else ""
    if folder or not arms:
        from simulator.experiments.run import run_scenario

        with progress(quiet, context.obj) as report:
            result = run_scenario(loaded, check=check, progress=report)
        shown = shown or _summary(result.summary, folder, json)
        context.obj.check()
        if folder:
            store.write_run(result, folder)
    show(shown)


def _load(scenario: Path, settings: list[str] | None, seed: int | None = None) -> Scenario:
    from simulator.scenario import Scenario

    seeds = [] if seed is None else [f"seed={seed}"]
    return Scenario.load(scenario, set=[*(settings or []), *seeds])


def _arms(scenario: Scenario, names: list[str], check: bool, json: bool) -> str:
    from simulator.errors import InputError, Problem, did_you_mean
    from simulator.experiments.run import run_arms

    known = list(dict.fromkeys([*ARMS, scenario.resolved.prefetch.predictor]))
    arms = [name.strip() for name in names]
    wrong = [
        Problem("--arms", "", f"'{arm}' is not an arm; expected {', '.join(known)}", did_you_mean(arm, known))
        for arm in arms
        if arm not in known
    ]
    if wrong:
        raise InputError(wrong)
    rows = run_arms(scenario, arms, check)
    if json:
        return as_json({"arms": rows})
    from simulator.experiments.render import arms_text

    return arms_text(rows)


def _summary(summary: dict[str, Any], folder: Path | None, json: bool) -> str:
    if json:
        return as_json(summary)
    from simulator.experiments.render import summary_text

    return summary_text(summary, folder)


@app.command()
def explain(scenario: ScenarioFile, set: Set = None, json: Json = False) -> None:
    """The resolved scenario: every value with its source; capacities, paths, bounds, warnings."""
    from simulator.experiments.explain import explain as found
    from simulator.experiments.explain_text import render

    explained = found(_load(scenario, set))
    show(as_json(explained) if json else render(explained))


@app.command()
def schema() -> None:
    """The JSON schema of a scenario file, for editors."""
    from simulator.scenario.schema import json_schema

    show(as_json(json_schema()))


@app.command()
def catalog(
    kind: Annotated[str | None, typer.Argument(help="gpus, models, links, ...", show_default=False)] = None,
    name: Annotated[str | None, typer.Argument(help="an entry of that kind", show_default=False)] = None,
    json: Json = False,
) -> None:
    """What the catalogue knows: its kinds, the entries of one kind, or one entry with the sources of its values."""
    from simulator.catalog import UnknownName
    from simulator.errors import InputError, Problem

    try:
        rows = _catalog_rows(kind, name)
    except UnknownName as error:
        raise InputError(Problem("catalog", "", error.message, error.hint)) from error
    show(as_json({"rows": rows}) if json else as_table(rows))


def _catalog_rows(kind: str | None, name: str | None) -> list[dict[str, Any]]:
    from simulator.catalog import kinds, load, names

    if kind is None:
        return [{"kind": each, "entries": len(names(each))} for each in kinds()]
    if name is None:
        return [{"name": each, "title": load(kind, each).title} for each in names(kind)]
    entry = load(kind, name)
    return [{"field": field, "value": value, "source": entry.sources[field]} for field, value in entry.values.items()]


@app.command()
def steptime(
    gpu: Annotated[str, typer.Option(help="a GPU of the catalogue", show_default=False)],
    model: Annotated[str, typer.Option(help="a model of the catalogue", show_default=False)],
    tp: Annotated[int, typer.Option(min=1, help="tensor-parallel GPUs")] = 1,
    batch: Annotated[
        int | None, typer.Option(min=0, help="decodes; default: 1, or 0 with --prefill", show_default=False)
    ] = None,
    context: Annotated[int, typer.Option(min=1, help="tokens that each decode reads")] = 1024,
    prefill: Annotated[int, typer.Option(min=0, help="prompt tokens in the step")] = 0,
    past: Annotated[int, typer.Option(min=0, help="tokens of that prompt which are cached")] = 0,
    json: Json = False,
) -> None:
    """GPU time of one step, operator by operator (no host overhead)."""
    from simulator.experiments.steptime import step_model
    from simulator.experiments.steptime import steptime as apart

    decodes = batch if batch is not None else int(prefill == 0)
    found = apart(step_model(gpu, model, tp), decodes, context, prefill, past)
    if json:
        show(as_json(found))
    else:
        from simulator.experiments.render import seconds

        show(as_table(found["operators"]) + f"step {seconds(found['step_s'])}, bound by {found['bound']}\n")


@app.command()
def validate(
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="your measurements; default: those of the package", show_default=False),
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="the GPU of --data; default: h100-80gb-sxm", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Model against measurement: errors of step, product, all-reduce times and power."""
    from analysis.validation.compare import DEFAULT_GPU, built_in, compare_file
    from simulator.errors import InputError, Problem

    if gpu and not data:
        raise InputError(Problem("--gpu", "", "says what GPU the measurements of --data are of; there is no --data"))
    rows = [compare_file(data, gpu or DEFAULT_GPU)] if data else built_in()
    show(as_json({"rows": rows}) if json else as_table([{key: _rounded(value) for key, value in row.items()} for row in rows]))


def _rounded(value: Any) -> Any:
    return round(value, 2) if isinstance(value, float) else value


@trace_app.command()
def stats(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a trace, gzipped or not", show_default=False)],
    format: Annotated[str, typer.Option(help="auto, azure, csv, mooncake")] = "auto",
    json: Json = False,
) -> None:
    """Arrivals, token counts and prefix reuse of a recorded trace."""
    from simulator.workload.stats import trace_stats

    found = trace_stats(file, format)
    show(as_json(found) if json else as_table(_flat(found)))


def _flat(document: Mapping[str, Any], above: str = "") -> list[dict[str, Any]]:
    """A nested document as rows: dotted name, value."""
    rows: list[dict[str, Any]] = []
    for key, value in document.items():
        nested = isinstance(value, Mapping)
        rows += _flat(value, f"{above}{key}.") if nested else [{"name": f"{above}{key}", "value": value}]
    return rows
