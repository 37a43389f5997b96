"""Writing fitted values into a catalogue file: the cells of the named fields are replaced, all else stays as it is.

`command` is the command line of the fits that take a folder of measurements.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

WIDTH = 112


@dataclass(frozen=True)
class Fitted:
    field: str
    value: float | str | dict[int, str]
    evidence: str
    source: str


def write(path: Path, fitted: Sequence[Fitted]) -> None:
    """Replace the cells in place; KeyError if the file has no such field."""
    text = path.read_text(encoding="utf-8")
    for one in fitted:
        pattern = re.compile(rf"^  {one.field}:\n(?:    .*\n)+", re.MULTILINE)
        if not pattern.search(text):
            raise KeyError(one.field)
        text = pattern.sub(lambda _, one=one: cell(one), text, count=1)  # type: ignore[misc]
    path.write_text(text, encoding="utf-8")


def command(
    about: str, calibrate: Callable[[Path], dict[str, Any]], entries: Callable[[dict[str, Any]], Sequence[Fitted]]
) -> None:
    """The command line of a fit to a folder of measurements: prints the result, and writes it where `--write` says."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("data", type=Path, metavar="DATA_DIR")
    parser.add_argument("--write", type=Path, metavar="FILE", help="catalogue file to put the constants into")
    options = parser.parse_args()
    result = calibrate(options.data)
    print(json.dumps(result, indent=1))
    if options.write:
        write(options.write, entries(result))


def quantity(value: float, scale: float = 1.0, unit: str = "") -> float | str:
    """Four digits of a value in its unit, without an exponent; a plain number without a unit."""
    number = float(f"{value / scale:.4g}")
    return f"{np.format_float_positional(number, trim='-')} {unit}" if unit else number


def cell(one: Fitted) -> str:
    """The YAML of one field."""
    if isinstance(one.value, dict):
        value = "{" + ", ".join(f'{key}: "{item}"' for key, item in one.value.items()) + "}"
    else:
        value = (
            one.value
            if one.value in ("true", "false")
            else f'"{one.value}"'
            if isinstance(one.value, str)
            else f"{one.value:g}"
        )
    lines = wrap(one.source, WIDTH, break_on_hyphens=False, break_long_words=False)
    folded = "    source: >-\n" + "".join(f"      {line}\n" for line in lines)
    return f"  {one.field}:\n    value: {value}\n    evidence: {one.evidence}\n{folded}"
