"""A study file -> a checked `Study`. Every problem is found in one pass, with its line; nothing has run by then.

Checked here: the sections (`schema`), every path and value of axes, arms and analyses against the scenario's schema,
expressions, names of axes and arms, and that the base itself is a scenario. Whether a single combination is possible
(L1 too large for this GPU) is found when its point is resolved, and recorded with that point.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from simulator.errors import InputError, Problem, did_you_mean
from simulator.experiments.studies.axes import Axis, axis, unequal
from simulator.experiments.studies.expression import Expression, unknown_name
from simulator.experiments.studies.fields import Refused, scenario_field
from simulator.experiments.studies.schema import Search, StudyFile
from simulator.scenario.document import to_yaml
from simulator.scenario.messages import problems_of
from simulator.scenario.overrides import assign
from simulator.scenario.resolve import resolve
from simulator.scenario.resolved import ScenarioResolved
from simulator.scenario.source import Place, Source, Where
from simulator.scenario.yaml_source import read_file

Settings = Mapping[str, tuple[Any, Place]]  # path -> value and where it was written
ONLY_ARM = "base"  # the name of the arm where a study names none


@dataclass(frozen=True)
class Study:
    """A checked study; `document` is all of it as plain data, the base included."""

    file: StudyFile
    document: dict[str, Any]
    base: Source
    folder: str  # where relative paths start
    axes: dict[str, Axis]
    arms: dict[str, Settings]
    places: dict[str, Place]  # of each axis
    when: Expression | None
    resolved: ScenarioResolved  # the base

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def seed(self) -> int:
        return self.resolved.seed if self.file.seed is None else self.file.seed

    def to_yaml(self) -> str:
        return to_yaml(self.document)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()

    def resolve(self, settings: Settings) -> ScenarioResolved:
        """The base with `settings`, in their order; InputError where that is no scenario."""
        source = _copy(self.base)
        for path, (value, place) in settings.items():
            assign(source, tuple(path.split(".")), deepcopy(value), place)
        return resolve(source, self.folder)


def load_study(path: str | Path) -> Study:
    """Read and check a study file."""
    source = read_file(path)
    if "base" not in source.data and {"workload", "model"} <= source.data.keys():
        raise InputError(
            Problem(str(path), "", "is a scenario; expected a study: base, axes", "`speckvsim run` takes scenarios")
        )
    return _study(source, os.path.dirname(os.path.abspath(path)))


def study_from_dict(values: dict[str, Any], base_dir: str | Path = ".") -> Study:
    """The same from plain data; relative paths start at `base_dir`."""
    source = Source(deepcopy(values), Place("study"))
    for key in source.data:
        source.note((key,), Place("study"))
    return _study(source, os.path.abspath(base_dir))


def _study(source: Source, folder: str) -> Study:
    problems = list(source.problems)
    file = _sections(source, problems)
    base, resolved = _base(source, file, folder, problems) if file.base is not None else (None, None)
    tried = _Tried(source, problems)
    axes = {
        path: found
        for path, spec in file.axes.items()
        if (found := tried(("axes", path), partial(_axis, file, path, spec))) is not None
    }
    arms = {arm: _settings(source, ("arms", arm), values, tried) for arm, values in file.arms.items()} or {ONLY_ARM: {}}
    if file.combine == "zip" and (lengths := unequal(axes)):
        listing = ", ".join(f"{path} has {count}" for path, count in lengths.items())
        problems.append(source.problem(("combine",), f"zip needs axes of one length; {listing}"))
    when = tried(("when",), lambda: Expression(file.when or "")) if file.when else None
    _analyses(file, source, axes, arms, tried)
    if file.search:
        _search(file, file.search, axes, tried)
    if problems or base is None or resolved is None:
        raise InputError(problems)
    values = with_absolute_paths({**source.data, "base": base.data}, folder)
    return Study(file, values, base, folder, axes, arms, {path: source.place(("axes", path)) for path in axes}, when, resolved)


def _sections(source: Source, problems: list[Problem]) -> StudyFile:
    """The file; what is wrong with a section becomes a problem, and the section is left out of the further checks."""
    try:
        return StudyFile.model_validate(source.data)
    except ValidationError as error:
        problems += problems_of(error, source, StudyFile)
        wrong = {str(item["loc"][0]) for item in error.errors() if item["loc"]} or {"combine", "n"}
    rest = {key: value for key, value in source.data.items() if key not in wrong}
    try:
        return StudyFile.model_validate({"name": "study", "base": None, **rest})
    except ValidationError:
        raise InputError(problems) from None


class _Tried:
    """Runs a check; what it refuses becomes a problem at a place of the study."""

    def __init__(self, source: Source, problems: list[Problem]):
        self.source, self.problems = source, problems

    def __call__(self, path: Where, check: Callable[[], Any]) -> Any:
        try:
            return check()
        except Refused as refused:
            self.problems.append(self.source.problem(path, str(refused), refused.hint))
            return None


def _base(
    source: Source, file: StudyFile, folder: str, problems: list[Problem]
) -> tuple[Source | None, ScenarioResolved | None]:
    """The base as written, with absolute paths; and resolved, which checks it."""
    at = folder
    try:
        if isinstance(file.base, str):
            name = os.path.join(folder, file.base)
            base = read_file(os.path.relpath(name) if not os.path.isabs(file.base) else name)
            at = os.path.dirname(os.path.abspath(name))
        elif isinstance(file.base, dict):
            base = Source(deepcopy(file.base), source.place(("base",)))
            base.values = {path[1:]: place for path, place in source.values.items() if path[:1] == ("base",)}
            base.keys = {path[1:]: place for path, place in source.keys.items() if path[:1] == ("base",)}
        else:
            problems.append(source.problem(("base",), "expected a scenario file or a scenario"))
            return None, None
        base.data = with_absolute_paths(base.data, at)
        return base, resolve(_copy(base), at)
    except InputError as error:
        problems.extend(error.problems)
        return None, None


def with_absolute_paths(value: Any, folder: str) -> Any:
    """A copy of plain data in which names of existing files (traces, tensors) do not depend on the folder."""
    if isinstance(value, dict):
        return {key: with_absolute_paths(inner, folder) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_absolute_paths(inner, folder) for inner in value]
    if isinstance(value, str) and "." in value and os.path.isfile(os.path.join(folder, value)):
        return os.path.abspath(os.path.join(folder, value))
    return value


def _copy(source: Source) -> Source:
    places = dict(source.keys), dict(source.values), dict(source.spoken)
    return Source(deepcopy(source.data), source.whole, *places, list(source.problems))


def _axis(file: StudyFile, path: str, spec: Any) -> Axis:
    if path == "seed":
        raise Refused("seed is no axis; write replications: so many, which gives every point and arm the same seeds")
    sampled = file.combine in ("random", "lhs", "sobol")
    return axis(scenario_field(path), spec, sampled)


def _settings(source: Source, at: Where, values: dict[str, Any], tried: _Tried) -> Settings:
    def check(path: str, value: Any) -> None:
        if path == "seed":
            raise Refused("seed is the same for all arms; write seed: beside arms:")
        scenario_field(path).check(value)

    for path, value in values.items():
        tried((*at, path), partial(check, path, value))
    return {path: (value, source.place((*at, path))) for path, value in values.items()}


def _analyses(file: StudyFile, source: Source, axes: Mapping[str, Axis], arms: Mapping[str, Settings], tried: _Tried) -> None:
    found = file.analyses
    sections = {name: getattr(found, name) for name in type(found).model_fields}
    for name, section in sections.items():
        parameters = getattr(section, "parameters", None)
        if parameters is not None:
            for path in parameters:
                ends = parameters[path] if isinstance(parameters, dict) else ()
                tried(("analyses", name, "parameters", path), partial(_parameter, path, ends))
        for key in ("axis", "x", "y"):
            path = getattr(section, key, None)
            if path is not None:
                tried(("analyses", name, key), partial(_known_axis, path, axes, name == "break_even"))
    if found.break_even is not None:
        tried(("analyses", "break_even"), lambda: _two_arms(found.break_even.arms or tuple(arms)[:2], arms))  # type: ignore[union-attr]
    if found.regime_map is not None and len(arms) < 2:
        tried(("analyses", "regime_map"), lambda: _two_arms((), arms))


def _parameter(path: str, ends: tuple[Any, ...]) -> None:
    field = scenario_field(path)
    if field.kind is None:
        raise Refused(f"'{path}' is not a number")
    numbers = [field.number(end) for end in ends]
    if numbers and numbers[0] >= numbers[1]:
        raise Refused(f"expected [low, high] with low below high, found [{ends[0]}, {ends[1]}]")


def _known_axis(path: str, axes: Mapping[str, Axis], numeric: bool) -> None:
    if path not in axes:
        known = f"axes: {', '.join(axes) or 'none'}"
        raise Refused(f"'{path}' is not an axis of this study", did_you_mean(path, axes) or known)
    if numeric:
        for value in axes[path].values:
            axes[path].field.number(value)


def _two_arms(names: tuple[str, ...], arms: Mapping[str, Settings]) -> None:
    for name in names:
        if name not in arms:
            raise unknown_name(name, arms)
    if len(names) != 2:
        raise Refused("needs two arms", "write for example arms: {pool: {}, gpu_only: {cluster.kv_pool: none}}")


def _search(file: StudyFile, search: Search, axes: Mapping[str, Axis], tried: _Tried) -> None:
    capacity, cheapest, front = search.capacity, search.cheapest, search.front
    if capacity is not None:
        ends = tuple(end for end in (capacity.low, capacity.high) if end is not None)
        tried(("search", "capacity", "rate"), lambda: _parameter(capacity.rate, ends))
    for name, section in (("capacity", capacity), ("cheapest", cheapest), ("front", front)):
        for text in (getattr(section, "require", None) or ()) if section else ():
            tried(("search", name, "require"), partial(_requirement, text))
    if (cheapest or front) and not axes and not file.arms:
        tried(("search",), lambda: _no_designs())


def _requirement(text: str) -> None:
    Expression(text).comparison()


def _no_designs() -> None:
    raise Refused("there is nothing to choose from; write axes: or arms:")
