"""TraceLab rounds: JSON lines, one LLM round of a coding agent's session a line, with the length of the cached prefix.

Keys: `session_id`, `round_index`, `input_tokens_total`, `prefix_tokens` (read from the provider's prefix cache),
`output_tokens`, `timing_events` [{`event_type`, `timestamp` ISO-8601}] and others. Rounds are grouped by session and ordered
by `round_index`.

A round is sent at the last of its `user_message` and `tool_result` events and ends with its last event; the wait before a
round is from the end of the one before to that (closed loop). Sessions start as recorded, the first of the file at 0.

There are no block hashes; the prefix is given directly. Ids of 16-token blocks are made from it: a round's first
`prefix_tokens` are those of the round before with its answer; what reaches beyond these (the prefix of a first round) is
taken to be one prompt that all sessions of a model share. Everything else is new.
Source: github.com/uw-syfi/TraceLab.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from simulator.workload.fields import Row, objects, tokens
from simulator.workload.lines import Lines, excerpt

KEYS = ("session_id", "round_index", "input_tokens_total", "prefix_tokens", "output_tokens", "timing_events")
ASKS = ("user_message", "tool_result")  # what a round waits for


class TraceLab:
    looks = 'JSON lines of rounds: "session_id", "round_index", "input_tokens_total", "prefix_tokens", "timing_events"'
    block_tokens = 16
    absent: tuple[str, ...] = ()

    def recognises(self, first_line: str) -> bool:
        return first_line.lstrip().startswith("{") and '"round_index"' in first_line

    def rows(self, lines: Lines, block: int) -> Iterator[Row]:
        size = block or self.block_tokens
        found: dict[str, list[tuple[int, int, int, int, float, float, str]]] = {}
        for row in objects(lines, KEYS):
            index = tokens(lines, "round_index", row["round_index"], least=0)
            prompt = tokens(lines, "input_tokens_total", row["input_tokens_total"])
            prefix = tokens(lines, "prefix_tokens", row["prefix_tokens"], least=0)
            answer = tokens(lines, "output_tokens", row["output_tokens"], least=0)
            times = _times(lines, row["timing_events"])
            if index is None or prompt is None or prefix is None or answer is None or times is None:
                continue
            if prefix > prompt:
                lines.problem("prefix_tokens", f"{prefix} found; expected at most the input, {prompt} tokens")
                continue
            rounds = found.setdefault(str(row["session_id"]), [])
            rounds.append((index, prompt, prefix, answer, *times, str(row.get("model", ""))))
        sent = [rounds[4] for session in found.values() for rounds in session]
        start, count, ids = min(sent, default=0.0), 0, _Ids(size)
        for name, session in sorted(found.items(), key=lambda one: (min(rounds[4] for rounds in one[1]), one[0])):
            ended, chain = 0.0, array("q")
            for turn, (_, prompt, prefix, answer, at, end, model) in enumerate(sorted(session)):
                chain = ids.chain(chain, prefix // size, (prompt + answer) // size, model)
                here, further = chain[: prompt // size], chain[prompt // size :]
                after, delay = (count - 1, max(0.0, at - ended)) if turn else (-1, 0.0)
                yield Row(at - start, prompt, answer, here, further, name, after, delay)
                ended = end
                count += 1


class _Ids:
    def __init__(self, size: int) -> None:
        self._next = 0
        self._common: dict[str, array[int]] = {}  # model -> the prompt that its sessions share

    def chain(self, before: array[int], shared: int, blocks: int, model: str) -> array[int]:
        """Ids of `blocks` blocks, the first `shared` of them those of the chain before."""
        ids = before[:shared]
        common = self._common.setdefault(model, array("q"))
        common.extend(self._new(shared - len(common)))
        ids += common[len(ids) : shared]
        return ids + self._new(blocks - len(ids))

    def _new(self, count: int) -> array[int]:
        first, self._next = self._next, self._next + max(0, count)
        return array("q", range(first, self._next))


def _times(lines: Lines, events: Any) -> tuple[float, float] | None:
    """When a round was sent and when it ended (s since 1970), or None after a problem was noted."""
    asked, seen = [], []
    for event in events if isinstance(events, list) else [events]:
        try:
            stamp = datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00"))
            seconds = (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
        except (TypeError, KeyError, AttributeError, ValueError):
            lines.problem("timing_events", f"{excerpt(event)} found; expected events with an ISO-8601 timestamp")
            return None
        seen.append(seconds)
        if event.get("event_type") in ASKS:
            asked.append(seconds)
    if not seen:
        lines.problem("timing_events", "no events; expected at least one")
        return None
    return max(asked, default=min(seen)), max(seen)
