"""`--set a.b.c=value`: change one value, or a whole section written inline, before anything is checked.

The value follows the rules of the file (`--set kv.l2='1 GiB'`, `--set prefetch='{predictor: none}'`). A path that the
scenario does not know is refused with the nearest name, like a key of the file. Setting a name (`model=NAME`) replaces
what was there; setting a field below a name (`model.layers=16`) overrides that field.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simulator.errors import InputError, Problem
from simulator.scenario.presets import NAMED, name_as_type
from simulator.scenario.source import Place, Source, Where
from simulator.scenario.yaml_source import read_value

_SET = "--set"


def apply(source: Source, settings: Sequence[str]) -> None:
    """Apply each `path=value` in order; what is wrong with one becomes a problem of `source`."""
    for setting in settings:
        try:
            _apply(source, setting)
        except InputError as error:
            source.problems += error.problems


def _apply(source: Source, setting: str) -> None:
    name, equals, text = setting.partition("=")
    path = tuple(name.strip().split("."))
    if not equals or not all(path):
        message = f"'{setting}' is not of the form path=value; write for example kv.l2='1 GiB'"
        raise InputError(Problem(_SET, "", message))
    try:
        value = read_value(text, _SET)
    except InputError as error:
        raise InputError([Problem(_SET, ".".join(path), problem.message) for problem in error.problems]) from None
    assign(source, path, value, Place(_SET))


def assign(source: Source, path: Where, value: Any, place: Place) -> None:
    """Set `path` to plain data that comes from `place`; a name on the way (`model: NAME`) becomes a mapping of that type."""
    for depth in range(1, len(path)):
        if path[:depth] in NAMED and source.get(path[:depth]) != "none":
            name_as_type(source, path[:depth])
        inner = source.get(path[:depth])
        if isinstance(inner, list):
            if not (path[depth].isdigit() and int(path[depth]) < len(inner)):
                above = ".".join(path[:depth])
                message = f"'{above}' is a list of {len(inner)}, counted from 0; it has no '{path[depth]}'"
                raise InputError(Problem(str(place), ".".join(path), message))
            continue
        if inner is not None and not isinstance(inner, dict) and inner != "none":
            above = ".".join(path[:depth])
            raise InputError(Problem(str(place), ".".join(path), f"'{above}' is a single value and has no fields below it"))
    source.put(path, value, place)
