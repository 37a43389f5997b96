"""Recorded sessions of coding agents (kv-cache-tester): one JSON document a session, with its requests and sub-agents.

A session: `id`, `block_size` (64 tokens), `hash_id_scope`, `requests`. A request: `t` (s from the start of the session),
`in`, `out` (may be 0), `hash_ids` of its full prompt blocks (floor(in / 64)), `think_time` (s of tool or user before it),
`api_time` (s that the recorded answer took; may be missing). A request of type "subagent" has requests of its own, whose `t`
restart at 0. Ids with scope "local" mean something inside their session only; sub-agents share those of their session.

Closed loop: a request follows the one before it of the same agent, `think_time` after its end. A sub-agent starts beside its
parent: after the parent's request before it, by as much as its `t` comes after the recorded end of that; the parent does not
wait for it, since its own think time contains what it waited. (In the recorded sessions `t` of a sub-agent is within 2 s of
that end plus its `duration_ms`, so it may be when the sub-agent ended; it is taken as documented.) Starts of sessions are not
recorded: 0 here.
Source: github.com/callanjfox/kv-cache-tester.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simulator.workload.fields import Row, block_list, json_number, objects, tokens
from simulator.workload.lines import Lines, excerpt

SUBAGENT = "subagent"


@dataclass
class Call:
    """One request of an agent; `after`: the call of the session that it waits for."""

    parent: bool  # of the session itself, not of a sub-agent
    input_tokens: int
    output_tokens: int
    ids: array[int]
    at: float  # s, recorded, from the start of its agent
    think: float | None  # as recorded
    api: float | None
    ttft: float | None
    after: int
    delay: float


@dataclass
class Session:
    name: str
    block: int
    local: bool
    calls: list[Call] = field(default_factory=list)
    subagents: int = 0


def sessions(lines: Lines) -> Iterator[Session]:
    """The sessions of a file."""
    for document in objects(lines, ("id", "block_size", "requests")):
        size = document["block_size"]
        if not isinstance(size, int) or size < 1:
            lines.problem("block_size", f"{excerpt(size)} found; expected a whole number of tokens of at least 1")
            continue
        session = Session(str(document["id"]), size, document.get("hash_id_scope", "local") == "local")
        _agent(lines, session, document["requests"], "requests", -1, 0.0)
        yield session


def _agent(lines: Lines, session: Session, rows: Any, where: str, after: int, delay: float) -> None:
    """The calls of one agent, the first of which comes `delay` s after call `after`."""
    if not isinstance(rows, list):
        lines.problem(where, f"{excerpt(rows)} found; expected a list of requests")
        return
    before, end, first = after, 0.0, True  # the call before, and when that ended in the recording
    for index, row in enumerate(rows):
        place = f"{where}.{index}"
        at = json_number(row.get("t")) if isinstance(row, dict) else None
        if at is None or at < 0:
            lines.problem(f"{place}.t", f"{excerpt(row)} found; expected a request with a time in s")
        elif row.get("type") == SUBAGENT:
            session.subagents += 1
            outset = at + (delay if first else 0.0)
            _agent(lines, session, row.get("requests"), f"{place}.requests", before, max(0.0, outset - end))
        else:
            call = _call(lines, session, row, place, at)
            if call is None:
                continue
            call.parent = where == "requests"
            think = call.think if call.think is not None else max(0.0, at - end)
            call.after, call.delay = before, delay + at if first else think
            before, end, first = len(session.calls), at + _answered(call, rows[index + 1 :]), False
            session.calls.append(call)


def _answered(call: Call, later: list[Any]) -> float:
    """Seconds that the recorded answer took: `api_time`, else what its follower's time leaves beside its thinking."""
    if call.api is not None:
        return call.api
    follower = next((row for row in later if isinstance(row, dict) and row.get("type") != SUBAGENT), {})
    at, think = json_number(follower.get("t")), json_number(follower.get("think_time"))
    return max(0.0, at - call.at - think) if at is not None and think is not None else 0.0


def _call(lines: Lines, session: Session, row: dict[str, Any], place: str, at: float) -> Call | None:
    input_tokens = tokens(lines, f"{place}.in", row.get("in"))
    output_tokens = tokens(lines, f"{place}.out", row.get("out"), least=0)
    ids = block_list(lines, f"{place}.hash_ids", row.get("hash_ids"))
    times: list[float | None] = []
    for name in ("think_time", "api_time", "ttft"):
        times.append(value := json_number(row.get(name)))
        if (value is None and row.get(name) is not None) or (value is not None and value < 0):
            lines.problem(f"{place}.{name}", f"{excerpt(row[name])} found; expected a time in s of at least 0")
            return None
    if input_tokens is None or output_tokens is None or ids is None:
        return None
    if len(ids) != input_tokens // session.block:
        message = f"{len(ids)} ids for {input_tokens} tokens; expected {input_tokens // session.block}"
        lines.problem(f"{place}.hash_ids", f"{message}, one for each full block of {session.block} tokens")
        return None
    think, api, ttft = times
    return Call(False, input_tokens, output_tokens, ids, at, think, api, ttft, -1, 0.0)


class Agentic:
    looks = 'JSON lines of sessions: "id", "block_size", "requests" with "t", "in", "out", "hash_ids", "think_time"'
    block_tokens = 64
    absent: tuple[str, ...] = ("arrivals",)

    def recognises(self, first_line: str) -> bool:
        return first_line.lstrip().startswith("{") and '"hash_id_scope"' in first_line

    def rows(self, lines: Lines, block: int) -> Iterator[Row]:
        count, base = 0, 0  # rows so far; ids of earlier sessions are below base
        for session in sessions(lines):
            if session.block != (block or self.block_tokens):
                message = f"{session.block} found; expected {block or self.block_tokens} in all sessions"
                lines.problem("block_size", message)
                continue
            top = 0
            for call in session.calls:
                ids = call.ids
                if session.local and ids:
                    local = np.frombuffer(ids, np.int64)
                    top = max(top, 1 + int(local.max()))
                    ids = array("q", (local + base).tobytes())
                after = count + call.after if call.after >= 0 else -1
                yield Row(call.delay, call.input_tokens, call.output_tokens, ids, None, session.name, after, call.delay)
            count += len(session.calls)
            base += top
