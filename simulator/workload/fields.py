"""Fields of a trace row: times, token counts, block ids; the columns of a CSV file, the objects of a JSON-lines file.

What is wrong is noted on the lines; the row is then left out and reading goes on, so that one pass finds all.
"""

from __future__ import annotations

import csv
import json
from array import array
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any, NamedTuple, Protocol

from simulator.errors import did_you_mean
from simulator.workload.lines import Lines, excerpt

MOST_TOKENS = 2**31 - 1  # far above any context; a larger number is a wrong column


class Row(NamedTuple):
    """A request of a trace."""

    arrival: float  # s on the recorded clock; not looked at where it waits for another row
    input_tokens: int
    output_tokens: int
    ids: array[int] | None = None  # of blocks; None: not recorded
    output_ids: array[int] | None = None
    session: str = ""  # "": of none
    after: int = -1  # the row, in the order in which they are read, whose end it waits for
    delay: float = 0.0  # s from that to its arrival
    kind: str = ""  # SLO class; "": not said
    tenant: str = ""


class Reader(Protocol):
    """A trace format: how it looks, and its rows. A plug-in is a class like this and one line in `read.FORMATS`."""

    looks: str  # what the first line is, for messages
    block_tokens: int  # tokens of one hashed block; 0: the format has no hashes
    absent: tuple[str, ...]  # what the format never records (of `requests.Requests.absent`)

    def recognises(self, first_line: str) -> bool: ...

    def rows(self, lines: Lines, block: int) -> Iterator[Row]:
        """`block`: tokens of a hashed block where the user says so, else 0."""


def seconds(lines: Lines, field: str, text: str) -> float | None:
    """A time in s, or None after a problem was noted."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if isfinite(value) and value >= 0 and "_" not in text:  # float() takes 1_000
        return value
    lines.problem(field, f"{excerpt(text)} found; expected a time in seconds, a finite number of at least 0")
    return None


def milliseconds(lines: Lines, field: str, value: object) -> float | None:
    """A JSON time in ms as s, or None after a problem was noted."""
    number = json_number(value)
    if number is not None and number >= 0:
        return number / 1000
    lines.problem(field, f"{excerpt(value)} found; expected a time in ms, a finite number of at least 0")
    return None


def json_seconds(lines: Lines, field: str, value: object) -> float | None:
    """A JSON time in s, or None after a problem was noted."""
    number = json_number(value)
    if number is not None and number >= 0:
        return number
    lines.problem(field, f"{excerpt(value)} found; expected a time in s, a finite number of at least 0")
    return None


def json_number(value: object) -> float | None:
    """A finite JSON number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON has no largest integer
        return None
    return number if isfinite(number) else None


def tokens(lines: Lines, field: str, value: object, least: int = 1) -> int | None:
    """A token count from text or JSON, or None after a problem was noted."""
    count = -1
    if isinstance(value, str):
        text = value.strip()
        count = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else -1
    elif isinstance(value, int) and not isinstance(value, bool):
        count = value
    if least <= count <= MOST_TOKENS:
        return count
    lines.problem(field, f"{excerpt(value)} found; expected a whole number of tokens from {least} to {MOST_TOKENS}")
    return None


def block_list(lines: Lines, field: str, value: object) -> array[int] | None:
    """A JSON list of ids, or None after a problem was noted."""
    try:
        if isinstance(value, list):
            return array("q", value)
    except (TypeError, OverflowError):
        pass
    lines.problem(field, f"{excerpt(value)} found; expected a list of whole numbers")
    return None


def objects(lines: Lines, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file that have all of `keys`; of others a problem is noted."""
    for line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            lines.problem("", f"not JSON: {error}; found {excerpt(line)}")
            continue
        if not isinstance(row, dict):
            lines.problem("", f"{excerpt(line)} found; expected a JSON object")
            continue
        missing = [key for key in keys if key not in row]
        for key in missing:
            lines.problem(key, f"missing; expected the keys {', '.join(keys)}", did_you_mean(key, row))
        if not missing:
            yield row


def header(line: str) -> list[str]:
    """Column names of a CSV header; none where the line is not CSV."""
    try:
        return [name.strip() for name in next(csv.reader([line]), [])]
    except csv.Error:
        return []


def table(lines: Lines, names: Sequence[str], optional: Sequence[str] = ()) -> Iterator[list[str]]:
    """The cells under `names` and then `optional`, row by row, wherever those columns stand; other columns are skipped, and
    one of `optional` that is not there is empty."""
    reader = csv.reader(lines, strict=True)
    try:
        found = [name.strip() for name in next(reader, [])]
        for name in names:
            if found.count(name) != 1:
                number = "no column" if name not in found else f"{found.count(name)} columns"
                message = f"{number} of this name in the header {excerpt(','.join(found))}"
                lines.fatal(name, f"{message}; expected one", did_you_mean(name, set(found) - set(names)))
        if lines.problems:
            return
        where = [found.index(name) for name in names] + [found.index(name) if name in found else -1 for name in optional]
        for cells in reader:
            if len(cells) == len(found):
                yield [cells[i] if i >= 0 else "" for i in where]
            elif cells:  # blank lines are no rows
                lines.problem("", f"row of {len(cells)} columns; expected {len(found)}, as in the header")
    except csv.Error as error:
        lines.fatal("", f"not CSV: {error}")
