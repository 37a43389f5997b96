"""Requests as columns: when each arrives, how many tokens it brings and asks for, and which prompt blocks it shares.

Modelled: open arrivals on a clock that starts at 0, token counts, and the chained block hashes of a recorded prompt.
Not modelled: token contents, sessions that wait for an answer, users, cancellation.
Rows are sorted by arrival; rows of the same time keep the order of their source.
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

    def __post_init__(self) -> None:
        lengths = {len(self.arrival), len(self.input_tokens), len(self.output_tokens)}
        lengths |= {len(self.hash_ids)} if self.hash_ids is not None else set()
        if len(lengths) > 1:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")
        if np.any(self.arrival[1:] < self.arrival[:-1]):
            raise ValueError("arrivals are not sorted")

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
    return replace(
        requests,
        arrival=requests.arrival[rows],
        input_tokens=requests.input_tokens[rows],
        output_tokens=requests.output_tokens[rows],
        hash_ids=None if requests.hash_ids is None else requests.hash_ids.take(rows),
        output_ids=None if requests.output_ids is None else requests.output_ids.take(rows),
    )


def scale(requests: Requests, rate_scale: float) -> Requests:
    """The same requests at `rate_scale` times the rate: arrival times divided by it."""
    return replace(requests, arrival=requests.arrival / rate_scale)


def all_at_once(requests: Requests) -> Requests:
    """All at time 0 in the order they have (for a file in time order: file order), for offline throughput."""
    note = "recorded arrival times dropped: all requests at time 0"
    return replace(requests, arrival=np.zeros(len(requests)), notes=(*requests.notes, note))
