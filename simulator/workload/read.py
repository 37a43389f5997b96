"""Recorded traces -> `Requests`.

A file keeps the name it has: gzip and format are recognised from the content. Rows are read one by one, and reading
stops after the first `limit` rows of the window, so what comes later in the file is neither read nor checked. A malformed row
is refused with its line, all of them in one pass, or left out and counted where that is asked for.
A recorded vLLM run is a folder or a tar and has a reader of its own (`vllm_run.py`). The window [start, end) is on the
recorded clock (s); times are then shifted so that it starts at 0 and divided by `rate_scale`. Rows out of order are
sorted by arrival (same time: file order), with a note; `limit` counts rows in file order.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from math import inf, isfinite
from os import PathLike, fspath

import numpy as np

from simulator.errors import InputError, Problem, did_you_mean
from simulator.workload.agentic import Agentic
from simulator.workload.aiperf import Aiperf
from simulator.workload.azure import Azure
from simulator.workload.bailian import Bailian
from simulator.workload.burstgpt import BurstGpt
from simulator.workload.fields import Reader, Row
from simulator.workload.generic import Generic
from simulator.workload.lines import Lines, excerpt, open_lines
from simulator.workload.mooncake import Blocks16, Mooncake
from simulator.workload.requests import HashIds, Labels, Loop, Requests, first, ordered, scale, window
from simulator.workload.servegen import is_clients
from simulator.workload.tracelab import TraceLab
from simulator.workload.vidur import Vidur, VidurLengths
from simulator.workload.vllm_run import is_run, read_run

FORMATS: dict[str, Reader] = {  # those that ask for more first
    "azure": Azure(),
    "csv": Generic(),
    "burstgpt": BurstGpt(),
    "vidur_lengths": VidurLengths(),
    "vidur": Vidur(),
    "agentic": Agentic(),
    "tracelab": TraceLab(),
    "bailian": Bailian(),
    "aiperf": Aiperf(),
    "vllm_workload": Blocks16(),
    "mooncake": Mooncake(),
}


def read_trace(
    path: str | PathLike[str],
    format: str = "auto",
    limit: int | None = None,
    start: float = 0.0,
    end: float = inf,
    rate_scale: float = 1.0,
    block: int = 0,
    skip: bool = False,
) -> Requests:
    """The first `limit` requests of a recorded trace in [start, end) s, at `rate_scale` times the recorded rate. `block`:
    tokens of a hashed block where they are not the format's; `skip`: malformed rows are left out and counted."""
    _check(fspath(path), format, limit, start, end, rate_scale)
    if format == "auto" and is_clients(path):
        message = "is ServeGen client data, from which requests are drawn; expected a trace"
        raise InputError(Problem(fspath(path), "", message, "in a scenario: workload: {clients: {path: ...}}"))
    if format == "vllm" or (format == "auto" and is_run(fspath(path))):
        return scale(first(window(read_run(fspath(path)).requests, start, end), limit), rate_scale)
    with open_lines(path, skip) as lines:
        reader = _reader(lines, format)
        requests = _collect(lines, reader, limit, start, end, block)
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


class _Columns:
    """The rows of the window, column by column, in the order in which they were read."""

    def __init__(self) -> None:
        self.arrival, self.input_tokens, self.output_tokens = array("d"), array("q"), array("q")
        self.ids, self.output_ids = _Chains(), _Chains()
        self.session, self.after, self.delay = array("q"), array("q"), array("d")
        self._names: dict[str, int] = {"": -1}
        self.kind, self.tenant = _Names(), _Names()

    def append(self, row: Row, arrival: float, after: int) -> None:
        self.arrival.append(arrival)
        self.input_tokens.append(row.input_tokens)
        self.output_tokens.append(row.output_tokens)
        self.ids.append(row.ids)
        self.output_ids.append(row.output_ids)
        self.session.append(self._names.setdefault(row.session, len(self._names) - 1))
        self.after.append(after)
        self.delay.append(row.delay if after >= 0 else 0.0)
        self.kind.append(row.kind)
        self.tenant.append(row.tenant)


