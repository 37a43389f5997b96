"""The commands that run, explain and check, each importing what it needs when it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.cli.app import Json, ScenarioFile, Set, app, as_json, as_table, progress, show, trace_app

if TYPE_CHECKING:
    from simulator.scenario import Scenario


Block = Annotated[int, typer.Option(min=0, help="tokens of a hashed block; 0: the format's")]
Skip = Annotated[bool, typer.Option("--skip", help="leave malformed rows out and count them, instead of refusing the file")]


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
    timeline: Annotated[bool, typer.Option("--timeline", help="a Chrome trace in the run folder, for Perfetto")] = False,
    window: Annotated[
        str | None,
        typer.Option(metavar="FROM,TO", help="of the timeline: '100 s,130 s'; default: the whole run", show_default=False),
    ] = None,
    arms: Annotated[str | None, typer.Option(metavar="ARM,ARM", help="compare prefetchers: none,next_layer,oracle")] = None,
) -> None:
    """Simulate one scenario: a summary here, tables in the run folder."""
    from simulator.experiments import store

    span = _window(timeline, window)
    loaded = _load(scenario, set, seed)
    folder = out if out or json or arms else store.default_folder(loaded)
    if folder:
        store.check_folder(folder)
    elif span:
        raise _wrong("--timeline", "is written into the run folder; with --json or --arms expected --out DIR")
    shown = _arms(loaded, arms.split(","), check, json) if arms else ""
    if folder or not arms:
        from simulator.experiments.run import run_scenario

        with progress(quiet, context.obj) as report:
            result = run_scenario(loaded, check=check, progress=report, timeline=span)
        shown = shown or _summary(result.summary, folder, json)
        context.obj.check()
        if folder:
            store.write_run(result, folder)
    show(shown)


def _window(timeline: bool, window: str | None) -> tuple[float, float] | None:
    from math import inf

    from simulator.units import parse

    if window is None:
        return (0.0, inf) if timeline else None
    if not timeline:
        raise _wrong("--window", "is of the timeline; expected --timeline as well")
    begin, _, end = window.partition(",")
    try:
        found = parse(begin.strip(), "time"), parse(end.strip(), "time")
    except ValueError as error:
        raise _wrong("--window", f"{error}; a window is 'FROM,TO', for example '100 s,130 s'") from error
    if not found[0] < found[1]:
        raise _wrong("--window", f"'{window}' ends before it begins; expected for example '100 s,130 s'")
    return found


def _wrong(option: str, message: str) -> Exception:
    from simulator.errors import InputError, Problem

    return InputError(Problem(option, "", message))


def _load(scenario: Path, settings: list[str] | None, seed: int | None = None) -> Scenario:
    from simulator.scenario import Scenario

    seeds = [] if seed is None else [f"seed={seed}"]
    return Scenario.load(scenario, set=[*(settings or []), *seeds])


def _arms(scenario: Scenario, names: list[str], check: bool, json: bool) -> str:
    from simulator.experiments.arms import run_arms

    rows = run_arms(scenario, [name.strip() for name in names], check)
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
def schema(study: Annotated[bool, typer.Option("--study", help="of a study file")] = False) -> None:
    """The JSON schema of a scenario file (or a study), for editors."""
    from simulator.experiments.studies.schema import study_schema
    from simulator.scenario.schema import json_schema

    show(as_json(study_schema() if study else json_schema()))


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
        if kind == "kv_systems":
            show(_systems(name, json))
            return
        rows = _catalog_rows(kind, name)
    except UnknownName as error:
        raise InputError(Problem("catalog", "", error.message, error.hint)) from error
    show(as_json({"rows": rows}) if json else as_table(rows))


def _systems(name: str | None, json: bool) -> str:
    """KV systems have more to say than values: what they do, what was published, what is not known."""
    from simulator.catalog import load
    from simulator.cli import kv_systems

    if name is None:
        rows = kv_systems.listing()
        return as_json({"rows": rows}) if json else as_table(kv_systems.brief(rows))
    entry = load("kv_systems", name)
    return as_json(kv_systems.document(entry)) if json else kv_systems.explained(entry)


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
    model: Annotated[str, typer.Option(help="a model of the catalogue, or a Hugging Face config.json", show_default=False)],
    tp: Annotated[int, typer.Option(min=1, help="tensor-parallel GPUs")] = 1,
    pp: Annotated[int, typer.Option(min=1, help="pipeline stages")] = 1,
    ep: Annotated[int, typer.Option(min=1, help="GPUs that whole experts are dealt out over; 1: cut like all weights")] = 1,
    batch: Annotated[
        int | None, typer.Option(min=0, help="decodes; default: 1, or 0 with --prefill", show_default=False)
    ] = None,
    context: Annotated[int, typer.Option(min=1, help="tokens that each decode reads")] = 1024,
    prefill: Annotated[int, typer.Option(min=0, help="prompt tokens in the step")] = 0,
    past: Annotated[int, typer.Option(min=0, help="tokens of that prompt which are cached")] = 0,
    weights: Annotated[str | None, typer.Option(help="bf16, fp16, fp8, int8, int4", show_default=False)] = None,
    kv: Annotated[str | None, typer.Option(help="precision of KV: the same", show_default=False)] = None,
    json: Json = False,
) -> None:
    """GPU time of one step, operator by operator (no host overhead)."""
    from simulator.experiments.steptime import step_model
    from simulator.experiments.steptime import steptime as apart

    decodes = batch if batch is not None else int(prefill == 0)
    steps = step_model(gpu, model, tp, None, None, pp, ep, weights, kv)
    found = apart(steps, decodes, context, prefill, past)
    if json:
        show(as_json(found))
    else:
        from simulator.experiments.render import seconds
        from simulator.experiments.uncalibrated import warning

        said = [f"step {seconds(found['step_s'])}, bound by {found['bound']}", warning(steps.gpu)]
        show(as_table(found["operators"]) + "".join(f"{line}\n" for line in said if line))


@app.command()
def validate(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="your measurements; default: those of the package", show_default=False),
    ] = None,
    vllm: Annotated[
        Path | None,
        typer.Option(metavar="DIR_OR_TAR", help="a recorded vLLM run to replay: meta.json, requests.jsonl", show_default=False),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(help="the GPU of --data (default h100-80gb-sxm) or --vllm (default: as recorded)", show_default=False),
    ] = None,
    model_config: Annotated[Path | None, typer.Option(metavar="FILE.json", help="model of --data", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="csv and figure; without it results/validate, with --json none")
    ] = None,
    json: Json = False,
) -> None:
    """Model against measurement: step times, products, power, published serving tables, recorded vLLM runs."""
    from analysis.files import check_folder
    from analysis.validation import output
    from analysis.validation.asked import compared

    folder = out if out or json else output.FOLDER
    if folder:
        check_folder(folder)
    found = compared(data, vllm, gpu, model_config)
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    if context.obj:
        context.obj.check()
    if folder:
        output.write(found.compared, folder)
    if json:
        show(as_json(found.document()))
        return
    for rows in found.tables:
        show(as_table([{key: _rounded(value) for key, value in row.items()} for row in rows]))
    if found.serving:
        from analysis.validation.serving_text import text

        show(text(found.serving, as_table))
    if folder:
        show(f"\nwritten to {folder}\n")


def _rounded(value: Any) -> Any:
    return round(value, 2 if abs(value) >= 1 else 4) if isinstance(value, float) else value


@trace_app.command()
def stats(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a trace, gzipped or not", show_default=False)],
    format: Annotated[str, typer.Option(help="how it is read: auto, azure, csv, mooncake, ... (docs of `traces/`)")] = "auto",
    block: Block = 0,
    skip: Skip = False,
    json: Json = False,
) -> None:
    """Arrivals, token counts, prefix reuse, sessions of a recorded trace, as far as it records them."""
    from simulator.workload.stats import absent, trace_stats

    found = trace_stats(file, format, block, skip)
    missing = dict.fromkeys((name.replace(" ", "_") for name in absent(file, format, block, skip)), "not in trace")
    show(as_json(found | missing) if json else as_table(_flat(found | missing)))


@trace_app.command()
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a trace, gzipped or not", show_default=False)],
    to: Annotated[str, typer.Option("--format", "--to", help="what is written: csv, azure, mooncake, aiperf, ...")] = "csv",
    read_as: Annotated[str, typer.Option("--from", help="how FILE is read")] = "auto",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="default: standard output", show_default=False)] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="the first so many requests", show_default=False)] = None,
    block: Block = 0,
    skip: Skip = False,
) -> None:
    """A recorded trace in another format; what that cannot carry is said."""
    import io

    from simulator.workload.convert import convert as written
    from simulator.workload.read import read_trace

    text = io.StringIO()  # whole before anything is written
    requests = read_trace(file, read_as, limit, block=block, skip=skip)
    for note in [*requests.notes, *written(requests, to, text)]:
        typer.echo(f"note: {note}", err=True)
    if out is None:
        show(text.getvalue())
        return
    try:
        out.write_text(text.getvalue(), encoding="utf-8", newline="")
    except OSError as error:
        raise _wrong("--out", f"cannot be written: {error}") from None


def _flat(document: Mapping[str, Any], above: str = "") -> list[dict[str, Any]]:
    """A nested document as rows: dotted name, value."""
    rows: list[dict[str, Any]] = []
    for key, value in document.items():
        nested = isinstance(value, Mapping)
        rows += _flat(value, f"{above}{key}.") if nested else [{"name": f"{above}{key}", "value": value}]
    return rows
