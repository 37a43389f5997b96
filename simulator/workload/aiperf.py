"""Traces for AIPerf's trace replay: Mooncake's JSON lines with `session_id` and, for later turns, `delay` in milliseconds.

A row with a `timestamp` (ms) arrives then. A later row of a session with a `delay` (ms) arrives so long after the end of the
session's row before it (closed loop). The first row of a session without a `timestamp` arrives at 0. Blocks have 512 tokens
where the user does not say otherwise.
Source of the keys: the documentation of github.com/ai-dynamo/aiperf, trace replay. No file was at hand: the tests read rows
written by hand.
"""

from __future__ import annotations

from collections.abc import Iterator

from simulator.workload.fields import Row, milliseconds, objects, tokens
from simulator.workload.lines import Lines
from simulator.workload.mooncake import EITHER, Chains

KEYS = ("session_id", "input_length", "output_length")


class Aiperf:
    looks = 'the same with "session_id", and "delay" in ms in place of the timestamp of a later turn'
    block_tokens = 512
    absent: tuple[str, ...] = ()

    def recognises(self, first_line: str) -> bool:
        return first_line.lstrip().startswith("{") and '"session_id"' in first_line and '"input_length"' in first_line

    def rows(self, lines: Lines, block: int) -> Iterator[Row]:
        chains = Chains(block or self.block_tokens, EITHER)
        last: dict[str, int] = {}  # row of each session
        count = 0
        for row in objects(lines, KEYS):
            name = str(row["session_id"])
            wait = milliseconds(lines, "delay", row["delay"]) if "delay" in row and name in last else 0.0
            arrival = milliseconds(lines, "timestamp", row["timestamp"]) if "timestamp" in row else 0.0
            input_tokens = tokens(lines, "input_length", row["input_length"])
            output_tokens = tokens(lines, "output_length", row["output_length"], least=0)
            if wait is None or arrival is None or not input_tokens or output_tokens is None:
                continue
            found = chains.of(lines, row, input_tokens, output_tokens)
            if found is None:
                continue
            waits = name in last and ("delay" in row or "timestamp" not in row)
            yield Row(arrival, input_tokens, output_tokens, *found, name, last[name] if waits else -1, wait if waits else 0.0)
            last[name] = count
            count += 1
