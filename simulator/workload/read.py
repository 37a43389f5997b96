"""Recorded traces -> `Requests`.

A file keeps the name it has: gzip and format are recognised from the content. Rows are read one by one, and reading
stops after the first `limit` rows of the window, so what comes later in the file is neither read nor checked.
A recorded vLLM run is a folder or a tar and has a reader of its own (`vllm_run.py`). The window [start, end) is on the
recorded clock (s); times are then shifted so that it starts at 0 and divided by `rate_scale`. Rows out of order are
sorted by arrival (same time: file order), with a note; `limit` counts rows in file order.
"""

from __future__ import annotations

from array import array
from math import inf, isfinite
from os import PathLike, fspath

import numpy as np

from simulator.errors import InputError, Problem, did_you_mean
from simulator.workload.azure import Azure
from simulator.workload.fields import Reader
from simulator.workload.generic import Generic
from simulator.workload.lines import Lines, excerpt, open_lines
from simulator.workload.mooncake import Mooncake
from simulator.workload.requests import Floats, HashIds, Ints, Requests, first, scale, window
from simulator.workload.vllm_run import is_run, read_run

FORMATS: dict[str, Reader] = {
    "azure": Azure(),
    "csv": Generic(),
    "mooncake": Mooncake(),
}


def read_trace(
    path: str | PathLike[str],
    format: str = "auto",
    limit: int | None = None,
    start: float = 0.0,
    end: float = inf,
    rate_scale: float = 1.0,
) -> Requests:
    """The first `limit` requests of a recorded trace in [start, end) s, at `rate_scale` times the recorded rate."""
    _check(fspath(path), format, limit, start, end, rate_scale)
    if format == "vllm" or (format == "auto" and is_run(fspath(path))):
        return scale(first(window(read_run(fspath(path)).requests, start, end), limit), rate_scale)
    with open_lines(path) as lines:
        reader = _reader(lines, format)
        requests = _collect(lines, reader, limit, start, end)
    return scale(window(requests, start), rate_scale)  # rows from `end` on were not collected


def _check(name: str, format: str, limit: int | None, start: float, end: float, rate_scale: float) -> None:
    wrong = []
    names = ["auto", *FORMATS, "vllm"]
    if format not in names:
        message = f"{excerpt(format)} is not a trace format; expected one of {', '.join(names)}"
        wrong.append(Problem(name, "format", message, did_you_mean(format, names)))
    if limit is not None and limit < 1:
        wrong.append(Problem(name, "limit", f"{limit} found; expected at least 1"))
    if not (isfinite(start) and start >= 0):
        wrong.append(Problem(name, "start", f"{start} s found; expected a finite time of at least 0 s"))
    elif not end > start:
        wrong.append(Problem(name, "end", f"{end} s found; expected more than the start, {start} s"))
    if not (isfinite(rate_scale) and rate_scale > 0):
        wrong.append(Problem(name, "rate_scale", f"{rate_scale} found; expected a finite number above 0"))
    if wrong:
        raise InputError(wrong)


def _reader(lines: Lines, format: str) -> Reader:
    first = lines.peek()
    lines.raise_problems()
    if not first:
        raise InputError(Problem(lines.name, "", "is empty; expected a trace"))
    if format != "auto":
        return FORMATS[format]
    for reader in FORMATS.values():
        if reader.recognises(first):
            return reader
    known = "\n    ".join(f"{name}: {reader.looks}" for name, reader in FORMATS.items())
    message = f"format not recognised from the first line, {excerpt(first)}; expected one of"
    raise InputError(Problem(f"{lines.name}:{lines.number}", "format", message, known))


def _collect(lines: Lines, reader: Reader, limit: int | None, start: float, end: float) -> Requests:
    """The rows of the window with their recorded times, sorted."""
    arrival, input_tokens, output_tokens = array("d"), array("q"), array("q")
    flat, offsets = array("q"), array("q", [0])
    hashed = False
    early = start if start > 0 else -inf  # a wall clock starts at the first row, which need not be the earliest
    outside_low, outside_high = inf, -inf
    for at, prompt, generated, ids in reader.rows(lines):
        if not early <= at < end:
            outside_low, outside_high = min(at, outside_low), max(at, outside_high)
            continue
        arrival.append(at)
        input_tokens.append(prompt)
        output_tokens.append(generated)
        if ids is not None:
            hashed = True
            flat.extend(ids)
            offsets.append(len(flat))
        if len(arrival) == limit:
            break
    lines.raise_problems()
    if not arrival:
        message = "no requests; expected at least one row"
        if outside_low <= outside_high:
            message = f"no request from {start} s to {end} s; the trace runs from {outside_low} s to {outside_high} s"
        raise InputError(Problem(lines.name, "", message))
    hash_ids = HashIds(np.array(flat, dtype=np.int64), np.array(offsets, dtype=np.int64)) if hashed else None
    times = np.array(arrival, dtype=np.float64)
    prompts = np.array(input_tokens, dtype=np.int64)
    return _sorted(lines.name, times, prompts, np.array(output_tokens, dtype=np.int64), hash_ids, reader.block_tokens)


def _sorted(
    name: str, arrival: Floats, prompts: Ints, generated: Ints, hash_ids: HashIds | None, block_tokens: int
) -> Requests:
    notes: tuple[str, ...] = ()
    late = int(np.count_nonzero(arrival < np.maximum.accumulate(arrival)))
    if late:
        notes = (f"{late} row{'s' if late > 1 else ''} out of order: sorted by arrival time",)
        order = np.argsort(arrival, kind="stable")
        arrival, prompts, generated = arrival[order], prompts[order], generated[order]
        hash_ids = hash_ids.take(order) if hash_ids is not None else None
        arrival = arrival - min(arrival[0], 0.0)  # below 0: a wall-clock row earlier than the first one
    block = block_tokens if hash_ids is not None else 0
    return Requests(arrival, prompts, generated, hash_ids, block, name, notes, late)
