"""The plain format: CSV with the columns arrival_s, input_tokens, output_tokens in any order; others are skipped.

Times are seconds from the start of the recording. The columns `class` (SLO class) and `tenant` may be there; an empty cell says
nothing. Block hashes are not part of this format. `convert.py` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator

from simulator.workload.fields import Row, header, seconds, table, tokens
from simulator.workload.lines import Lines

COLUMNS = ("arrival_s", "input_tokens", "output_tokens")
LABELS = ("class", "tenant")


class Generic:
    looks = f"CSV with the columns {', '.join(COLUMNS)} in any order"
    block_tokens = 0
    absent: tuple[str, ...] = ("prefix reuse", "sessions")

    def recognises(self, first_line: str) -> bool:
        return not set(COLUMNS).isdisjoint(header(first_line))

    def rows(self, lines: Lines, block: int) -> Iterator[Row]:
        for time, prompt, generated, kind, tenant in table(lines, COLUMNS, LABELS):
            arrival = seconds(lines, "arrival_s", time)
            input_tokens = tokens(lines, "input_tokens", prompt)
            output_tokens = tokens(lines, "output_tokens", generated)
            if arrival is not None and input_tokens and output_tokens:
                yield Row(arrival, input_tokens, output_tokens, kind=kind.strip(), tenant=tenant.strip())
