"""Steps that began with copies of preempted sequences, where no far memory writes them down: of one replica, or of several in
lock step. A row of the recorder's `far` table each."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.kvcache.geometry import Geometry
from simulator.metrics.recorder import Recorder
from simulator.scheduler.swap import Swap


class SwapSteps:
    def __init__(self, swaps: Sequence[Swap | None], geometry: Geometry, recorder: Recorder):
        self._swaps = [swap for swap in swaps if swap is not None]
        self._geometry, self._recorder = geometry, recorder
        self._before = (0, 0.0)  # pages back and raw bytes out, up to the last step with swaps

    def note(self, run: int, duration: float, waited: float) -> None:
        """A step took so long, copies included."""
        back, out = (sum([getattr(swap, name) for swap in self._swaps]) for name in ("blocks_in", "blocks_out"))
        before, self._before = self._before, (back * self._geometry.layers, out * self._geometry.block_bytes)
        self._recorder.far.append((run, duration, 0.0, 0.0, 0.0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, waited, *before, 0))
