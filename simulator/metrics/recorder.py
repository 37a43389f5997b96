"""What a run writes down while it goes: columns, not objects.

One row per run of equal steps (a run is one step, or many with unchanged membership), one row per request, and a few
rows for what is rare (preemption, waits between tokens). Everything else - step times, their parts, latencies,
percentiles, occupancy - is computed from these columns afterwards, so recording costs a few operations a run. Columns are
arrays of machine numbers: at a million requests, objects would take five times the memory and the time to read them.

Run index i means "the i-th row"; a request's time between two run indices is the sum of those rows. Step index k counts
single steps; it locates blocks in time.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
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
    "swapped": np.float64,  # s that the step waited for copies of preempted sequences
    # totals before the step; with the totals of the run, what each step added (`metrics/far_use.py`)
    "moved": np.int64,  # pages read from L3, useless ones included
    "sent": np.float64,  # raw bytes given to write-back
    "useless": np.int64,  # pages prefetched and never used
}
READER_COLUMNS = {  # far memory: from row `row` of `far` on, a request reads `weight` far blocks (0: none) in each step
    "row": np.int64,
    "request": np.int64,
    "weight": np.int64,
    "decodes": np.int64,  # 1: only in steps that decode
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


@dataclass(eq=False)
class Struck:
    """A fault that happened, and requests that it hit."""

    at: float  # s
    end: float  # s; inf: for good
    what: str
    aborted: int = 0
    recomputed: int = 0  # lost pages, or their place, and started over


PER_REQUEST = (
    "status", "admitted", "first_token", "finished", "queue_first", "queue_later", "preemptions", "cached_tokens", "admit_run",
    "first_run", "resumed_run", "finish_run", "decode_step", "decoded", "decode_cached", "release_step", "placed_blocks",
)  # fmt: skip


class Rows:
    """Tuples appended one by one, flat in memory as doubles (exact for whole numbers below 2^53), read as numpy columns."""

    def __init__(self, columns: Mapping[str, type[np.generic]]):
        self.columns = columns
        self._flat = array("d")
        self._read: dict[str, np.ndarray] = {}
        self._read_at = -1  # rows of `_read`
        self.count = 0

    def append(self, row: tuple[float, ...]) -> None:
        self._flat.extend(row)
        self.count += 1

    def arrays(self) -> dict[str, np.ndarray]:
        if self._read_at != self.count:
            table = np.frombuffer(self._flat).reshape(self.count, len(self.columns))
            self._read = {name: table[:, at].astype(dtype) for at, (name, dtype) in enumerate(self.columns.items())}
            self._read_at = self.count
        return self._read


class Recorder:
    def __init__(self, requests: int):
        self.runs = Rows(RUN_COLUMNS)
        self.far = Rows(FAR_COLUMNS)
        self.given = Rows(GIVEN_COLUMNS)
        self.readers = Rows(READER_COLUMNS)
        never = array("d", [np.nan]) * requests
        zero, none = array("q", [0]) * requests, array("q", [-1]) * requests
        self.status = array("b", [WAITING]) * requests
        self.admitted = never[:]  # s, first admission
        self.first_token = never[:]
        self.finished = never
        self.queue_first = array("d", [0.0]) * requests  # s in the queue before the first token
        self.queue_later = array("d", [0.0]) * requests  # s in the queue after it (preempted)
        self.preemptions = zero[:]
        self.cached_tokens = zero[:]  # prompt tokens found in the prefix cache, over all admissions
        # blocks of prompts that have an id, over all admissions, and those of them that were found, by tier
        self.prefix_blocks = dict.fromkeys(("asked", "l1", "l2", "l3"), 0)
        # run indices: latest admission before the first token; first row after the first token (again after a
        # preemption: `resumed_run`); first row after the end
        self.admit_run = none[:]
        self.first_run = none[:]
        self.resumed_run = none[:]
        self.finish_run = none[:]
        # blocks in time: those that prompt pieces write (step, blocks), and for each residence the step of the first
        # decode (-1: none), cached tokens then, the step before which it was released, blocks that its prompt had
        self.placements = Rows({"step": np.int64, "blocks": np.int64})
        # the decode step before which each step came in which prompts alone ran, decodes waiting: of each replica in lock step;
        # and in which of those (not 0) a request is
        self.held = [array("q")]
        self.lane: dict[int, int] = {}
        self.swapped = Rows({"run": np.int64, "blocks": np.int64})  # blocks that are swapped out more from this row on
        self.decode_step = none[:]  # steps in which they were held do not count here
        self.decoded = zero[:]  # decode steps from there to the release
        self.decode_cached = zero[:]
        self.release_step = none
        self.placed_blocks = zero
        self.residences: list[tuple[int, ...]] = []  # earlier ones, of preempted requests, and their replica in lock step
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

    def beside(self) -> Recorder:
        """The recorder of another replica: rows of its own, one column of all requests for all replicas."""
        other = Recorder(0)
        for name in PER_REQUEST:
            setattr(other, name, getattr(self, name))
        if self.pieces is not None:
            other.pieces = []
        return other

    def of(self, requests: Sequence[int]) -> Recorder:
        """After the run: the same with these requests alone, numbered in this order; its rows are not copied."""
        own = Recorder(0)
        number = {request: index for index, request in enumerate(requests)}
        for name, value in vars(self).items():
            setattr(own, name, value)
        rows = np.asarray(requests, dtype=np.int64)
        for name in PER_REQUEST:
            column = getattr(self, name)
            setattr(own, name, array(column.typecode, np.frombuffer(column, dtype=column.typecode)[rows].tobytes()))
        for name in ("spans", "gaps", "aborted"):
            setattr(own, name, [(number[row[0]], *row[1:]) for row in getattr(self, name)])
        own.lane = {number[request]: lane for request, lane in self.lane.items() if request in number}
        if self.pieces is not None:
            own.pieces = [(run, number[request], done, take) for run, request, done, take in self.pieces]
        return own

    def gives_up(self, request: int) -> bool:
        """The request ended without its last token."""
        return self.status[request] in (REJECTED, ABORTED)

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
        self.far.append((run, duration, duration, 0.0, 0.0, 0, 0, 0, 0, 0, staged, 0.0, 0.0, 0.0, *totals))
        self.given.append((run, duration, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0))

    def residence_ends(self, request: int, step: int, placed: int, decoded: int, again: bool) -> None:
        """The request's blocks are released before `step`, after `decoded` decode steps; `again` if it will be placed once
        more."""
        if again:
            lane = self.lane.get(request, 0)
            self.residences.append((self.decode_step[request], self.decode_cached[request], step, placed, decoded, lane))
            self.decode_step[request] = -1
        else:
            self.release_step[request], self.placed_blocks[request], self.decoded[request] = step, placed, decoded
