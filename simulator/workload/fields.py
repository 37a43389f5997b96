"""Fields of a trace row: times, token counts, and the columns of a CSV file.

What is wrong is noted on the lines; the row is then left out and reading goes on, so that one pass finds all.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Protocol, TypeAlias

from simulator.errors import did_you_mean
from simulator.workload.lines import Lines, excerpt

MOST_TOKENS = 2**31 - 1  # far above any context; a larger number is a wrong column

# arrival in s on the recorded clock, input tokens, output tokens, block ids (None: not recorded)
Row: TypeAlias = "tuple[float, int, int, array[int] | None]"


class Reader(Protocol):
    """A trace format: how it looks, and its rows. A plug-in is a class like this and one line in `read.FORMATS`."""

    looks: str  # what the first line is, for messages
    block_tokens: int  # tokens of one hashed block; 0: the format has no hashes

    def recognises(self, first_line: str) -> bool: ...

    def rows(self, lines: Lines) -> Iterator[Row]: ...


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


def tokens(lines: Lines, field: str, value: object) -> int:
    """A token count from text or JSON, or 0 after a problem was noted."""
    count = 0
    if isinstance(value, str):
        text = value.strip()
        count = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else 0
    elif isinstance(value, int) and not isinstance(value, bool):
        count = value
    if 1 <= count <= MOST_TOKENS:
        return count
    lines.problem(field, f"{excerpt(value)} found; expected a whole number of tokens from 1 to {MOST_TOKENS}")
    return 0


def header(line: str) -> list[str]:
    """Column names of a CSV header; none where the line is not CSV."""
    try:
        return [name.strip() for name in next(csv.reader([line]), [])]
    except csv.Error:
        return []


def table(lines: Lines, names: Sequence[str]) -> Iterator[list[str]]:
    """The cells under `names`, row by row, wherever those columns stand; other columns are skipped."""
    reader = csv.reader(lines, strict=True)
    try:
        found = [name.strip() for name in next(reader, [])]
        for name in names:
            if found.count(name) != 1:
                number = "no column" if name not in found else f"{found.count(name)} columns"
                message = f"{number} of this name in the header {excerpt(','.join(found))}"
                lines.problem(name, f"{message}; expected one", did_you_mean(name, set(found) - set(names)))
        if lines.problems:
            return
        where = [found.index(name) for name in names]
        for cells in reader:
            if len(cells) == len(found):
                yield [cells[i] for i in where]
            elif cells:  # blank lines are no rows
                lines.problem("", f"row of {len(cells)} columns; expected {len(found)}, as in the header")
    except csv.Error as error:
        lines.problem("", f"not CSV: {error}")
