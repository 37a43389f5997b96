"""Run a study: its points, its replications, what they say.

`sweep(STUDY)` may be killed at any moment and called again: it goes on where it was. With `until` each point gets
replications until its interval is narrow enough; how many depends on the results alone, not on the order of their coming.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError, Problem
from simulator.experiments.studies import results
from simulator.experiments.studies.engines import Pool, pool
from simulator.experiments.studies.journal import INSIGHT, ROWS, Journal, default_folder
from simulator.experiments.studies.load import Study, load_study, study_from_dict
from simulator.experiments.studies.points import Point, points
from simulator.experiments.studies.runner import Report, Runner, check_metrics
from simulator.experiments.studies.statistics import needed, precise, t_interval

if TYPE_CHECKING:
    import pandas as pd

FIRST = 5  # replications before `until` is asked
PROBES, PROBE_TIME = 3, 2.0  # runs of an estimate, and the most seconds of each


@dataclass
class SweepResult:
    """What a sweep gives: its folder, a row per replication, what the analyses say."""

    study: Study
    folder: Path
    points: list[Point]
    rows: list[results.Row]
    insight: dict[str, Any] = field(default_factory=dict)
    simulated: int = 0  # runs that were not in the journal

    @cached_property
    def table(self) -> pd.DataFrame:
        """results.parquet."""
        import pandas as pd

        return pd.read_parquet(self.folder / ROWS)

    @property
    def failed(self) -> int:
        return sum(row["status"] != "finished" for row in self.rows)


def load(study: str | Path | Mapping[str, Any] | Study) -> Study:
    if isinstance(study, Study):
        return study
    return study_from_dict(dict(study)) if isinstance(study, Mapping) else load_study(study)


def sweep(
    study: str | Path | Mapping[str, Any] | Study,
    out: str | Path | None = None,
    jobs: int | None = None,
    backend: str = "local",
    scheduler: str | None = None,
    report: Report | None = None,
) -> SweepResult:
    """Run what is missing of a study (a file, or plain data); `jobs` processes, by default one per CPU.

    Raises InputError for a wrong study, or a folder that holds another one.
    """
    loaded = load(study)
    chosen = feasible(loaded)
    with working(loaded, metrics_of(loaded), out, pool(backend, jobs, scheduler), report) as runner:
        replications = dict.fromkeys((point.id for point in chosen), _first(loaded))
        try:
            _replicate(loaded, runner, chosen, replications)
        finally:
            found = write_rows(runner, chosen, replications)
        insight = _insight(loaded, runner, chosen, replications)
        return SweepResult(loaded, runner.folder, chosen, found, insight, runner.simulated)


@contextmanager
def working(
    study: Study, metrics: Sequence[str], out: str | Path | None, workers: Pool, report: Report | None
) -> Iterator[Runner]:  # fmt: skip
    """A runner of the study in its folder; the first summary must have all of `metrics`."""
    journal = Journal(Path(out) if out else default_folder(study), study)
    try:
        journal.open()
        runner = Runner(journal, workers, report)
        runner.check = lambda summary: check_metrics(summary, metrics, study.name)
        yield runner
    finally:
        workers.close()
        journal.close()


def write_rows(runner: Runner, chosen: Sequence[Point], replications: Mapping[str, int]) -> list[results.Row]:
    """The rows of what is known of these points; results.parquet, unless there are none."""
    found = list(results.rows(runner, chosen, replications))
    if found:
        with runner.journal.replacing(ROWS) as new:
            results.write_table(new, found, results.OWN)
    return found


def feasible(study: Study) -> list[Point]:
    """The points of a study; InputError if there are none, or none that is a scenario."""
    chosen = points(study)
    if not chosen:
        raise InputError(Problem(study.name, "when", "leaves no point"))
    if all(point.problem for point in chosen):
        _ = chosen[0].resolved  # raises, with the places of what is wrong
    return chosen


def metrics_of(study: Study) -> list[str]:
    """Every summary key that the study asks for."""
    file, found = study.file, list(study.file.metrics)
    if file.until:
        found.append(file.until.metric)
    for name in type(file.analyses).model_fields:
        section = getattr(file.analyses, name)
        found += [*getattr(section, "metrics", ()), *filter(None, [getattr(section, "metric", None)])]
    return list(dict.fromkeys(found))


def _first(study: Study) -> int:
    return max(FIRST, study.file.replications) if study.file.until else study.file.replications


def _replicate(study: Study, runner: Runner, chosen: Sequence[Point], replications: dict[str, int]) -> None:
    """Runs until every point has its replications."""
    open_points = list(chosen)
    while open_points:
        most = max(replications[point.id] for point in open_points)
        runner.run([(point, each) for each in range(most) for point in open_points if each < replications[point.id]])
        until = study.file.until
        if until is None:
            return
        still = []
        for point in open_points:
            done = replications[point.id]
            found = t_interval(runner.values(point, until.metric, range(done)))
            if found.n and not precise(found, until.precision) and done < until.most:
                replications[point.id] = min(until.most, max(done + 1, needed(found, until.precision)))
                still.append(point)
        open_points = still


def _insight(study: Study, runner: Runner, chosen: Sequence[Point], replications: Mapping[str, int]) -> dict[str, Any]:
    from simulator.experiments.studies.insight import analyse

    insight, tables = analyse(study, runner, chosen, replications)
    if insight["analyses"]:
        from simulator.experiments.store import to_json

        for name, rows in tables.items():
            with runner.journal.replacing(f"insight/{name}.parquet") as new:
                results.write_table(new, rows, {})
        runner.journal.write(INSIGHT, to_json(insight))
        return json.loads(to_json(insight))  # type: ignore[no-any-return]
    return insight


def estimate(study: Study, workers: int) -> dict[str, Any]:
    """Points, runs and the time they will take, from up to `PROBES` runs that are cut off after `PROBE_TIME`."""
    chosen = feasible(study)
    valid = [point for point in chosen if not point.problem]
    distinct = {point.run(each).hash for point in valid for each in range(_first(study))}
    picked = [valid[round(share * (len(valid) - 1) / max(PROBES - 1, 1))] for share in range(PROBES)]
    seconds = [_probe(point) for point in {point.id: point for point in picked}.values()]
    mean = sum(seconds) / len(seconds)
    return {
        "points": len(chosen),
        "refused": len(chosen) - len(valid),
        "replications": _first(study),
        "runs": len(distinct),
        "seconds_per_run": mean,
        "workers": workers,
        "seconds": mean * len(distinct) / workers,
        "at_least": study.file.until is not None,
    }


class _Enough(Exception):
    """A probe has run for long enough."""


def _probe(point: Point) -> float:
    """Seconds of one run; what is left of a long one is extrapolated from the share of requests that have ended."""
    from simulator.experiments.run import run_scenario

    began, share = time.perf_counter(), 0.0

    def look(done: float, _: str) -> None:
        nonlocal share
        share = done
        if time.perf_counter() - began > PROBE_TIME and done > 0:
            raise _Enough

    try:
        run_scenario(point.run(0).scenario(), progress=look)
    except _Enough:
        return (time.perf_counter() - began) / share
    except Exception:  # a run that fails is a row of the sweep, not the end of an estimate
        pass
    return time.perf_counter() - began
