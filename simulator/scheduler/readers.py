"""Who reads how much of each step with far memory: what `metrics.far_share` charges requests by.

Told by the planner before each such step. Of a decoding sequence only changes are written down. A weight is the far blocks that
a request reads, by residency:

    split      its blocks in L3; those that leave L1 in a step are read from HBM once more, so they count from the next one
    lru        by counts a layer misses all blocks or none, so each request has all its blocks but the newest
    by name    the far pages that its lookup found, in each step
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from simulator.metrics.recorder import Recorder


class Readers:
    def __init__(self, recorder: Recorder):
        self._recorder = recorder
        self._noted: dict[int, int] = {}  # weights that hold now, but 0
        self._changed: dict[int, None] = {}
        self._pieces: dict[int, int] = {}  # weights that hold in the step that is being planned alone
        self.later: dict[int, int] = {}  # by how much weights change with the step after the one that is being planned

    def begin(self) -> None:
        """Another step is planned."""
        self._pieces = {}

    def of_step(self, decodes: bool) -> dict[int, int]:
        """Weights of all that read in the step that was planned; without `decodes` the decoding sequences wait."""
        return {**self._noted, **self._pieces} if decodes else dict(self._pieces)

    def change(self, requests: Iterable[int]) -> None:
        """What these decoding sequences read is another number from the next step on."""
        self._changed.update(dict.fromkeys(requests))

    def changed(self) -> dict[int, None]:
        """Asked once a step: those whose weights may be others now."""
        changed, self._changed, self.later = self._changed, dict.fromkeys(self.later), {}
        return changed

    def decode(self, weights: Iterable[tuple[int, int]]) -> None:
        """From the step that is being planned on, in steps that decode."""
        self._note(weights, 1)

    def read(self, weights: Mapping[int, int]) -> None:
        """What all readers of this step read; the others read nothing."""
        self._pieces = dict(weights)
        gone = [(request, 0) for request in self._noted if request not in weights]
        self._note([*gone, *weights.items()], 0)

    def prompt(self, request: int, weight: int) -> None:
        """The past of a prompt piece, in this step alone."""
        if weight > 0:
            row, readers = self._recorder.far.count, self._recorder.readers
            readers.append((row, request, weight, 0))
            self._pieces[request] = self._pieces.get(request, 0) + weight
            readers.append((row + 1, request, 0, 0))

    def _note(self, weights: Iterable[tuple[int, int]], decodes: int) -> None:
        row, readers, noted = self._recorder.far.count, self._recorder.readers, self._noted
        for request, weight in weights:
            if weight != noted.get(request, 0):
                readers.append((row, request, weight, decodes))
                if weight:
                    noted[request] = weight
                else:
                    del noted[request]
