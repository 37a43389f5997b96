"""The plain format: CSV with the columns arrival_s, input_tokens, output_tokens in any order; others are skipped.

Times are seconds from the start of the recording. `write_csv` writes what the reader reads, to the last bit;
block hashes are not part of this format.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from simulator.workload.fields import Row, header, seconds, table, tokens
from simulator.workload.lines import Lines
from simulator.workload.requests import Requests

COLUMNS = ("arrival_s", "input_tokens", "output_tokens")


class Generic:
    looks = f"CSV with the columns {', '.join(COLUMNS)} in any order"
    block_tokens = 0

    def recognises(self, first_line: str) -> bool:
        return not set(COLUMNS).isdisjoint(header(first_line))

    def rows(self, lines: Lines) -> Iterator[Row]:
        for time, prompt, generated in table(lines, COLUMNS):
            arrival = seconds(lines, "arrival_s", time)
            input_tokens = tokens(lines, "input_tokens", prompt)
            output_tokens = tokens(lines, "output_tokens", generated)
            if arrival is not None and input_tokens and output_tokens:
                yield arrival, input_tokens, output_tokens, None


def write_csv(requests: Requests, file: TextIO) -> None:
    """Write requests in this format."""
    file.write(",".join(COLUMNS) + "\n")
    columns = zip(requests.arrival.tolist(), requests.input_tokens.tolist(), requests.output_tokens.tolist())
    file.writelines(f"{arrival!r},{prompt},{generated}\n" for arrival, prompt, generated in columns)
