"""Runs through the journal: what is there is read, the rest is simulated and written down as it comes.

Everything that needs simulations (sweep, analyses, searches) asks a `Runner`; since it remembers every run, all of them
resume by themselves: a search repeats its decisions from the journal until it reaches the first run that is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.errors import InputError
from simulator.experiments.studies.engines import LOST, Pool, outcomes
from simulator.experiments.studies.journal import Journal
from simulator.experiments.studies.points import Point, Run
from simulator.experiments.studies.worker import Outcome, failed

Report = Callable[[float, str], None]


class Runner:
    """Gives the outcomes of runs, from the journal or from workers."""

    def __init__(self, journal: Journal, workers: Pool, report: Report | None = None):
        self.journal, self.workers, self.report = journal, workers, report
        self.known: dict[str, Outcome] = {}
        self.simulated = 0
        self.check: Callable[[Mapping[str, Any]], None] | None = None  # of the first summary: are all metrics in it?

    @property
    def folder(self) -> Path:
        return self.journal.folder

    def outcome(self, point: Point, replication: int) -> Outcome:
        """Of a run that `run` has seen to."""
        if point.problem:
            return failed(point.problem)
        return self.known[point.run(replication).hash]

    def run(self, wanted: Sequence[tuple[Point, int]], label: str = "") -> None:
        """See to all of these (point, replication)."""
        began, total = time.monotonic(), len(wanted)
        seen: set[str] = set()

        def missing() -> Iterator[Run]:
            """What is not in the journal; resolved while the workers work."""
            nonlocal total
            for point, replication in wanted:
                run = None if point.problem else point.run(replication)
                if run is not None:
                    self.journal.write_point(point)
                if run is None or run.hash in seen or self._known(run.hash):
                    total -= 1
                    continue
                seen.add(run.hash)
                yield run

        for done, (run, outcome) in enumerate(outcomes(self.workers, missing()), 1):
            if outcome["status"] == LOST:
                outcome = {**outcome, "status": "failed"}
            else:
                self.journal.record(run.hash, run.seed, outcome)
            self._learn(run.hash, outcome)
            self.simulated += 1
            if self.report:
                pace = done / max(time.monotonic() - began, 1e-9)
                text = f"{label}{done} of {total} runs, {pace:.3g}/s, {(total - done) / pace:.0f} s left"
                self.report(done / total, text)

    def _known(self, run: str) -> bool:
        """In memory, or in the journal."""
        if run not in self.known and (found := self.journal.outcome(run)) is not None:
            self._learn(run, found)
        return run in self.known

    def _learn(self, run: str, outcome: Outcome) -> None:
        self.known[run] = outcome
        if self.check and outcome["status"] == "finished":
            check, self.check = self.check, None
            check(outcome["summary"])

    def values(self, point: Point, metric: str, replications: Sequence[int]) -> NDArray[np.float64]:
        """A metric of each replication; nan where a run failed or has no such value."""
        return np.array([number(self.outcome(point, each)["summary"], metric) for each in replications], dtype=np.float64)

    def error(self, point: Point) -> str:
        """Why the first replication of a point failed; empty if it did not."""
        found = self.outcome(point, 0)
        return str(found["error"]) if found["status"] != "finished" else ""


def metric_value(summary: Mapping[str, Any] | None, metric: str) -> Any:
    """A dotted key of a summary; None where there is none."""
    found: Any = summary
    for key in metric.split("."):
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return found


def number(summary: Mapping[str, Any] | None, metric: str) -> float:
    found = metric_value(summary, metric)
    return float(found) if isinstance(found, int | float) else float("nan")


def check_metrics(summary: Mapping[str, Any], metrics: Sequence[str], where: str) -> None:
    """InputError for names that are no number of a summary."""
    from simulator.errors import Problem, did_you_mean
    from simulator.experiments.studies.results import flat

    names = [name for name, value in flat(summary).items() if value is None or isinstance(value, int | float)]
    wrong = [name for name in dict.fromkeys(metrics) if name not in names]
    if wrong:
        example = "names such as throughput.output_tokens_per_s, latency.ttft_s.p99"
        message = "is not a number of a run's summary"
        raise InputError([Problem(where, name, message, did_you_mean(name, names) or example) for name in wrong])
