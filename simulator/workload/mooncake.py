"""Mooncake traces: JSON lines with a time in milliseconds, two token counts and chained block hashes.

`hash_ids` are remapped hashes of 512-token blocks of the prompt, each chained to the blocks before it, so that an equal
id means an equal prefix. The last block may be partial: there are ceil(input_length / 512) ids on each row, and rows
that differ (other block sizes) are refused. A file may leave the ids out, on all of its rows.
Timestamps of the released conversation trace come in batches of 3 s; they are kept as they are.
Source: github.com/kvcache-ai/Mooncake; R. Qin et al., Mooncake, FAST 2025.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from math import isfinite
from typing import Any

from simulator.workload.fields import Row, tokens
from simulator.workload.lines import Lines, excerpt

KEYS = ("timestamp", "input_length", "output_length")


class Mooncake:
    looks = 'JSON lines such as {"timestamp": 0, "input_length": 700, "output_length": 50, "hash_ids": [0, 1]}'
    block_tokens = 512

    def recognises(self, first_line: str) -> bool:
        return first_line.lstrip().startswith("{") and any(f'"{key}"' in first_line for key in KEYS)

    def rows(self, lines: Lines) -> Iterator[Row]:
        hashed: bool | None = None  # by the first row that has all else
        for line in lines:
            if not line.strip():
                continue
            row = _object(lines, line)
            if row is None:
                continue
            arrival = _milliseconds(lines, row["timestamp"])
            input_tokens = tokens(lines, "input_length", row["input_length"])
            output_tokens = tokens(lines, "output_length", row["output_length"])
            if arrival is None or not input_tokens or not output_tokens:
                continue
            hashed = "hash_ids" in row if hashed is None else hashed
            if hashed != ("hash_ids" in row):
                lines.problem("hash_ids", "on some rows only; expected on all rows or on none")
                continue
            ids = self._ids(lines, row["hash_ids"], input_tokens) if hashed else None
            if ids is not None or not hashed:
                yield arrival / 1000, input_tokens, output_tokens, ids

    def _ids(self, lines: Lines, value: object, input_tokens: int) -> array[int] | None:
        expected = -(-input_tokens // self.block_tokens)
        try:
            ids = array("q", value) if isinstance(value, list) else None
        except (TypeError, OverflowError):
            ids = None
        if ids is None:
            lines.problem("hash_ids", f"{excerpt(value)} found; expected a list of whole numbers")
        elif len(ids) != expected:
            message = f"{len(ids)} ids for {input_tokens} tokens; expected {expected}"
            lines.problem("hash_ids", f"{message}, one for each block of {self.block_tokens} tokens")
            return None
        return ids


def _object(lines: Lines, line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        lines.problem("", f"not JSON: {error}; found {excerpt(line)}")
        return None
    if not isinstance(row, dict):
        lines.problem("", f"{excerpt(line)} found; expected a JSON object")
        return None
    missing = [key for key in KEYS if key not in row]
    for key in missing:
        lines.problem(key, f"missing; expected the keys {', '.join(KEYS)}")
    return None if missing else row


def _milliseconds(lines: Lines, value: object) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # JSON has no largest integer
            number = -1.0
        if isfinite(number) and number >= 0:
            return number
    lines.problem("timestamp", f"{excerpt(value)} found; expected a time in ms, a finite number of at least 0")
    return None