class _Names:
    """A column of few names."""

    def __init__(self) -> None:
        self._place: dict[str, int] = {"": -1}
        self._number = array("q")

    def append(self, name: str) -> None:
        self._number.append(self._place.setdefault(name, len(self._place) - 1))

    def labels(self) -> Labels | None:
        names = tuple(name for name in self._place if name)
        return Labels(names, np.array(self._number, np.int64)) if names else None


class _Chains:
    def __init__(self) -> None:
        self.flat, self.offsets, self.any = array("q"), array("q", [0]), False

    def append(self, ids: array[int] | None) -> None:
        if ids is not None:
            self.any = True
            self.flat.extend(ids)
        self.offsets.append(len(self.flat))

    def hash_ids(self) -> HashIds | None:
        return HashIds(np.array(self.flat, np.int64), np.array(self.offsets, np.int64)) if self.any else None


def _collect(lines: Lines, reader: Reader, limit: int | None, start: float, end: float, block: int) -> Requests:
    """The rows of the window with their recorded times, sorted. A row that waits for one outside it arrives at its own time."""
    columns = _Columns()
    early = start if start > 0 else -inf  # a wall clock starts at the first row, which need not be the earliest
    outside_low, outside_high = inf, -inf
    times, place = array("d"), array("q")  # of every row read: when it arrives, its number among those of the window
    for row in reader.rows(lines, block):
        at = times[row.after] + row.delay if row.after >= 0 else row.arrival
        inside = early <= at < end
        times.append(at)
        place.append(len(columns.arrival) if inside else -1)
        if not inside:
            outside_low, outside_high = min(at, outside_low), max(at, outside_high)
            continue
        columns.append(row, at, place[row.after] if row.after >= 0 else -1)
        if len(columns.arrival) == limit:
            break
    lines.raise_problems()
    if not columns.arrival:
        message = "no requests; expected at least one row"
        if outside_low <= outside_high:
            message = f"no request from {start} s to {end} s; the trace runs from {outside_low} s to {outside_high} s"
        raise InputError(Problem(lines.name, "", message))
    return _sorted(lines, columns, reader, block)


def _sorted(lines: Lines, columns: _Columns, reader: Reader, block: int) -> Requests:
    times, ids = np.array(columns.arrival, np.float64), columns.ids.hash_ids()
    session, after = np.array(columns.session, np.int64), np.array(columns.after, np.int64)
    notes: tuple[str, ...] = ()
    opens = times[after < 0]
    late = int(np.count_nonzero(opens < np.maximum.accumulate(opens)))
    if late:
        notes = (f"{late} row{'s' if late > 1 else ''} out of order: sorted by arrival time",)
    if lines.skipped:
        notes = (*notes, f"{lines.skipped} malformed row{'s' if lines.skipped > 1 else ''} skipped")
    absent = set(reader.absent)
    if ids is None:
        absent.add("prefix reuse")
    if session.max() < 0:
        absent.add("sessions")
    requests = Requests(
        np.zeros(len(times)), np.array(columns.input_tokens, np.int64), np.array(columns.output_tokens, np.int64), ids,
        (block or reader.block_tokens) if ids is not None else 0, lines.name, notes, late, columns.output_ids.hash_ids(),
        session=None if session.max() < 0 else session,
        loop=Loop(after, np.array(columns.delay, np.float64)) if after.max() >= 0 else None,
        absent=tuple(sorted(absent)), skipped=lines.skipped, kind=columns.kind.labels(), tenant=columns.tenant.labels(),
    )  # fmt: skip
    if times[0] == 0.0 and not np.any(times[1:] < times[:-1]):
        return replace(requests, arrival=times)
    order = np.argsort(times, kind="stable")
    found = ordered(requests, times, order)
    return replace(found, arrival=found.arrival - min(found.arrival[0], 0.0))  # below 0: a wall-clock row before the first one
