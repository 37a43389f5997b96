"""Compression or decompression pipelines of a board.

Modelled: `engines` equal pipelines; each has `lanes` that take `lane_bytes` raw bytes every `interval` cycles, and is
`depth` cycles deep. A descriptor takes whole cycles:

    cycles = ceil(raw bytes / (lanes x lane_bytes)) x interval,      fill = depth x cycle.

A train spreads its descriptors over all engines. The size of the output varies from burst to burst where a spread is given
(`FarSystem`: uniform around the mean); a burst that would not become smaller is bypassed: stored raw, it crosses no lanes but
keeps the order and so the fill. A full output buffer stops the pipeline (`Device`).
Not modelled: what the bytes are (`simulator.catalog` ratios; the reference codec measures them).
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heapreplace
from math import ceil, inf

import simpy

from simulator.hardware.detailed.device import Burst, Device


@dataclass(frozen=True)
class PipelineParameters:
    engines: int
    lanes: int
    lane_bytes: float  # raw bytes that a lane takes at a time
    cycle: float  # s; 0 is infinitely fast
    interval: int  # cycles between two inputs of a lane
    depth: int  # cycles from first byte in to first byte out

    @property
    def engine_rate(self) -> float:
        """Raw bytes/s of one engine."""
        period = self.interval * self.cycle
        return self.lanes * self.lane_bytes / period if period > 0.0 else inf

    @property
    def fill(self) -> float:
        return self.depth * self.cycle

    def seconds(self, size: float) -> float:
        """Occupation of one engine by one descriptor: whole cycles."""
        words = size / (self.lanes * self.lane_bytes)
        return ceil(words * (1.0 - 1e-12)) * self.interval * self.cycle


class Pipelines(Device):
    """All engines of one direction on a board."""

    def __init__(self, env: simpy.Environment, name: str, spec: PipelineParameters, fill: float, stored: float):
        """`fill` (s) is given, not computed, where a board states it; `stored`: mean stored bytes per raw byte."""
        self.spec, self._stored = spec, stored
        self._free = [0.0] * spec.engines  # when each engine is free
        heapify(self._free)
        self.bypassed = 0
        super().__init__(env, name, spec.engine_rate * spec.engines, 1.0, fill)

    def bypasses(self, burst: Burst) -> bool:
        """Whether a burst does not compress and is stored raw."""
        return self._stored < 1.0 <= self._stored * burst.stored

    def service(self, burst: Burst) -> float:
        """The burst goes to the engine that has been free longest; the next one starts when an engine is free."""
        now, free = self.env.now, self._free
        if self.bypasses(burst):
            self.bypassed += burst.descriptors
            return 0.0
        engines = min(self.spec.engines, burst.descriptors)
        each = self.spec.seconds(burst.size / burst.descriptors) * burst.descriptors / engines
        for _ in range(engines):
            heapreplace(free, max(free[0], now) + each)
        return max(0.0, free[0] - now)

    def data_time(self, burst: Burst) -> float:
        if self.bypasses(burst):
            return 0.0
        engines = min(self.spec.engines, burst.descriptors)
        return self.spec.seconds(burst.size / burst.descriptors) * burst.descriptors / engines
