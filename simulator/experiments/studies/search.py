"""Run the `search` of a study: a capacity, the cheapest design, or a front; resumes like a sweep.

Every design that is named in the answer is a scenario in points/. search.json has the rows and sentences,
results.parquet a row per simulated replication.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.errors import InputError, Problem
from simulator.experiments.studies.capacity import capacity
from simulator.experiments.studies.cheapest import cheapest
from simulator.experiments.studies.engines import pool
from simulator.experiments.studies.front import front
from simulator.experiments.studies.journal import SEARCH
from simulator.experiments.studies.load import Study
from simulator.experiments.studies.points import Point
from simulator.experiments.studies.requirements import Requirements
from simulator.experiments.studies.runner import Report
from simulator.experiments.studies.sweep import feasible, load, working, write_rows
from simulator.experiments.studies.view import Found, Row, View

SEARCHES: dict[str, Callable[[View, Any, list[Point], dict[str, int]], Found]] = {
    "capacity": capacity,
    "cheapest": cheapest,
    "front": front,
}


@dataclass
class SearchResult:
    """What a search found: rows, sentences, and the folder with its designs."""

    study: Study
    kind: str
    folder: Path
    rows: list[Row]
    sentences: list[str]
    simulated: int


def search(
    study: str | Path | Mapping[str, Any] | Study,
    out: str | Path | None = None,
    jobs: int | None = None,
    backend: str = "local",
    scheduler: str | None = None,
    report: Report | None = None,
) -> SearchResult:
    """Answer the study's `search`; InputError where it has none."""
    loaded = load(study)
    if loaded.file.search is None:
        message = "has no search: section; write for example search: {capacity: {rate: ..., require: [...]}}"
        raise InputError(Problem(loaded.name, "search", message, "`speckvsim sweep` runs a study without one"))
    kind = next(name for name in SEARCHES if getattr(loaded.file.search, name) is not None)
    asked = getattr(loaded.file.search, kind)
    chosen = feasible(loaded)
    evaluated: list[Point] = []
    replications: dict[str, int] = {}
    with working(loaded, _metrics(asked), out, pool(backend, jobs, scheduler), report) as runner:
        view = View(loaded, runner, chosen, dict.fromkeys((point.id for point in chosen), loaded.file.replications))
        rows, sentences = SEARCHES[kind](view, asked, evaluated, replications)
        write_rows(runner, list({point.id: point for point in evaluated}.values()), replications)
        from simulator.experiments.store import to_json

        text = to_json({"search": kind, "rows": rows, "sentences": sentences})
        runner.journal.write(SEARCH, text)
        return SearchResult(loaded, kind, runner.folder, json.loads(text)["rows"], sentences, runner.simulated)


def _metrics(asked: Any) -> list[str]:
    """Summary keys that a search asks for."""
    required = Requirements(asked.require).metrics if asked.require else []
    objectives = list(getattr(asked, "objectives", {}))
    return [*required, *objectives, *filter(None, [getattr(asked, "cost", None)])]
