"""What an analysis sees of a study: values of a metric at its points, and at points of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simulator.experiments.studies.fields import Refused, ScenarioField, scenario_field
from simulator.experiments.studies.load import ONLY_ARM, Study
from simulator.experiments.studies.points import Point
from simulator.experiments.studies.runner import Runner
from simulator.experiments.studies.statistics import Array
from simulator.scenario.source import below

LEVEL = 1e-3  # two arms that differ by less are level, however sure that is
SHORT = 11  # characters of a quantity that is not rounded
Row = dict[str, Any]
Found = tuple[list[Row], list[str]]  # rows, sentences


class View:
    """The points of a study and a runner for more."""

    def __init__(self, study: Study, runner: Runner, points: Sequence[Point], replications: Mapping[str, int]):
        self.study, self.runner, self.points, self.replications = study, runner, points, replications
        self.arms = list(study.arms)
        self.fewest = max(min(replications.values(), default=1), study.file.replications)  # of points of an analysis's own

    def at(self, arm: str, more: Mapping[str, Any]) -> Point:
        """The base of an arm, with settings after the arm's."""
        return Point(self.study, arm, {}, more)

    def run(self, points: Sequence[Point], label: str) -> None:
        self.runner.run([(point, each) for each in range(self.fewest) for point in points], f"{label}: ")

    def values(self, point: Point, metric: str) -> Array:
        """Of each replication; nan where the run failed or has no such value."""
        return self.runner.values(point, metric, range(self.replications.get(point.id, self.fewest)))

    def base_value(self, arm: str, field: ScenarioField) -> float:
        """What an arm's base has at a field, in SI units; Refused where that is no number."""
        base = self.at(arm, {})
        if base.problem:
            raise Refused(base.problem)
        found: Any = base.resolved.document
        for key in field.path.split("."):
            inner = below(found, key)
            if inner is None and key == "bandwidth" and isinstance(found, dict):  # of a link: both directions
                inner = found.get("read_bandwidth")
            found = inner
        if found is None or found == "none":
            raise Refused(f"'{field.path}' has no value in arm '{arm}'")
        return field.number(found)

    def groups(self, *along: str) -> list[tuple[dict[str, float | str], list[Point]]]:
        """Points that differ only in the axes `along` (and in the arm), with their values of the other axes."""
        found: dict[tuple[Any, ...], tuple[dict[str, float | str], list[Point]]] = {}
        for point in self.points:
            others = {path: value for path, value in point.si.items() if path not in along}
            found.setdefault(tuple(others.items()), (others, []))[1].append(point)
        return list(found.values())

    def written(self, values: Mapping[str, float | str]) -> str:
        """Values of axes as people write them: `kv.l1 = 1 GiB, kv.system = none`."""
        return ", ".join(f"{path} = {said(scenario_field(path), value)}" for path, value in values.items())

    def of(self, arm: str) -> str:
        """`of 'pool'`, or nothing where there is one arm only."""
        return f" of '{arm}'" if arm != ONLY_ARM else ""


def said(field: ScenarioField, value: float | str) -> str:
    """A value of an axis as people write it: in full where that is short, else to three digits."""
    if isinstance(value, str):
        return value
    if field.dimension is None:
        return three(value)
    full = str(field.written(value, exact=True))
    return full if len(full) <= SHORT else str(field.written(float(f"{value:.3g}"), exact=True))


def three(value: float) -> str:
    """A number to three digits, without an exponent where that reads."""
    short = float(f"{value:.3g}")
    return f"{short:,.10g}" if 1e-4 <= abs(short) < 1e9 or short == 0 else f"{short:g}"
