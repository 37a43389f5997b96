"""Reading one entry of the catalogue.

An entry is a file KIND/NAME.yaml: a title and, per field, the value as a person writes it (units are part of it), the
kind of evidence, and the source. Nothing is converted here; `simulator.units` and the scenario do that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from simulator.catalog.fields import FIELDS
from simulator.errors import did_you_mean

Scalar = str | int | float | bool | None
Value = Scalar | dict[int, Scalar]
ABOUT = ("class", "expressible", "partial", "mechanism", "headlines", "quality", "sources")  # what a KV system says besides


class UnknownName(LookupError):
    """No entry (or kind) of that name: `message` says what was looked for, `hint` the nearest and how to list all."""

    def __init__(self, message: str, hint: str):
        self.message, self.hint = message, hint
        super().__init__(f"{message}\n    {hint}")


@dataclass(frozen=True)
class Entry:
    """One thing in the catalogue, as written."""

    kind: str
    name: str
    title: str
    values: dict[str, Value]  # field -> value with its unit; None: left open on purpose
    sources: dict[str, str]  # field -> "evidence; source"
    about: dict[str, Any] = field(default_factory=dict)  # of a KV system: what it does, claims, and lacks

    @property
    def unknown(self) -> list[str]:
        """Fields that nobody published: a scenario has to give them."""
        return [name for name, value in self.values.items() if value is None]


def kinds() -> list[str]:
    """All kinds, sorted: boards, codecs, engines, gpus, ..."""
    return sorted(FIELDS)


def names(kind: str) -> list[str]:
    """Names of all entries of a kind, sorted; UnknownName for an unknown kind."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder(kind).iterdir() if entry.name.endswith(".yaml"))


def load(kind: str, name: str) -> Entry:
    """The entry KIND/NAME; UnknownName with the nearest name if there is none."""
    valid = names(kind)
    if name not in valid:
        near = did_you_mean(name.strip().casefold().replace("_", "-").replace(" ", "-"), valid)
        listing = f"`speckvsim catalog {kind}` lists all {len(valid)}"
        raise UnknownName(f"'{name}' is not a known {_SINGULAR[kind]}", "   ".join(filter(None, (near, listing))))
    document = _document(kind, name)
    cells = document["values"]
    values = {path: cell["value"] for path, cell in cells.items()}
    sources = {path: f"{cell['evidence']}; {cell['source']}" for path, cell in cells.items()}
    about = {key: document[key] for key in ABOUT if key in document}
    return Entry(kind, name, document["title"], values, sources, about)


def _document(kind: str, name: str) -> dict[str, Any]:
    return _parsed(_folder(kind).joinpath(f"{name}.yaml").read_text(encoding="utf-8"))


@cache  # a sweep resolves the same entries for every point; nobody changes what is in them
def _parsed(text: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.load(text, _LOADER)
    return document


def at_degree(table: dict[Any, Any], ranks: int) -> tuple[Any, int]:
    """The entry of a table over GPU counts that serves `ranks`, and its count: the next larger one, else the largest."""
    by_count = {int(count): value for count, value in table.items()}
    count = min((count for count in by_count if count >= ranks), default=max(by_count))
    return by_count[count], count


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same documents, ten times as fast where libyaml is there

_SINGULAR = {
    "boards": "board", "codecs": "codec", "copy_engines": "copy engine", "engines": "engine", "gpus": "GPU",
    "kv_systems": "KV system", "links": "link", "memories": "memory", "models": "model", "prices": "price list",
    "switches": "switch",
}  # fmt: skip


def _folder(kind: str) -> Traversable:
    if kind not in FIELDS:
        near = did_you_mean(kind.casefold(), FIELDS)
        listing = "kinds: " + ", ".join(kinds())
        raise UnknownName(f"'{kind}' is not a kind of catalogue entry", "   ".join(filter(None, (near, listing))))
    return files("simulator.catalog").joinpath(kind)
