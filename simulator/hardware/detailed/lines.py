"""Many lines of a coherence directory at once, exactly as if they were asked for one by one.

A DMA read touches hundreds of consecutive lines that nobody else holds: each becomes Exclusive, costs nothing, and is given up
again. Such a *run* of lines of one GPU is kept as two numbers. It is spelled out, entry by entry in the order of the reads, as
soon as anything could tell: a set that might overflow, another GPU, a write, a look at a single line. A run of n lines has at
most ceil(n / sets) of them in a set, and two runs only meet in a set if they overlap modulo the number of sets.
Events: none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from simulator.hardware.detailed.directory import Directory, DirectoryParameters, Entry


@dataclass(eq=False, slots=True)
class Run:
    """Lines [first, end) that a GPU holds Exclusive."""

    gpu: int
    first: int
    end: int
    reads: list[tuple[int, range]] = field(default_factory=list)  # (number of the read, lines): the order for LRU


class Lines(Directory):
    def __init__(self, spec: DirectoryParameters):
        super().__init__(spec)
        self._runs: list[Run] = []  # beside the entries
        self._reads = 0

    def read_all(self, lines: range, gpu: int) -> int:
        """`read` of each; round trips, those of different lines at once."""
        if not self._held:
            run = next((one for one in self._runs if one.gpu == gpu and one.first <= lines.start <= one.end), None)
            if run is None:
                run = Run(gpu, lines.start, lines.start)
            whole = range(run.first, max(run.end, lines.stop))
            if self._fits(whole, run, -(-len(whole) // len(self._sets))):
                if run.first == run.end:
                    self._runs.append(run)
                run.end = max(run.end, lines.stop)
                run.reads.append((self._reads, lines))
                self._reads += 1
                return 0
        return max([self.read(line, gpu).rounds for line in lines], default=0)

    def current_all(self, lines: range, gpu: int) -> int:
        """`current` of each; round trips as above."""
        if not self._held:  # nobody has anything that could be dirty
            return 0
        return max([self.current(line, gpu).rounds for line in lines], default=0)

    def write_through(self, lines: range, gpu: int) -> int:
        """`write` and `evict` of each: what is written leaves no copy behind. Round trips as above."""
        if not self._held and self._fits(lines, None, 1):
            self.written_back += len(lines)
            return 0
        rounds = 0
        for line in lines:
            rounds = max(rounds, self.write(line, gpu).rounds)
            self.evict(line, gpu)
        return rounds

    def evict_all(self, lines: range, gpu: int) -> None:
        """`evict` of each."""
        mine = [run for run in self._runs if run.gpu == gpu and run.first < lines.stop and lines.start < run.end]
        if self._held or any(run.first < lines.start for run in mine):
            for line in lines:
                self.evict(line, gpu)
            return
        for run in mine:
            run.first = min(lines.stop, run.end)
            if run.first == run.end:
                self._runs.remove(run)

    def _fits(self, lines: range, own: Run | None, most: int) -> bool:
        """With these, `most` of them in a set at once, no set overflows, and none of them is in another run than `own`."""
        sets, ways = len(self._sets), self.spec.ways - most
        for run in self._runs:
            if run is not own:
                length = run.end - run.first
                if run.first < lines.stop and lines.start < run.end:
                    return False
                if (run.first - lines.start) % sets < len(lines) or (lines.start - run.first) % sets < length:
                    ways -= -(-length // sets)
        return ways >= 0

    def _set(self, line: int) -> dict[int, Entry]:
        if self._runs:
            runs, self._runs = self._runs, []
            for _, at, lines in sorted([(number, at, lines) for at, run in enumerate(runs) for number, lines in run.reads]):
                for one in range(max(lines.start, runs[at].first), lines.stop):
                    self._entry(one)[0].owner = runs[at].gpu
        return super()._set(line)
