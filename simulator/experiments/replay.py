"""Replay of recorded steps on the detailed devices (`scheduler.bursts`), in the batches of the recording.

One process walks the rows of the window. Write-back is sent when the recorded run sent it. Rows without far reads last as long
as they did; idle time passes.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import simpy

from simulator.experiments.tape import Entry
from simulator.hardware.detailed.system import FarSystem
from simulator.kvcache.geometry import Geometry
from simulator.scheduler.bursts import FarBursts


@dataclass(frozen=True)
class Row:
    """Steps of the window that were recorded together: one with far memory, or several equal ones without."""

    start: float  # s, on the recorded clock
    duration: float  # s, recorded
    entry: Entry | None


class Replay:
    """Rows one after the other; `ends` has when each ended, on the clock of the recording."""

    def __init__(
        self, env: simpy.Environment, system: FarSystem, geometry: Geometry, delay: float, wraps: bool, knows: bool
    ):  # fmt: skip
        """As `FarBursts`."""
        self.env = env
        self.bursts = FarBursts(env, system, geometry, delay, wraps, knows)
        self.starts: list[float] = []
        self.ends: list[float] = []

    def run(self, rows: Sequence[Row]) -> None:
        self.env.run(until=self.env.process(self._rows(rows)))

    def _rows(self, rows: Sequence[Row]) -> Generator[simpy.Event, Any, None]:
        env, bursts, slices, offset = self.env, self.bursts, self.bursts.system.slices, rows[0].start
        for number, row in enumerate(rows):
            idle = row.start - offset - env.now
            previous = rows[number - 1] if number else None
            if previous is not None and row.start > previous.start + previous.duration * (1 + 1e-9) and idle > 0.0:
                yield env.timeout(idle)  # nothing was there to do before
            self.starts.append(offset + env.now)
            entry = row.entry
            if entry is None:
                bursts.drop()
                yield env.timeout(row.duration)
            else:
                bursts.write((entry.sent if number else entry.waiting) / slices)
                yield from bursts.drained()
                if entry.far:
                    following = rows[number + 1].entry if number + 1 < len(rows) else None
                    yield from self._step(entry, following.far if following else [])
                else:
                    bursts.drop()
                    yield env.timeout(entry.host)
                bursts.write(entry.produced / slices)
                yield from bursts.drained()
            self.ends.append(offset + env.now)

    def _step(self, entry: Entry, following: list[int]) -> Generator[simpy.Event, Any, None]:
        env, bursts = self.env, self.bursts
        if not entry.window:
            bursts.drop()
        yield env.timeout(entry.host)
        if entry.window:
            yield from bursts.ahead(entry.far, entry.compute, entry.window, entry.right, entry.wrong, following)
        else:
            yield from bursts.on_demand(entry.far, entry.compute, entry.room)
        yield env.timeout(entry.head)
        if entry.lost:
            bursts.lose(entry.lost)
