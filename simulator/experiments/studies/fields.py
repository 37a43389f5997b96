"""What a scenario field holds, by its dotted path: how its values are read, and what they are in SI units.

The scenario's own schema is walked, so a field that the schema gains is known here at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticCustomError

from simulator import catalog
from simulator.errors import did_you_mean
from simulator.scenario.parts import Part
from simulator.scenario.quantities import Count, Flag, Number, Quantity, Text, Tokens, shown
from simulator.scenario.schema import ScenarioFile
from simulator.units import format_quantity

Kind = Quantity | Tokens | Number | Count | Text | Flag
SIGNIFICANT = 6  # digits of the values inside a range


class Refused(ValueError):
    """What is wrong with a path or a value; `hint` has the nearest valid name."""

    def __init__(self, message: str, hint: str = ""):
        self.hint = hint
        super().__init__(message)


@dataclass(frozen=True)
class ScenarioField:
    """A field of the scenario: one value of some kind, a section, or both (`cluster.kv_pool.link`)."""

    path: str
    kinds: tuple[Kind, ...]
    sections: tuple[type[BaseModel], ...]

    @property
    def kind(self) -> Kind | None:
        return next(iter(self.kinds), None)

    @property
    def dimension(self) -> str | None:
        if isinstance(self.kind, Tokens):
            return "tokens"
        return self.kind.dimension if isinstance(self.kind, Quantity) else None

    @property
    def whole(self) -> bool:
        return isinstance(self.kind, Tokens | Count)

    def check(self, value: Any) -> None:
        """Refused if one value cannot be read; what depends on other fields is for the scenario to say."""
        if value is None or value == "none" or isinstance(value, dict):
            return
        parts = [section for section in self.sections if issubclass(section, Part)]
        if parts and isinstance(value, str):
            names = catalog.names(parts[0].kind)
            if value not in names:
                hints = did_you_mean(value, names), f"`speckvsim catalog {parts[0].kind}` lists all {len(names)}"
                raise Refused(f"{shown(value)} is not in the catalogue", "   ".join(filter(None, hints)))
        elif self.kind is not None and not self.sections:
            self._read(value)

    def si(self, value: Any) -> float | str:
        """The value for a column: a number in SI units where it is one, else text."""
        if isinstance(value, bool) or value is None or isinstance(value, dict | list):
            return _inline(value)
        if isinstance(self.kind, Quantity | Tokens) and value != "none":
            return float(self._read(value))
        return value if isinstance(value, str) else float(value)

    def number(self, value: Any) -> float:
        """The end of a range; Refused for what is not a finite number."""
        found = self.si(value)
        if isinstance(found, str) or not isfinite(found):
            raise Refused(f"{shown(value)} is not a finite number; a range needs two, and a list takes any values")
        return found

    def written(self, number: float, exact: bool = False) -> Any:
        """A number in SI units as a scenario writes it; numbers inside a range are rounded to six digits."""
        if self.whole:
            number = round(number)
        elif not exact:
            number = float(f"{number:.{SIGNIFICANT}g}")
        if self.dimension is not None:
            return format_quantity(float(number), self.dimension)
        return int(number) if self.whole else number

    def _read(self, value: Any) -> Any:
        assert self.kind is not None
        try:
            return self.kind.read(value)
        except PydanticCustomError as error:
            context = error.context or {}
            raise Refused(error.message(), str(context.get("hint", ""))) from None


def scenario_field(path: str) -> ScenarioField:
    """The field at a dotted path; Refused with the nearest one where there is none."""
    sections: tuple[type[BaseModel], ...] = (ScenarioFile,)
    kinds: tuple[Kind, ...] = ()
    steps, listed, named = path.split("."), False, False
    for depth, key in enumerate(steps):
        if named or (listed and key.isdigit()):  # an entry of a list or by name: the sections stay those of its entries
            listed = named = False
            continue
        names = [name for section in sections for name in _names(section)]
        if key not in names:
            above = ".".join(steps[:depth])
            if not names:
                raise Refused(f"'{above}' is a single value and has no fields below it")
            listing = f"the keys below {above or 'the top'} are: {', '.join(names)}"
            raise Refused(f"'{path}' is not a field of a scenario", did_you_mean(key, names) or listing)
        annotations = [section.model_fields[_spelled(section, key)] for section in sections if key in _names(section)]
        listed, named = (any(get_origin(field.annotation) is kind for field in annotations) for kind in (tuple, dict))
        found = [part for field in annotations for part in (*field.metadata, *_parts(field.annotation))]
        sections = tuple(part for part in found if isinstance(part, type))
        kinds = tuple(part for part in found if not isinstance(part, type) and isinstance(part, Kind))
    return ScenarioField(path, kinds, sections)


def _inline(value: Any) -> str:
    """Plain data on one line: `{kind: budget, tokens: 256 tokens}`."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_inline(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return {True: "true", False: "false", None: "none"}.get(value, str(value)) if isinstance(value, bool | None) else str(value)


def _names(section: type[BaseModel]) -> list[str]:
    bandwidth = ["bandwidth"] if issubclass(section, Part) and section.kind == "links" else []
    return [*section.model_fields, *bandwidth]


def _spelled(section: type[BaseModel], key: str) -> str:
    """`bandwidth` of a link stands for both directions."""
    return key if key in section.model_fields else "read_bandwidth"


def _parts(annotation: Any) -> Iterator[Any]:
    """Section classes and kinds inside an annotation such as `Annotated[float, Quantity(...)] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    yield from (part for part in getattr(annotation, "__metadata__", ()) if isinstance(part, Kind))
    for inner in getattr(annotation, "__args__", ()):
        yield from _parts(inner)
