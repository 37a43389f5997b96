"""What a run writes down while it goes: columns, not objects.

One row per run of equal steps (a run is one step, or many with unchanged membership), one row per request, and a few
rows for what is rare (preemption, waits between tokens). Everything else - step times, their parts, latencies,
percentiles, occupancy - is computed from these columns afterwards, so recording costs a few list operations a run.

Run index i means "the i-th row"; a request's time between two run indices is the sum of those rows. Step index k counts
single steps; it locates blocks in time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

WAITING, FINISHED, REJECTED, ABORTED = 0, 1, 2, 3
STATUS = ("waiting", "finished", "rejected", "aborted")

RUN_COLUMNS = {
    "start": np.float64,  # s, start of the first step
    "steps": np.int64,
    "decodes": np.int64,  # sequences that decode in each step
    "context": np.int64,  # context tokens the first step reads for them (`StepModel.reads` says of how many layers)
    "growth": np.int64,  # how many more each following step reads
    "prefill": np.int64,  # prompt tokens
    "rows": np.int64,  # tokens emitted by each step
    "prefill_compute": np.float64,  # s of prefill attention bound by FLOPs
    "prefill_hbm": np.float64,
    "far_blocks": np.int64,  # blocks with a home in L3
}
FAR_COLUMNS = {
    "run": np.int64,
    "duration": np.float64,
    "stall": np.float64,
    "codec": np.float64,
    "writeback": np.float64,
    "near": np.int64,  # pages read from L1 (per rank bundle)
    "asked": np.int64,  # pages read from L3
    "demand": np.int64,
    "in_time": np.int64,
    "late": np.int64,
    "staged": np.float64,  # bytes of L2 in use: reads and write-back
    "dragged": np.float64,  # s that layers took longer beside transfers
    "predicting": np.float64,  # s of the GPUs for the predictor
    # totals before the step; with the totals of the run, what each step added (`metrics/far_use.py`)
    "moved": np.int64,  # pages read from L3, useless ones included
    "sent": np.float64,  # raw bytes given to write-back
    "useless": np.int64,  # pages prefetched and never used
}
GIVEN_COLUMNS = {  # rows whose times are not those of one replica's step model: replicas in lock step
    "run": np.int64,
    "duration": np.float64,
    "compute": np.float64,
    "hbm": np.float64,
    "collective": np.float64,
    "launch": np.float64,
    "host": np.float64,
    "streaming": np.float64,  # s of HBM at full rate, of the mean GPU
    "computing": np.float64,  # s of tensor cores at full rate
}
CHUNK = 65536


@dataclass
class Struck:
    """A fault that happened, and requests that it hit."""

    at: float  # s
    end: float  # s; inf: for good
    what: str
    aborted: int = 0
    recomputed: int = 0  # lost pages, or their place, and started over


class Rows:
    """Tuples appended one by one, kept as numpy columns."""

    def __init__(self, columns: Mapping[str, type[np.generic]]):
        self.columns = columns
        self._rows: list[tuple[float, ...]] = []
        self._chunks: list[dict[str, np.ndarray]] = []
        self.count = 0

    def append(self, row: tuple[float, ...]) -> None:
        self._rows.append(row)
        self.count += 1
        if len(self._rows) >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        values = zip(*self._rows) if self._rows else ([] for _ in self.columns)
        self._chunks.append({name: np.array(column, dtype) for (name, dtype), column in zip(self.columns.items(), values)})
        self._rows = []

    def arrays(self) -> dict[str, np.ndarray]:
        self._flush()
        merged = {name: np.concatenate([chunk[name] for chunk in self._chunks]) for name in self.columns}
        self._chunks = [merged]
        return merged


class Recorder:
    def __init__(self, requests: int):
        self.runs = Rows(RUN_COLUMNS)
        self.far = Rows(FAR_COLUMNS)
        self.given = Rows(GIVEN_COLUMNS)
        self.status = [WAITING] * requests
        self.admitted = [np.nan] * requests  # s, first admission
        self.first_token = [np.nan] * requests
        self.finished = [np.nan] * requests
        self.queue_first = [0.0] * requests  # s in the queue before the first token
        self.queue_later = [0.0] * requests  # s in the queue after it (preempted)
        self.preemptions = [0] * requests
        self.cached_tokens = [0] * requests  # prompt tokens found in the prefix cache, over all admissions
        # run indices: latest admission before the first token; first row after the first token (again after a
        # preemption: `resumed_run`); first row after the end
        self.admit_run = [-1] * requests
        self.first_run = [-1] * requests
        self.resumed_run = [-1] * requests
        self.finish_run = [-1] * requests
        # blocks in time: those that prompt pieces write (step, blocks), and for each residence the step of the first
        # decode (-1: none), cached tokens then, the step before which it was released, blocks that its prompt had
        self.placements: list[tuple[int, int]] = []
        self.decode_step = [-1] * requests
        self.decode_cached = [0] * requests
        self.release_step = [-1] * requests
        self.placed_blocks = [0] * requests
        self.residences: list[tuple[int, int, int, int]] = []  # earlier ones, of preempted requests
        self.spans: list[tuple[int, bool, int, int]] = []  # request, before first token, from run, to run
        # gaps between tokens that are not one step: request, run whose first step ends the gap, time of the token before,
        # and whether the gap is one of that step's decodes (else it comes on top)
        self.gaps: list[tuple[int, int, float, bool]] = []
        # faults: what happened; what bounds far reads from a run index on; requests that were aborted: request, when,
        # tokens given out, when the last of them was
        self.faults: list[Struck] = []
        self.bounds: list[tuple[int, str]] = []
        self.aborted: list[tuple[int, float, int, float]] = []
        # prompt pieces, for the timeline only: run, request, tokens that were done before, tokens of the piece
        self.pieces: list[tuple[int, int, int, int]] | None = None
        self.standing: list[int] = []  # blocks held in each row in which the replica stood still

    def aborts(self, request: int, at: float, emitted: int, last_token: float) -> None:
        self.status[request] = ABORTED
        self.aborted.append((request, at, emitted, last_token))

    def waits(
        self, start: float, duration: float, near_blocks: int, far_blocks: int, staged: float, totals: tuple[int, float, int]
    ) -> None:  # fmt: skip
        """A time in which the replica stands still because far pages are out of reach; `totals`: the last columns of `far`."""
        run = self.runs.count
        self.standing.append(near_blocks + far_blocks)
        self.runs.append((start, 1, 0, 0, 0, 0, 0, 0.0, 0.0, far_blocks))
        self.far.append((run, duration, duration, 0.0, 0.0, 0, 0, 0, 0, 0, staged, 0.0, 0.0, *totals))
        self.given.append((run, duration, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0))

    def residence_ends(self, request: int, step: int, placed: int, again: bool) -> None:
        """The request's blocks are released before `step`; `again` if it will be placed once more."""
        if again:
            self.residences.append((self.decode_step[request], self.decode_cached[request], step, placed))
            self.decode_step[request] = -1
        else:
            self.release_step[request], self.placed_blocks[request] = step, placed
