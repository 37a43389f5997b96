"""The coherence directory of a board: device-mediated MESI over pool memory, finite and inclusive.

Modelled: the board is the home of every line (of `grain` bytes); a GPU holds a line Shared, Exclusive or Modified only while
the directory has an entry for it. What an access costs are messages to GPUs, each a round trip over the links:

    access   entry          messages                               afterwards
    read     none           -                                      E of the reader
    read     S              -                                      S, reader added
    read     E, M of other  snoop (M: dirty data written back)     S of both
    write    S of others    an invalidation each (in parallel)     M of the writer
    write    E, M of other  snoop and invalidate (M: written back) M of the writer
    current  M of other     snoop (written back)                   unchanged but clean: S of the owner; reader not tracked
    evict    held           notice (M: written back)               holder removed, entry gone with the last one

An entry that is needed while its set is full recalls the least recently used one: every holder is invalidated, dirty data
is written back. `current` (RdCurr of CXL) is how prefetched pages are read: once written, KV does not change.
Not modelled: races between messages (an access is atomic); retries.
Events: none; the DMA engine asks when it takes up a descriptor, for many lines at once (`lines.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class DirectoryParameters:
    entries: int
    ways: int
    grain: float  # bytes of a line
    latency: float  # s per look-up


@dataclass(eq=False, slots=True)
class Entry:
    sharers: set[int] = field(default_factory=set)  # S; only asked for membership and size
    owner: int | None = None  # E or M
    dirty: bool = False  # M

    @property
    def state(self) -> str:
        if self.owner is None:
            return "S"
        return "M" if self.dirty else "E"


class Cost(NamedTuple):
    """Round trips one after the other, invalidations and snoops sent, lines written back."""

    rounds: int
    messages: int
    written_back: int


NOTHING = Cost(0, 0, 0)


class Directory:
    def __init__(self, spec: DirectoryParameters):
        if spec.entries % spec.ways:
            raise ValueError(f"{spec.entries} directory entries are not whole sets of {spec.ways} ways")
        self.spec = spec
        self.recalls = self.messages = self.written_back = 0
        self._held = 0  # entries
        self._sets: list[dict[int, Entry]] = [{} for _ in range(spec.entries // spec.ways)]

    def lines(self, address: float, size: float) -> range:
        """Numbers of the lines that a range touches."""
        grain = self.spec.grain
        return range(int(address // grain), int(-(-(address + size) // grain)))

    def state(self, line: int) -> str:
        """M, E, S, or I where there is no entry."""
        entry = self._set(line).get(line)
        return entry.state if entry else "I"

    def holders(self, line: int) -> set[int]:
        """GPUs that hold a copy."""
        entry = self._set(line).get(line)
        if entry is None:
            return set()
        return set(entry.sharers) if entry.owner is None else {entry.owner}

    def read(self, line: int, gpu: int) -> Cost:
        """A tracked read: afterwards the GPU holds the line."""
        entry, recall = self._entry(line)
        if entry.owner is None:
            if entry.sharers:
                entry.sharers.add(gpu)
            else:
                entry.owner = gpu
            return recall
        if entry.owner == gpu:
            return recall
        written = int(entry.dirty)
        entry.sharers = {entry.owner, gpu}
        entry.owner, entry.dirty = None, False
        return self._cost(recall, 1, 1, written)

    def write(self, line: int, gpu: int) -> Cost:
        """Afterwards the GPU owns the line, modified."""
        entry, recall = self._entry(line)
        others = len(entry.sharers - {gpu}) if entry.owner is None else int(entry.owner != gpu)
        written = int(entry.dirty and entry.owner != gpu)
        entry.sharers, entry.owner, entry.dirty = set(), gpu, True
        return self._cost(recall, int(others > 0), others, written)

    def current(self, line: int, gpu: int) -> Cost:
        """An untracked read of the data as it is now."""
        entry = self._set(line).get(line)
        if entry is None or not entry.dirty or entry.owner == gpu:
            return NOTHING
        assert entry.owner is not None
        entry.sharers, entry.owner, entry.dirty = {entry.owner}, None, False
        return self._cost(NOTHING, 1, 1, 1)

    def evict(self, line: int, gpu: int) -> Cost:
        """The GPU gives its copy up."""
        held = self._set(line)
        entry = held.get(line)
        if entry is None:
            return NOTHING
        written = int(entry.dirty and entry.owner == gpu)
        if entry.owner == gpu:
            entry.owner, entry.dirty = None, False
        entry.sharers.discard(gpu)
        if entry.owner is None and not entry.sharers:
            del held[line]
            self._held -= 1
        return self._cost(NOTHING, 0, 0, written)

    def _set(self, line: int) -> dict[int, Entry]:
        return self._sets[line % len(self._sets)]

    def _entry(self, line: int) -> tuple[Entry, Cost]:
        """The entry of a line, most recently used now, and what making room for it costs."""
        held, cost = self._set(line), NOTHING
        entry = held.pop(line, None)
        if entry is None:
            entry = Entry()
            self._held += 1
            if len(held) >= self.spec.ways:
                victim = held.pop(next(iter(held)))
                self.recalls += 1
                self._held -= 1
                copies = len(victim.sharers) if victim.owner is None else 1
                cost = self._cost(NOTHING, 1, copies, int(victim.dirty))
        held[line] = entry
        return entry, cost

    def _cost(self, before: Cost, rounds: int, messages: int, written: int) -> Cost:
        self.messages += messages
        self.written_back += written
        return Cost(before.rounds + rounds, before.messages + messages, before.written_back + written)
