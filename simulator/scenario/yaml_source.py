"""Read YAML as plain data, remembering where each key and value was written.

Built on PyYAML's event stream: no Python object is ever constructed and nothing is expanded, so a small file cannot
grow in memory. Anchors, aliases, merge keys, tags and several documents are refused; so are files above 1 MB and
nesting deeper than 20 levels.

Plain scalars follow one short rule instead of YAML 1.1: `true` and `false` are booleans; `null`, `~` and nothing are
null; decimal digits are an integer (`010` is 10); `1.5`, `1e9`, `inf` and `.inf` are numbers; everything else is text
(`no`, `on`, `12:30`, `0x10`, `1_000`, `2026-11`, `.nan`). Quoted scalars are always text. Keys are always text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import inf, isfinite
from pathlib import Path
from typing import Any

import yaml

from simulator.errors import InputError, Problem
from simulator.scenario.source import Place, Source, Where

MAX_BYTES = 1_000_000
MAX_DEPTH = 20

_INTEGER = re.compile(r"[-+]?[0-9]{1,40}", re.ASCII)
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_INFINITE = re.compile(r"[-+]?\.?inf", re.ASCII)
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # only its scanner and parser are used


def scalar(text: str) -> Any:
    """The value of a plain (unquoted) scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text) if isfinite(float(text)) else text
    if _INFINITE.fullmatch(text):
        return -inf if text.startswith("-") else inf
    return text


def read_file(path: str | Path) -> Source:
    """The scenario file at `path` as a `Source`; `InputError` if it cannot be read as one mapping."""
    name = str(path)
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _refused(name, _reason(error)) from None
    if len(raw) > MAX_BYTES:
        raise _refused(name, "larger than 1 MB; a scenario is a short text file (traces are named by their path)")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _refused(f"{name}:{line}", "not UTF-8 text; a scenario is a YAML text file") from None
    return read_text(text, name)


def read_text(text: str, name: str) -> Source:
    """A whole document whose top level must be a mapping."""
    source = Source({}, Place(name))
    data = _Reader(text, name, source).document()
    if not isinstance(data, dict):
        found = "a list" if isinstance(data, list) else "a single value"
        message = f"expected a mapping with keys such as 'model:' and 'workload:', found {found}"
        raise InputError([Problem(source.exact(()), "", message)])
    source.data = data
    return source


def read_value(text: str, where: str) -> Any:
    """The value of a `--set`: a scalar, or inline YAML such as `{predictor: none}`; duplicate keys are refused."""
    if not text.strip():
        return None
    source = Source({}, Place(where))
    data = _Reader(text, where, source, lines=False).document()
    if source.problems:
        raise InputError(source.problems)
    return data


class _Reader:
    """Turns the events of one document into dicts, lists and scalars, and notes their places in `source`."""

    def __init__(self, text: str, name: str, source: Source, lines: bool = True):
        self._text, self._name, self._source, self._lines = text, name, source, lines

    def document(self) -> Any:
        self._refuse_tabs()
        try:
            return self._document(yaml.parse(self._text, Loader=_LOADER))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            reason = " ".join(filter(None, (error.context, error.problem)))
            raise _refused(str(self._place(mark)), f"not valid YAML: {reason}") from None
        except yaml.YAMLError:
            raise _refused(self._name, "contains a character that YAML does not allow (a control character?)") from None

    def _refuse_tabs(self) -> None:
        for number, line in enumerate(self._text.splitlines(), 1):
            blank = line[: len(line) - len(line.lstrip())]
            if "\t" in blank and line.strip() and not line.lstrip().startswith("#"):
                place = Place(self._name, number, blank.index("\t") + 1) if self._lines else Place(self._name)
                raise _refused(str(place), "a tab in the indentation; YAML indents with spaces only")

    def _document(self, events: Iterator[Any]) -> Any:
        next(events)  # start of the stream
        event = next(events)
        if isinstance(event, yaml.StreamEndEvent):
            raise _refused(self._name, "the file is empty; a scenario needs at least workload, model and cluster")
        first = next(events)
        if isinstance(first, yaml.ScalarEvent) and not first.value and first.implicit[0]:
            raise _refused(self._name, "the file is empty; a scenario needs at least workload, model and cluster")
        data = self._node(first, events, ())
        next(events)  # end of the document
        event = next(events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._error(event, (), "a second document starts here ('---'); a scenario file holds one")
        return data

    def _node(self, event: Any, events: Iterator[Any], path: Where) -> Any:
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._error(event, path, "anchors and aliases ('&name', '*name') are not supported; write it out")
        if event.tag is not None:
            raise self._error(event, path, f"tags such as '{_tag(event.tag)}' are not supported")
        if len(path) > MAX_DEPTH:
            raise self._error(event, path[:3], f"nested more than {MAX_DEPTH} levels deep")
        self._source.values[path] = self._place(event.start_mark)
        if isinstance(event, yaml.ScalarEvent):
            return scalar(event.value) if event.implicit[0] else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(event := next(events), yaml.SequenceEndEvent):
                items.append(self._node(event, events, (*path, str(len(items)))))
            return items
        return self._mapping(events, path)

    def _mapping(self, events: Iterator[Any], path: Where) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None or event.tag is not None:
                raise self._error(event, path, "a key must be plain text")
            key = event.value
            if key == "<<" and event.implicit[0]:
                raise self._error(event, path, "merge keys ('<<') are not supported; write the values out")
            here = (*path, key)
            place = self._place(event.start_mark)
            if key in mapping:
                first = self._source.keys[here]
                earlier = f" (first on line {first.line})" if self._lines else ""
                message = f"the key is given twice{earlier}; remove one"
                self._source.problems.append(Problem(str(place), ".".join(here), message))
                self._skip(next(events), events, here)
                continue
            self._source.keys[here] = place
            mapping[key] = self._node(next(events), events, here)
        return mapping

    def _skip(self, event: Any, events: Iterator[Any], path: Where) -> None:
        """Read past the second value of a key without noting its places."""
        kept, self._source = self._source, Source({}, Place(self._name))
        self._node(event, events, path)
        kept.problems += self._source.problems
        self._source = kept

    def _place(self, mark: Any) -> Place:
        return Place(self._name, mark.line + 1, mark.column + 1) if self._lines and mark else Place(self._name)

    def _error(self, event: Any, path: Where, message: str) -> InputError:
        return InputError(Problem(str(self._place(event.start_mark)), ".".join(path), message))


def _tag(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!", 1)


def _refused(where: str, message: str) -> InputError:
    return InputError(Problem(where, "", message))


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "is a folder; expected a scenario file"
    return f"cannot be read: {(error.strerror or str(error)).lower()}"
