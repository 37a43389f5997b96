"""Bailian (Qwen) traces: JSON lines of chats, each turn naming the turn before it.

Keys: `chat_id`, `parent_chat_id` (-1: a first turn), `timestamp` (s from the start), `input_length`, `output_length`, `type`,
`turn`, `hash_ids`: remapped chained hashes of the prompt's 16-token blocks. The last partial block may have an id or not, the
same on all rows. The session of a turn is that of its parent. Turns keep their recorded times (open arrivals): how long an
answer took is not recorded, so neither is how long the user thought.
Source of the keys: the README of github.com/alibaba-edu/qwen-bailian-usagetraces-anon; J. Wang et al., KVCache cache in the
wild, USENIX ATC 2025. No row of it was at hand: the tests read rows written by hand.
"""

from __future__ import annotations

from collections.abc import Iterator

from simulator.workload.fields import Row, json_seconds, objects, tokens
from simulator.workload.lines import Lines
from simulator.workload.mooncake import EITHER, Chains

KEYS = ("chat_id", "parent_chat_id", "timestamp", "input_length", "output_length")


class Bailian:
    looks = 'JSON lines with "chat_id", "parent_chat_id", "timestamp" in s, "input_length", "output_length", "hash_ids"'
    block_tokens = 16
    absent: tuple[str, ...] = ()

    def recognises(self, first_line: str) -> bool:
        return first_line.lstrip().startswith("{") and '"parent_chat_id"' in first_line

    def rows(self, lines: Lines, block: int) -> Iterator[Row]:
        chains = Chains(block or self.block_tokens, EITHER)
        session: dict[object, str] = {}  # of each chat
        for row in objects(lines, KEYS):
            arrival = json_seconds(lines, "timestamp", row["timestamp"])
            input_tokens = tokens(lines, "input_length", row["input_length"])
            output_tokens = tokens(lines, "output_length", row["output_length"], least=0)
            if arrival is None or not input_tokens or output_tokens is None:
                continue
            found = chains.of(lines, row, input_tokens, output_tokens)
            if found is not None:
                chat, parent = str(row["chat_id"]), str(row["parent_chat_id"])
                session[chat] = session.get(parent, chat)  # a parent from before the trace: a session of its own
                yield Row(arrival, input_tokens, output_tokens, *found, session[chat])
