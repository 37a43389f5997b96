"""A resolved part as plain data in human units, by the kinds of value that its section of the schema has."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from simulator.scenario.parts import Section
from simulator.scenario.quantities import Quantity, Tokens
from simulator.units import format_quantity


def plain(section: type[Section], value: Any) -> dict[str, Any]:
    """The fields of a dataclass that `section` has, in the units of `section`."""
    names = [field.name for field in fields(value) if field.name in section.model_fields]
    found = {name: human(section, name, getattr(value, name)) for name in names if name != "link"}
    return {name: held for name, held in found.items() if held is not None}


def human(section: type[Section], name: str, value: Any) -> Any:
    for kind in section.model_fields[name].metadata:
        if isinstance(kind, Quantity):
            return format_quantity(value, kind.dimension)
        if isinstance(kind, Tokens):
            return format_quantity(value, "tokens")
    return value
