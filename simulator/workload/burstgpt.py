"""BurstGPT traces: CSV with a time in seconds and two token counts.

Columns used: `Timestamp` (s from the start), `Request tokens`, `Response tokens`; others (`Model`, `Total tokens`, `Log Type`,
`Session ID`, `Elapsed time`) are skipped, so requests of all models and kinds are in one stream. A failed request has 0
response tokens. Not recorded: prefix reuse.
Source of the columns: the README of github.com/HPMLL/BurstGPT; Y. Wang et al., BurstGPT, arXiv 2401.17644. No row of it was
at hand: the tests read rows written by hand.
"""

from __future__ import annotations

from collections.abc import Iterator

from simulator.workload.fields import Row, header, seconds, table, tokens
from simulator.workload.lines import Lines

COLUMNS = ("Timestamp", "Request tokens", "Response tokens")


class BurstGpt:
    looks = "CSV with the columns " + ", ".join(COLUMNS)
    block_tokens = 0
    absent: tuple[str, ...] = ("prefix reuse", "sessions")

    def recognises(self, first_line: str) -> bool:
        return not set(COLUMNS).isdisjoint(header(first_line))

    def rows(self, lines: Lines, block: int) -> Iterator[Row]:
        for time, prompt, generated in table(lines, COLUMNS):
            arrival = seconds(lines, "Timestamp", time)
            input_tokens = tokens(lines, "Request tokens", prompt)
            output_tokens = tokens(lines, "Response tokens", generated, least=0)
            if arrival is not None and input_tokens and output_tokens is not None:
                yield Row(arrival, input_tokens, output_tokens)
