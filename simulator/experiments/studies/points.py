"""Points and runs of a study.

A *point* is one combination of axis values in one arm; its id is a hash of both, the name of its file in `points/`.
A *run* is one resolved scenario with one seed; its hash covers every resolved value (not the name), the content of the
traces and the version of the simulator, so identical points are run once and a change of any of these runs anew.

Common random numbers: replication r has the same seed at every point and in every arm. Replication 0 has the study's
own seed, so that a point's file reproduces its row; the others are derived from (seed, r).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from simulator import __version__
from simulator.errors import InputError, Problem
from simulator.experiments.studies.axes import combined
from simulator.experiments.studies.expression import Value, unknown_name
from simulator.experiments.studies.fields import Refused, scenario_field
from simulator.experiments.studies.load import Settings, Study
from simulator.scenario import Scenario
from simulator.scenario.resolved import ScenarioResolved
from simulator.scenario.source import Place, below

HASH = 16  # hex digits


@dataclass(frozen=True)
class Point:
    """One combination of axis values in one arm."""

    study: Study
    arm: str
    values: Mapping[str, Any]  # axis path -> value as written
    more: Mapping[str, Any]  # settings of an analysis or a search, after the arm's

    @cached_property
    def si(self) -> dict[str, float | str]:
        """Axis path -> value for a column."""
        return {path: self.study.axes[path].field.si(value) for path, value in self.values.items()}

    @cached_property
    def id(self) -> str:
        return _hash([self.arm, self.si, {path: str(value) for path, value in self.more.items()}])

    @property
    def settings(self) -> Settings:
        places = self.study.places
        axes = {path: (value, places[path]) for path, value in self.values.items()}
        arm = dict(self.study.arms[self.arm])
        for path in [path for path in axes if path in arm]:  # the arm has the last word, and is applied last
            del axes[path]
        more = {path: (value, Place("this search")) for path, value in self.more.items()}
        return axes | arm | more

    @cached_property
    def resolved(self) -> ScenarioResolved:
        """The scenario with the seed of replication 0; InputError where the values do not go together."""
        return _seeded(self.study.resolve(self.settings), self.study.seed)

    @cached_property
    def problem(self) -> str:
        """Why this point is no scenario; empty if it is one."""
        try:
            _ = self.resolved
        except InputError as error:
            return "; ".join(
                f"{problem.field}: {problem.message}" for problem in error.problems
            )  # no place: rows are the same anywhere
        return ""

    @cached_property
    def _content(self) -> dict[str, Any]:
        return _content_of(self.resolved)

    def run(self, replication: int) -> Run:
        seed = replication_seed(self.study.seed, replication)
        return Run(_hash({**self._content, "seed": seed}), seed, self)


@dataclass(frozen=True)
class Run:
    """One simulation."""

    hash: str
    seed: int
    point: Point

    def scenario(self) -> Scenario:
        resolved = self.point.resolved
        return Scenario(replace(_seeded(resolved, self.seed), sources={}))


def points(study: Study) -> list[Point]:
    """Every point of the study, arms side by side; those that `when` leaves out are gone."""
    kept: dict[str, Point] = {}
    for values in combined(list(study.axes.values()), study.file.combine, study.file.n, study.seed):
        for arm in study.arms:
            point = Point(study, arm, values, {})
            if wanted(study, point):
                kept.setdefault(point.id, point)  # the same values written twice are one point
    return list(kept.values())


def wanted(study: Study, point: Point) -> bool:
    """What `when` says of a point."""
    if study.when is None:
        return True

    def lookup(name: str) -> Value:
        if name == "arm":
            return point.arm
        arm = study.arms[point.arm]
        if name in arm:
            return scenario_value(name, arm[name][0])
        if name in point.si:
            return point.si[name]
        found: Any = study.resolved.document
        for key in name.split("."):
            found = below(found, key)
        if found is None or isinstance(found, dict):
            raise unknown_name(name, ["arm", *point.si, *arm])
        return scenario_value(name, found)

    try:
        return bool(study.when(lookup))
    except Refused as refused:
        raise InputError(Problem(study.name, "when", str(refused), refused.hint)) from None


def scenario_value(path: str, value: Any) -> float | str:
    """A field's value in SI units."""
    return scenario_field(path).si(value)


def replication_seed(seed: int, replication: int) -> int:
    """The seed of a replication; below 2^53, so that every reader of numbers keeps it."""
    if replication == 0:
        return seed
    return int.from_bytes(hashlib.blake2s(f"{seed}/{replication}".encode()).digest()[:8]) >> 11


def _seeded(resolved: ScenarioResolved, seed: int) -> ScenarioResolved:
    return replace(resolved, seed=seed, document={**resolved.document, "seed": seed})


def _content_of(resolved: ScenarioResolved) -> dict[str, Any]:
    values = asdict(replace(resolved, sources={}, document={}))
    for key in ("name", "seed", "sources", "document"):
        del values[key]
    work = values["workload"]
    for holder, key in ((work, "path"), (work["input"] or {}, "trace"), (work["output"] or {}, "trace")):
        if holder.get(key):
            stat = Path(holder[key]).stat()
            holder[key] = _digest(holder[key], stat.st_mtime_ns, stat.st_size)
    return {**values, "version": __version__}


@lru_cache(maxsize=64)
def _digest(path: str, modified: int, size: int) -> str:
    """SHA-256 of a file; read again when its time or size has changed."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:HASH]
