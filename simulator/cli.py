"""The command line: one thin command per job, each importing what it needs when it runs.

Exit codes: 0 done; 1 a bug or an invariant broken; 2 wrong input (one message, nothing written); 130 interrupted.
Results go to standard output, all else to standard error. Typer is used without rich: help has to be quick.
"""

from __future__ import annotations

import sys

INTERRUPTED = "interrupted; nothing was written"

try:
    import os
    import signal
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import contextmanager
    from math import inf
    from pathlib import Path
    from time import monotonic
    from typing import TYPE_CHECKING, Annotated, Any, NoReturn

    import typer
    from typer.core import TyperGroup
except KeyboardInterrupt:  # imports take a tenth of a second: long enough for Ctrl-C
    sys.stderr.write(f"{INTERRUPTED}\n")
    raise SystemExit(130) from None

ARMS = ("none", "next_layer", "oracle")
REPORT_EVERY = 5.0  # s between lines of progress, where there is no terminal to draw a bar on

if TYPE_CHECKING:
    from simulator.scenario import Scenario

Report = Callable[[float, str], None]


class Interrupt:
    """Ctrl-C, and the memory of it: compiled modules swallow a KeyboardInterrupt that comes while they are imported."""

    def __init__(self) -> None:
        self.seen = False

    def __call__(self, *_: Any) -> NoReturn:
        self.seen = True
        raise KeyboardInterrupt

    def check(self) -> None:
        if self.seen:
            raise KeyboardInterrupt


class Program(TyperGroup):
    """Turns what a command raises into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except Exception as error:
            _explain_failure(error)


def _explain_failure(error: Exception) -> NoReturn:
    from simulator.errors import InputError

    if type(error).__module__.partition(".")[0] in ("typer", "click"):  # usage errors and exits
        raise error
    if isinstance(error, InputError):
        _end(2, str(error))
    if os.environ.get("SPECKVSIM_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    from simulator.metrics.invariants import InvariantError

    if isinstance(error, InvariantError):
        _end(1, str(error))
    what = " ".join(str(error).split())
    _end(1, f"bug: {type(error).__name__}: {what}; run again with SPECKVSIM_DEBUG=1 for the traceback")


def _end(code: int, message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code) from None


def _print(text: str) -> None:
    sys.stdout.write(text)


def _json(document: Any) -> str:
    from simulator.experiments.store import to_json

    return to_json(document)


SETTINGS: dict[str, Any] = {"rich_markup_mode": None, "no_args_is_help": True, "add_completion": False}
app = typer.Typer(
    cls=Program,
    pretty_exceptions_enable=False,
    help="Will a disaggregated, compressed, speculatively prefetched KV-cache pay off? Simulate it.",
    **SETTINGS,
)
trace_app = typer.Typer(help="Recorded request traces.", **SETTINGS)
app.add_typer(trace_app, name="trace")

ScenarioFile = Annotated[Path, typer.Argument(metavar="SCENARIO", help="a scenario file (YAML)", show_default=False)]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a field (repeatable): 'kv.l2=1 GiB'")
]
Json = Annotated[bool, typer.Option("--json", help="the same as one JSON document")]


def _version(wanted: bool) -> None:
    if wanted:
        from simulator import __version__

        typer.echo(f"speckvsim {__version__}")
        raise typer.Exit()


@app.callback()
def speckvsim(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="the version, and nothing else")
    ] = False,
) -> None:
    """Options of every command."""


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

        with _progress(quiet, context.obj) as report:
            result = run_scenario(loaded, check=check, progress=report)
        shown = shown or _summary(result.summary, folder, json)
        context.obj.check()
        if folder:
            store.write_run(result, folder)
    _print(shown)


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
        return _json({"arms": rows})
    from simulator.experiments.render import arms_text

    return arms_text(rows)


def _summary(summary: dict[str, Any], folder: Path | None, json: bool) -> str:
    if json:
        return _json(summary)
    from simulator.experiments.render import summary_text

    return summary_text(summary, folder)


@contextmanager
def _progress(quiet: bool, interrupt: Interrupt) -> Iterator[Report]:
    """Something to tell progress to (share done, text): a bar on a terminal, else a line every few seconds."""

    def checked(show: Report) -> Report:
        def report(done: float, text: str) -> None:
            interrupt.check()
            show(done, text)

        return report

    if quiet:
        yield checked(lambda done, text: None)
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), TextColumn("{task.description}", markup=False), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("starting", total=1.0)
            yield checked(lambda done, text: bar.update(task, completed=done, description=text))
    else:
        yield checked(_line_by_line())


def _line_by_line() -> Report:
    told = -inf

    def report(done: float, text: str) -> None:
        nonlocal told
        if monotonic() - told >= REPORT_EVERY:
            told = monotonic()
            typer.echo(f"{done:4.0%}  {text}", err=True)

    return report


@app.command()
def explain(scenario: ScenarioFile, set: Set = None, json: Json = False) -> None:
    """The resolved scenario: every value with its source; capacities, paths, bounds, warnings."""
    from simulator.experiments.explain import explain as found
    from simulator.experiments.explain_text import render

    explained = found(_load(scenario, set))
    _print(_json(explained) if json else render(explained))


@app.command()
def schema() -> None:
    """The JSON schema of a scenario file, for editors."""
    from simulator.scenario.schema import json_schema

    _print(_json(json_schema()))


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
    _print(_json({"rows": rows}) if json else _table(rows))


def _catalog_rows(kind: str | None, name: str | None) -> list[dict[str, Any]]:
    from simulator.catalog import kinds, load, names

    if kind is None:
        return [{"kind": each, "entries": len(names(each))} for each in kinds()]
    if name is None:
        return [{"name": each, "title": load(kind, each).title} for each in names(kind)]
    entry = load(kind, name)
    return [{"field": field, "value": value, "source": entry.sources[field]} for field, value in entry.values.items()]


def _table(rows: list[dict[str, Any]]) -> str:
    from simulator.experiments.render import table

    return table(rows)


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
        _print(_json(found))
    else:
        from simulator.experiments.render import seconds

        _print(_table(found["operators"]) + f"step {seconds(found['step_s'])}, bound by {found['bound']}\n")


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
    _print(_json({"rows": rows}) if json else _table([{key: _rounded(value) for key, value in row.items()} for row in rows]))


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
    _print(_json(found) if json else _table(_flat(found)))


def _flat(document: Mapping[str, Any], above: str = "") -> list[dict[str, Any]]:
    """A nested document as rows: dotted name, value."""
    rows: list[dict[str, Any]] = []
    for key, value in document.items():
        nested = isinstance(value, Mapping)
        rows += _flat(value, f"{above}{key}.") if nested else [{"name": f"{above}{key}", "value": value}]
    return rows


def main() -> None:
    """The `speckvsim` command, the last thing its process does."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal cannot show must not end a run
            stream.reconfigure(errors="replace")
    interrupt = Interrupt()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started us wants it ignored
        signal.signal(signal.SIGINT, interrupt)
    try:
        app(prog_name="speckvsim", obj=interrupt)
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            _interrupted()
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Python takes a while to exit, and what is done is done


def _interrupted() -> NoReturn:
    sys.stderr.write(f"{INTERRUPTED}\n")
    raise SystemExit(130) from None


if __name__ == "__main__":
    main()
