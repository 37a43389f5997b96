"""The program: exit codes, options that several commands share, and where text goes.

Results go to standard output, all else to standard error. Typer is used without rich: help has to be quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

REPORT_EVERY = 5.0  # s between lines of progress, where there is no terminal to draw a bar on

Report = Callable[[float, str], None]


class Interrupt:
    """Ctrl-C, and the memory of it: compiled modules swallow a KeyboardInterrupt that comes while they are imported."""

    def __init__(self, message: str) -> None:
        self.seen = False
        self.message = message  # a command that keeps what is finished says so

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
        end_with(2, str(error))
    if os.environ.get("SPECKVSIM_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    from simulator.metrics.invariants import InvariantError

    if isinstance(error, InvariantError):
        end_with(1, str(error))
    what = " ".join(str(error).split())
    end_with(1, f"bug: {type(error).__name__}: {what}; run again with SPECKVSIM_DEBUG=1 for the traceback")


def end_with(code: int, message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code) from None


def show(text: str) -> None:
    sys.stdout.write(text)


def as_json(document: Any) -> str:
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


def as_table(rows: list[dict[str, Any]]) -> str:
    from simulator.experiments.render import table

    return table(rows)


@contextmanager
def progress(quiet: bool, interrupt: Interrupt) -> Iterator[Report]:
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
