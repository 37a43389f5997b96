"""Vidur traces: CSV with `num_prefill_tokens` and `num_decode_tokens`; timed ones also have `arrived_at` in seconds.

Without `arrived_at` the file is a distribution of lengths: all rows are read at time 0, and the arrivals are said to be absent.
Other columns (`num_total_tokens`, `pd_ratio`) are skipped. Not recorded: prefix reuse, sessions.
Source: github.com/microsoft/vidur `data/processed_traces`; A. Agrawal et al., Vidur, MLSys 2024.
"""

from __future__ import annotations

from collections.abc import Iterator

from simulator.workload.fields import Row, header, seconds, table, tokens
from simulator.workload.lines import Lines

COLUMNS = ("num_prefill_tokens", "num_decode_tokens")
TIME = "arrived_at"


class Vidur:
    looks = f"CSV with the columns {', '.join(COLUMNS)}, and {TIME} in a timed one"
    block_tokens = 0
    absent: tuple[str, ...] = ("prefix reuse", "sessions")

    def recognises(self, first_line: str) -> bool:
        return not set(COLUMNS).isdisjoint(header(first_line))

    def rows(self, lines: Lines, block: int) -> Iterator[Row]:
        timed = TIME in header(lines.peek())
        for cells in table(lines, (*COLUMNS, TIME) if timed else COLUMNS):
            arrival = seconds(lines, TIME, cells[2]) if timed else 0.0
            input_tokens = tokens(lines, COLUMNS[0], cells[0])
            output_tokens = tokens(lines, COLUMNS[1], cells[1], least=0)
            if arrival is not None and input_tokens and output_tokens is not None:
                yield Row(arrival, input_tokens, output_tokens)


class VidurLengths(Vidur):
    """The same without times."""

    looks = f"CSV with the columns {', '.join(COLUMNS)} and no times"
    absent: tuple[str, ...] = ("arrivals", "prefix reuse", "sessions")

    def recognises(self, first_line: str) -> bool:
        return super().recognises(first_line) and TIME not in header(first_line)
