"""Mooncake traces: JSON lines with a time in milliseconds, two token counts and chained block hashes.

`hash_ids` are remapped hashes of 512-token blocks of the prompt, each chained to the blocks before it, so that an equal
id means an equal prefix. The last block may be partial: there are ceil(input_length / 512) ids on each row, and rows
that differ are refused. The block size is not in the file; where the user passes another one, the last partial block may
have an id or not, the same on all rows. A file may leave the ids out, on all of its rows. `output_hash_ids` (may be
missing) are those of the further full blocks that prompt and answer complete.
Timestamps of the released conversation trace come in batches of 3 s; they are kept as they are.
Source: github.com/kvcache-ai/Mooncake; R. Qin et al., Mooncake, FAST 2025.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from simulator.workload.fields import Row, block_list, milliseconds, objects, tokens
from simulator.workload.lines import Lines

KEYS = ("timestamp", "input_length", "output_length")


class Mooncake:
    looks = 'JSON lines such as {"timestamp": 0, "input_length": 700, "output_length": 50, "hash_ids": [0, 1]}'
    block_tokens = 512
    absent: tuple[str, ...] = ("sessions",)

    def recognises(self, first_line: str) -> bool:
        return first_line.lstrip().startswith("{") and any(f'"{key}"' in first_line for key in KEYS)

    def rows(self, lines: Lines, block: int) -> Iterator[Row]:
        chains = Chains(block or self.block_tokens, CEILING if not block else EITHER)
        for row in objects(lines, KEYS):
            arrival = milliseconds(lines, "timestamp", row["timestamp"])
            input_tokens = tokens(lines, "input_length", row["input_length"])
            output_tokens = tokens(lines, "output_length", row["output_length"])
            if arrival is None or not input_tokens or not output_tokens:
                continue
            found = chains.of(lines, row, input_tokens, output_tokens)
            if found is not None:
                yield Row(arrival, input_tokens, output_tokens, *found)


class Blocks16(Mooncake):
    """The workloads of the recorded vLLM runs: Mooncake's fields, blocks of 16 tokens, full ones only, answers hashed too."""

    looks = 'the same with "output_hash_ids", blocks of 16 tokens'
    block_tokens = 16

    def recognises(self, first_line: str) -> bool:
        return super().recognises(first_line) and '"output_hash_ids"' in first_line

    def rows(self, lines: Lines, block: int) -> Iterator[Row]:
        return super().rows(lines, block or self.block_tokens)


FLOOR, CEILING = "full", "begun"  # which blocks of a prompt have an id
EITHER = "full or begun"


class Chains:
    """The ids of a file's rows: all rows have them or none has, and all give the last partial block an id or none does."""

    def __init__(self, block: int, partial: str):
        self.block, self._partial = block, partial
        self._hashed: bool | None = None  # by the first row that has all else

    def of(
        self, lines: Lines, row: dict[str, object], input_tokens: int, output_tokens: int
    ) -> tuple[array[int] | None, array[int] | None] | None:
        """Ids of the prompt's blocks and of those of the answer; None after a problem was noted."""
        if self._hashed is None:
            self._hashed = "hash_ids" in row
        if self._hashed != ("hash_ids" in row):
            lines.problem("hash_ids", "on some rows only; expected on all rows or on none")
            return None
        if not self._hashed:
            return None, None
        ids = block_list(lines, "hash_ids", row["hash_ids"])
        if ids is None or not self._counts(lines, len(ids), input_tokens):
            return None
        if "output_hash_ids" not in row:
            return ids, None
        answer = block_list(lines, "output_hash_ids", row["output_hash_ids"])
        further = (input_tokens + output_tokens) // self.block - input_tokens // self.block
        if answer is not None and len(answer) > further:
            lines.problem("output_hash_ids", f"{len(answer)} ids; the answer completes {further} blocks of {self.block} tokens")
            return None
        return None if answer is None else (ids, answer)

    def _counts(self, lines: Lines, count: int, input_tokens: int) -> bool:
        full = input_tokens // self.block
        begun = full + (input_tokens % self.block > 0)
        expected = {FLOOR: [full], CEILING: [begun], EITHER: [full, begun]}[self._partial]
        if count not in expected:
            number = " or ".join(str(one) for one in expected)
            message = f"{count} ids for {input_tokens} tokens; expected {number}"
            lines.problem("hash_ids", f"{message}, one for each block of {self.block} tokens")
            return False
        if self._partial == EITHER and full != begun:
            self._partial = FLOOR if count == full else CEILING
        return True
