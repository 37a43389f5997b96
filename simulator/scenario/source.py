"""What the user wrote, as plain data, and where each part of it comes from.

A `Source` starts as the file, is changed by `--set`, and is filled up with presets; every change carries its place, so
that a later problem with a value points to the line (or to `--set`) that it came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from simulator.errors import Problem

Where = tuple[str, ...]  # path of keys from the top of the document


@dataclass(frozen=True)
class Place:
    """A spot in a file (line and column from 1), or something without lines: `--set`, a preset, a Python dict."""

    origin: str
    line: int = 0
    column: int = 0
    preset: bool = False  # from the catalogue: never where a problem is

    def __str__(self) -> str:
        return f"{self.origin}:{self.line}:{self.column}" if self.line else self.origin

    @property
    def brief(self) -> str:
        return f"{self.origin}:{self.line}" if self.line else self.origin


@dataclass
class Source:
    data: dict[str, Any]
    whole: Place  # for what has no nearer place
    keys: dict[Where, Place] = field(default_factory=dict)
    values: dict[Where, Place] = field(default_factory=dict)
    spoken: dict[Where, Where] = field(default_factory=dict)  # `link.type` was written as `link`
    problems: list[Problem] = field(default_factory=list)

    def get(self, path: Where) -> Any:
        """The value at `path`, or None where there is none."""
        node: Any = self.data
        for key in path:
            node = below(node, key)
        return node

    def has(self, path: Where) -> bool:
        parent = self.get(path[:-1])
        return isinstance(parent, dict) and path[-1] in parent

    def put(self, path: Where, value: Any, place: Place) -> None:
        """Set the value at `path` (mappings on the way are made); all below it is forgotten."""
        node: Any = self.data
        for depth, key in enumerate(path[:-1], 1):
            if not isinstance(below(node, key), dict | list):
                _set(node, key, {})
                self._note(path[:depth], place)
            node = below(node, key)
        _set(node, path[-1], value)
        self._note(path, place)

    def _note(self, path: Where, place: Place) -> None:
        """Everything at and below `path` now comes from `place`."""
        self.forget(path)
        self.note(path, place)

    def forget(self, path: Where) -> None:
        if path not in self.keys:
            return  # nothing below it either: every change notes the mappings on its way
        for known in [known for known in (*self.keys, *self.spoken) if known[: len(path)] == path]:
            self.keys.pop(known, None)
            self.values.pop(known, None)
            self.spoken.pop(known, None)

    def note(self, path: Where, place: Place) -> None:
        self.keys[path] = self.values[path] = place
        below = self.get(path)
        for key in below if isinstance(below, dict) else map(str, range(len(below))) if isinstance(below, list) else ():
            self.note((*path, key), place)

    def place(self, path: Where, key: bool = False) -> Place:
        """Where the value (or the key) at `path` was written; the nearest enclosing place if it was not."""
        found = (self.keys if key else self.values).get(path)
        if found is not None and not found.preset:
            return found
        enclosing = (self.keys.get(path[:depth]) for depth in range(len(path) - 1, 0, -1))
        return next((place for place in enclosing if place is not None and not place.preset), self.whole)

    def exact(self, path: Where, key: bool = False) -> str:
        return str(self.place(path, key))

    def problem(self, path: Where, message: str, hint: str = "", key: bool = False) -> Problem:
        """A problem with the value at `path`, said in the words of the user."""
        path = self.spoken.get(path, path)
        return Problem(self.exact(path, key), ".".join(path), message, hint)

    def origin(self, path: Where) -> str | None:
        """`FILE:LINE`, `--set` or a preset with its source; None where nobody gave a value (a default)."""
        place = self.values.get(path)
        return place.brief if place else None


def below(node: Any, key: str) -> Any:
    """What a mapping has at a key, or a list at a number from 0; None where there is none."""
    if isinstance(node, list):
        return node[int(key)] if key.isdigit() and int(key) < len(node) else None
    return node.get(key) if isinstance(node, dict) else None


def _set(node: Any, key: str, value: Any) -> None:
    if isinstance(node, list):
        node[int(key)] = value
    else:
        node[key] = value
