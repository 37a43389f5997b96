"""Requests as columns: when each arrives, how many tokens it brings and asks for, and which prompt blocks it shares.

Modelled: arrivals on a clock that starts at 0, token counts, the chained block hashes of a recorded prompt, and sessions whose
turns wait for an answer and then think (`Loop`). Not modelled: token contents, cancellation.
Rows are sorted by arrival; rows of the same time keep the order of their source. In a closed loop the arrival of a turn that
waits for another is that of a server which takes no time: a lower bound, since the simulation makes the real one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class HashIds:
    """A list of block ids a request, kept as one flat array: row i is `flat[offsets[i]:offsets[i + 1]]`."""

    flat: Ints
    offsets: Ints  # one more than there are rows; starts at 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Ints:
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self.flat[self.offsets[row] : self.offsets[row + 1]]

    def take(self, rows: Ints) -> HashIds:
        """These rows, in this order."""
        counts = np.diff(self.offsets)[rows]
        offsets = np.concatenate(([0], np.cumsum(counts)))
        inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
        return HashIds(self.flat[np.repeat(self.offsets[:-1][rows], counts) + inside], offsets)


@dataclass(frozen=True, eq=False)
class Loop:
    """What makes a workload closed: a request arrives `delay` s after the end of another one."""

    after: Ints  # the row that a row waits for, above it; -1: none, it arrives at its time
    delay: Floats  # s; 0 where there is nothing to wait for


@dataclass(frozen=True, eq=False)
class Labels:
    """A name a request."""

    names: tuple[str, ...]
    number: Ints  # of its name; -1: none

    def take(self, rows: Ints) -> Labels:
        return Labels(self.names, self.number[rows])


@dataclass(frozen=True, eq=False)
class Requests:
    """What arrives at the system."""

    arrival: Floats  # s from the start, not decreasing
    input_tokens: Ints  # prompt, at least 1
    output_tokens: Ints  # generated, at least 1
    hash_ids: HashIds | None  # chained prompt block ids; None: prefix reuse is not recorded
    block_tokens: int  # tokens of one hashed block; 0 where there are no hashes
    source: str  # the file, or what was generated
    notes: tuple[str, ...] = ()  # what a reader of the results should know
    out_of_order: int = 0  # rows of the file that were earlier than a row before them
    output_ids: HashIds | None = None  # ids of the further blocks that a prompt and its answer fill together
    kind: Labels | None = None  # SLO class of each; None: not recorded
    tenant: Labels | None = None
    session: Ints | None = None  # rows of one session have one number, from 0; -1: of none
    loop: Loop | None = None  # None: open, all arrivals are known
    absent: tuple[str, ...] = ()  # what requests have and this source does not record: "arrivals", "prefix reuse", ...
    skipped: int = 0  # malformed rows that were left out because that was asked for

    def __post_init__(self) -> None:
        lengths = {len(self.arrival), len(self.input_tokens), len(self.output_tokens)}
        lengths |= {len(self.hash_ids)} if self.hash_ids is not None else set()
        if len(lengths) > 1:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")
        if np.any(self.arrival[1:] < self.arrival[:-1]):
            raise ValueError("arrivals are not sorted")
        if self.loop is not None and np.any(self.loop.after >= np.arange(len(self))):
            raise ValueError("a request waits for one that comes after it")

    def __len__(self) -> int:
        return len(self.arrival)


def window(requests: Requests, start: float = 0.0, end: float = inf) -> Requests:
    """The requests with start <= arrival < end, on a clock that starts at `start` (s)."""
    low, high = np.searchsorted(requests.arrival, [start, end])
    kept = _rows(requests, np.arange(low, high))
    return replace(kept, arrival=kept.arrival - start)


def first(requests: Requests, limit: int | None) -> Requests:
    """The first `limit` requests; all of them for None."""
    if limit is None or limit >= len(requests):
        return requests
    return _rows(requests, np.arange(limit))


def _rows(requests: Requests, rows: Ints) -> Requests:
    """These rows, in ascending order; what waits for a row that is left out arrives at its own time."""
    loop = requests.loop
    if loop is not None:
        place = np.full(len(requests) + 1, -1)  # the last one is for rows that wait for none
        place[rows] = np.arange(len(rows))
        after = place[loop.after[rows]]
        loop = Loop(after, np.where(after >= 0, loop.delay[rows], 0.0))
    return replace(
        requests,
        kind=None if requests.kind is None else requests.kind.take(rows),
        tenant=None if requests.tenant is None else requests.tenant.take(rows),
        session=None if requests.session is None else requests.session[rows],
        loop=loop,
        arrival=requests.arrival[rows],
        input_tokens=requests.input_tokens[rows],
        output_tokens=requests.output_tokens[rows],
        hash_ids=None if requests.hash_ids is None else requests.hash_ids.take(rows),
        output_ids=None if requests.output_ids is None else requests.output_ids.take(rows),
    )


def scale(requests: Requests, rate_scale: float) -> Requests:
    """The same requests at `rate_scale` times the rate: arrival times divided by it; who waits waits as long as before."""
    if requests.loop is not None:
        return starting(requests, requests.arrival / rate_scale)
    return replace(requests, arrival=requests.arrival / rate_scale)


def answered(requests: Requests) -> Requests:
    """With at least one output token each, as servers give out; recorded answers can be empty (aborted, failed)."""
    empty = int(np.count_nonzero(requests.output_tokens < 1))
    if not empty:
        return requests
    note = f"{empty} answer{'s' if empty > 1 else ''} of 0 tokens taken as 1"
    return replace(requests, output_tokens=np.maximum(requests.output_tokens, 1), notes=(*requests.notes, note))


def starting(requests: Requests, arrival: Floats) -> Requests:
    """A closed loop whose requests that wait for none arrive at these times (the others' are not looked at), sorted anew."""
    loop = requests.loop
    assert loop is not None  # an open workload has all its times
    times = np.array(arrival, dtype=np.float64)
    for row in np.flatnonzero(loop.after >= 0).tolist():  # what it waits for stands above it
        times[row] = times[loop.after[row]] + loop.delay[row]
    order = np.argsort(times, kind="stable")
    return ordered(requests, times, order)


def ordered(requests: Requests, arrival: Floats, order: Ints) -> Requests:
    """The same requests at these times, in this order."""
    loop = requests.loop
    if loop is not None:
        place = np.full(len(order) + 1, -1)
        place[order] = np.arange(len(order))
        loop = Loop(place[loop.after[order]], loop.delay[order])
    rows = _rows(replace(requests, loop=None, arrival=np.zeros(len(order))), order)
    return replace(rows, arrival=arrival[order], loop=loop)


def all_at_once(requests: Requests) -> Requests:
    """All at time 0 in the order they have (for a file in time order: file order), for offline throughput. In a closed loop:
    all that wait for none."""
    what = "all requests" if requests.loop is None else "all sessions"
    kept = replace(requests, notes=(*requests.notes, f"recorded arrival times dropped: {what} at time 0"))
    times = np.zeros(len(requests))
    return replace(kept, arrival=times) if kept.loop is None else starting(kept, times)
