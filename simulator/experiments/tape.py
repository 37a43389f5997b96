"""What a run asked of far memory, step by step: the tape that `crosscheck` replays on the detailed devices.

A `Tape` is a `FarMemory` that writes down its arguments and changes nothing. One entry a call of `step` or `unread`, in the
order of the recorder's `far` rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.hardware.interference import UNDISTURBED, Slow
from simulator.kvcache.geometry import Geometry
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.far import FarMemory, FarStep


@dataclass(frozen=True)
class Entry:
    """One step that read far pages (`far` not empty) or produced KV for the pool."""

    far: list[int]  # pages each layer reads
    compute: list[float]  # s of each layer, codec operators of the GPU included
    host: float  # s before the layers
    head: float  # s after them
    window: int  # layers ahead; 0: on demand
    right: Sequence[int]  # pages prefetched, by layer; beyond the last layer: of the next step
    wrong: Sequence[int]
    room: int  # pages of staging
    lost: float  # share of what was read that belongs to sequences which ended
    waiting: float  # raw bytes that waited for write-back when the step began
    sent: float  # of them, sent since the last entry ended
    produced: float  # raw bytes sent when it ended


class Tape(FarMemory):
    def __init__(self, scenario: ScenarioResolved, geometry: Geometry, rng: np.random.Generator, checked: bool = False):
        super().__init__(scenario, geometry, rng, checked)
        self.entries: list[Entry] = []
        self._sent_before = 0.0
        self._planned: Any = None
        self._computed: list[float] = []

    def step(
        self, far: list[int], lost: float, host: float, layer: float, head: float, produced: float, slow: Slow = UNDISTURBED,
        sequences: int = 1, scores: float = 0.0,
    ) -> FarStep:  # fmt: skip
        waiting, sent = self.backlog, self.sent
        room = int(self.room / self.geometry.layer_bytes)
        found = super().step(far, lost, host, layer, head, produced, slow, sequences, scores)
        plan = self._planned
        self._note(far, self._computed, host, head, plan.window, plan.right, plan.wrong, room, lost, waiting, sent)
        return found

    def unread(self, produced: float, duration: float, slow: Slow = UNDISTURBED) -> FarStep:
        waiting, sent = self.backlog, self.sent
        found = super().unread(produced, duration, slow)
        self._note([], [], duration + self._pack * produced, 0.0, 0, [], [], 0, 0.0, waiting, sent)
        return found

    def _compute(self, far: list[int], layer: float, produced: float) -> tuple[list[float], float]:
        self._computed, codec = super()._compute(far, layer, produced)
        return self._computed, codec

    def _plan(self, *arguments: Any) -> Any:
        self._planned = super()._plan(*arguments)
        return self._planned

    def _note(
        self, far: list[int], compute: list[float], host: float, head: float, window: int, right: Sequence[int],
        wrong: Sequence[int], room: int, lost: float, waiting: float, sent: float,
    ) -> None:  # fmt: skip
        since, produced = sent - self._sent_before, self.sent - sent
        self._sent_before = self.sent
        right, wrong = [int(pages) for pages in right], [int(pages) for pages in wrong]
        self.entries.append(Entry(far, compute, host, head, window, right, wrong, room, lost, waiting, since, produced))
