"""Requests written in the formats that the readers read.

A writer gives the lines of a file and says what it carries; what the requests have beyond that is lost, and `lost` names it.
Block ids keep the size of their blocks, but where a format has smaller ones of which they are multiples: then the parts of an
id are numbered, and are equal exactly where the ids are. Not written: `agentic` and `tracelab`, which record more than
requests have. A writer is a function and one line in `WRITERS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from math import inf, nextafter
from typing import Any, TextIO

from simulator.errors import InputError, Problem, did_you_mean
from simulator.workload.prefix_ids import block_ids, fits, flat
from simulator.workload.requests import Labels, Requests, answered

REUSE, ANSWERS, SESSIONS, WAITS, ARRIVALS = "prefix reuse", "ids of answers", "sessions", "waits for answers", "arrivals"
CLASSES, TENANTS = "SLO classes", "tenants"


@dataclass(frozen=True)
class Writer:
    lines: Callable[[Requests], Iterator[str]]
    carries: frozenset[str]
    block: int = 0  # tokens of a block that its reader takes without being told; 0: no blocks
    empty: bool = False  # answers of 0 tokens can be written


def _columns(requests: Requests) -> Iterator[tuple[float, int, int]]:
    return zip(requests.arrival.tolist(), requests.input_tokens.tolist(), requests.output_tokens.tolist(), strict=True)


def _three_columns(head: str, requests: Requests) -> Iterator[str]:
    yield head
    for arrival, prompt, output in _columns(requests):
        yield f"{arrival!r},{prompt},{output}"


def _csv(requests: Requests) -> Iterator[str]:
    labels = {"class": requests.kind, "tenant": requests.tenant}
    given = [[column, *_cells(names)] for column, names in labels.items() if names is not None]
    for cells in zip(_three_columns("arrival_s,input_tokens,output_tokens", requests), *given, strict=True):
        yield ",".join(cells)


def _cells(labels: Labels) -> list[str]:
    """The name of each request, as CSV has it; empty where there is none."""
    quoted = ['"' + name.replace('"', '""') + '"' if set(name) & set(',"') else name for name in labels.names]
    return [[*quoted, ""][number] for number in labels.number.tolist()]


def _azure(requests: Requests) -> Iterator[str]:
    yield "TIMESTAMP,ContextTokens,GeneratedTokens"
    origin = datetime(2000, 1, 1, tzinfo=UTC)
    for arrival, prompt, output in _columns(requests):
        ticks = round(arrival * 10**7)
        at = origin + timedelta(seconds=ticks // 10**7)
        yield f"{at:%Y-%m-%d %H:%M:%S}.{ticks % 10**7:07d},{prompt},{output}"


def _burstgpt(requests: Requests) -> Iterator[str]:
    yield "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
    for arrival, prompt, output in _columns(requests):
        yield f"{arrival!r},unknown,{prompt},{output},{prompt + output},unknown"


def _vidur_lengths(requests: Requests) -> Iterator[str]:
    yield "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio"
    for _, prompt, output in _columns(requests):
        yield f"{prompt},{output},{prompt + output},{prompt / output if output else inf!r}"


def _mooncake(requests: Requests) -> Iterator[str]:
    for row, (arrival, prompt, output) in enumerate(_columns(requests)):
        yield _json({"timestamp": _ms(arrival), "input_length": prompt, "output_length": output} | _ids(requests, row))


def _vllm_workload(requests: Requests) -> Iterator[str]:
    for row, (arrival, prompt, output) in enumerate(_columns(requests)):
        ids: dict[str, list[int]] = {"hash_ids": [], "output_hash_ids": []}  # by the latter the reader knows the format
        ids |= _ids(requests, row)
        yield _json({"timestamp": _ms(arrival), "input_length": prompt, "output_length": output} | ids)


def _aiperf(requests: Requests) -> Iterator[str]:
    after = [-1] * len(requests) if requests.loop is None else requests.loop.after.tolist()
    last: dict[int, int] = {}
    for row, (arrival, prompt, output) in enumerate(_columns(requests)):
        session = -1 if requests.session is None else int(requests.session[row])
        times: dict[str, Any] = {"session_id": str(session if session >= 0 else f"row-{row}")}
        if requests.loop is not None and after[row] >= 0 and after[row] == last.get(session):
            times["delay"] = _ms(float(requests.loop.delay[row]))
        else:
            times["timestamp"] = _ms(arrival)
        last[session] = row
        yield _json(times | {"input_length": prompt, "output_length": output} | _ids(requests, row))


def _bailian(requests: Requests) -> Iterator[str]:
    last: dict[int, tuple[int, int]] = {}  # session -> its last row, and the turn that it was
    for row, (arrival, prompt, output) in enumerate(_columns(requests)):
        session = -1 if requests.session is None else int(requests.session[row])
        before, turn = last.get(session, (-1, 0)) if session >= 0 else (-1, 0)
        last[session] = (row, turn + 1)
        chat = {"chat_id": row, "parent_chat_id": before, "timestamp": arrival}
        lengths = {"input_length": prompt, "output_length": output, "type": "text", "turn": turn + 1}
        yield _json(chat | lengths | _ids(requests, row, answers=False))


def _ids(requests: Requests, row: int, answers: bool = True) -> dict[str, list[int]]:
    found = {} if requests.hash_ids is None else {"hash_ids": requests.hash_ids[row].tolist()}
    if answers and requests.output_ids is not None:
        found["output_hash_ids"] = requests.output_ids[row].tolist()
    return found


def _json(row: dict[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":"))


def _ms(seconds: float) -> float | int:
    """Milliseconds that a reader turns into the same seconds, whole ones without a fraction."""
    near = seconds * 1000
    exact = next((one for one in (round(near), near, nextafter(near, inf), nextafter(near, 0)) if one / 1000 == seconds), near)
    return int(exact) if float(exact).is_integer() else exact


WRITERS: dict[str, Writer] = {
    "csv": Writer(_csv, frozenset({ARRIVALS, CLASSES, TENANTS})),
    "azure": Writer(_azure, frozenset({ARRIVALS})),
    "burstgpt": Writer(_burstgpt, frozenset({ARRIVALS}), empty=True),
    "vidur": Writer(
        partial(_three_columns, "arrived_at,num_prefill_tokens,num_decode_tokens"), frozenset({ARRIVALS}), empty=True
    ),
    "vidur_lengths": Writer(_vidur_lengths, frozenset(), empty=True),
    "mooncake": Writer(_mooncake, frozenset({ARRIVALS, REUSE, ANSWERS}), 512),
    "vllm_workload": Writer(_vllm_workload, frozenset({ARRIVALS, REUSE, ANSWERS}), 16),
    "bailian": Writer(_bailian, frozenset({ARRIVALS, REUSE, SESSIONS}), 16, empty=True),
    "aiperf": Writer(_aiperf, frozenset({ARRIVALS, REUSE, ANSWERS, SESSIONS, WAITS}), 512, empty=True),
}


def convert(requests: Requests, format: str, file: TextIO) -> list[str]:
    """Write requests in a format; what is to be known of the result."""
    writer = WRITERS.get(format)
    if writer is None:
        message = f"'{format}' cannot be written; expected one of {', '.join(WRITERS)}"
        raise InputError(Problem("trace convert", "format", message, did_you_mean(format, WRITERS)))
    notes = [f"not carried by {format}: {what}" for what in lost(requests, writer)]
    if not writer.empty:
        requests = answered(requests)
        notes += requests.notes[-1:] if "0 tokens" in "".join(requests.notes[-1:]) else ()
    if requests.hash_ids is not None and REUSE in writer.carries:
        requests = _blocks(requests, writer.block)
        if requests.block_tokens != writer.block:
            notes.append(f"block ids are of {requests.block_tokens} tokens: read it with --block {requests.block_tokens}")
    file.writelines(f"{line}\n" for line in writer.lines(requests))
    return notes


def lost(requests: Requests, writer: Writer) -> list[str]:
    """What the requests have and the format does not."""
    has = {
        ARRIVALS: "arrivals" not in requests.absent,
        REUSE: requests.hash_ids is not None,
        ANSWERS: requests.output_ids is not None,
        SESSIONS: requests.session is not None,
        WAITS: requests.loop is not None,
        CLASSES: requests.kind is not None,
        TENANTS: requests.tenant is not None,
    }
    return [what for what, there in has.items() if there and what not in writer.carries]


def _blocks(requests: Requests, block: int) -> Requests:
    """With ids of blocks of this size, where one size is a multiple of the other; of full blocks only."""
    size, ids = requests.block_tokens, requests.hash_ids
    if ids is None or size == block or not fits(size, block):
        return requests
    prompts = requests.input_tokens.tolist()
    rows = [block_ids(ids[row].tolist(), size, block, prompts[row]) for row in range(len(requests))]
    return replace(requests, hash_ids=flat(rows), output_ids=None, block_tokens=block)
