"""Fetches for sessions from a pool that replicas share: transfers like those of the steps, of the class of prefetches.

A fetch joins the stream of its replica (`shared.Flows`): behind what was issued before it, after demand, at the share of the
fabric that others leave. What has come is there in whole blocks; the rest of a fetch whose turn has come is cancelled.
Events: those of the transfers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, inf

import numpy as np

from simulator.hardware.fabric import PREFETCH
from simulator.prefetch.pipeline import Counts
from simulator.prefetch.session import Fetch, SessionPrefetch
from simulator.scenario.resolved import Prefetch
from simulator.scheduler.shared import Flows, Read


class SessionFlows(SessionPrefetch):
    def __init__(self, spec: Prefetch, rng: np.random.Generator, block_bytes: float, room: int, flows: Flows):
        """`room`: blocks of L2; a block is so many raw bytes."""
        super().__init__(spec, rng, 0.0, 0.0, room)
        self._bytes, self._flows = block_bytes, flows
        self._reads: dict[int, Read] = {}  # turn -> what is, or was, on its way for it

    def fetch(self, turn: int, ids: Sequence[int], now: float) -> None:
        super().fetch(turn, ids, now)
        fetch = self._fetches.get(turn)
        if fetch is not None and fetch.blocks:
            fetch.finish = inf  # it has come when the transfer says so
            self._reads[turn] = self._flows.read(fetch.blocks * self._bytes, PREFETCH, 0.0)

    def take(self, turn: int, used: int, now: float) -> Counts:
        counts = super().take(turn, used, now)
        self._stop(turn)
        return counts

    def cut(self, now: float) -> None:
        super().cut(now)
        for turn in [*self._reads]:
            self._stop(turn)

    def busy(self, now: float, seconds: float) -> None:
        """The stream knows."""

    def _follow(self, now: float) -> None:
        """The stream has an order of its own."""

    def _moved(self, turn: int, fetch: Fetch, now: float) -> int:
        read = self._reads.get(turn)
        if read is None:
            return fetch.blocks
        return fetch.blocks if read.done.triggered else floor(read.arrived / self._bytes + 1e-9)

    def _stop(self, turn: int) -> None:
        read = self._reads.pop(turn, None)
        if read is not None and not read.done.triggered:
            self._flows.cancel(read)
