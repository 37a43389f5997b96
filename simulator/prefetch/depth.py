"""How far ahead to prefetch, decided while the run goes on (design 3.5). Depth is layers ahead; of `cxl_speckv`, pages a hint.

    fixed     what the scenario says
    additive  the authors' rule: over the last 10 steps, one more above 95 % of useful prefetches, one less below 85 %; from 2
              to 8
    ucb       a bandit over the depths 1, 2, 4, 8, 16: the arm with the highest r + sqrt(2 ln n / n_k), where the reward r of a
              step is the share of its time that was not stalled (the authors name UCB and give no formula; Auer et al. 2002)
    feedback  bandwidth feedback: where demand waited while the link was busy, half; else one more, up to 16

All are deterministic. A plug-in is a class and one line in `CONTROLS`. Events: none.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import log, sqrt
from typing import Protocol

from simulator.scenario.resolved import Prefetch

RECENT, RAISE, LOWER, LEAST, MOST = 10, 0.95, 0.85, 2, 8
ARMS = (1, 2, 4, 8, 16)
BUSY = 0.95  # of a step, of the read stream


@dataclass(frozen=True)
class Seen:
    """What a step showed: prefetched pages used and useless, times in s, demand pages, use of the read stream."""

    used: int
    useless: int
    stall: float
    duration: float
    demand: int
    link: float


class DepthControl(Protocol):
    depth: int

    def observe(self, seen: Seen) -> None:
        """A step with far pages is over."""


class Fixed:
    def __init__(self, spec: Prefetch, start: int):
        self.depth = start

    def observe(self, seen: Seen) -> None:
        pass


class Additive:
    def __init__(self, spec: Prefetch, start: int):
        self.depth = min(max(start, LEAST), MOST)
        self._last: deque[float] = deque(maxlen=RECENT)

    def observe(self, seen: Seen) -> None:
        fetched = seen.used + seen.useless
        if not fetched:
            return
        self._last.append(seen.used / fetched)
        if len(self._last) == RECENT:
            mean = sum(self._last) / RECENT
            if mean > RAISE and self.depth < MOST:
                self.depth += 1
            elif mean < LOWER and self.depth > LEAST:
                self.depth -= 1


class Ucb:
    def __init__(self, spec: Prefetch, start: int):
        self._tried = [0] * len(ARMS)
        self._reward = [0.0] * len(ARMS)
        self._arm = 0
        self.depth = ARMS[0]

    def observe(self, seen: Seen) -> None:
        self._tried[self._arm] += 1
        self._reward[self._arm] += 1.0 - min(1.0, max(0.0, seen.stall / seen.duration)) if seen.duration else 1.0
        self._arm = self._best()
        self.depth = ARMS[self._arm]

    def _best(self) -> int:
        for arm, tried in enumerate(self._tried):
            if not tried:
                return arm
        spread = 2.0 * log(sum(self._tried))
        scores = [reward / tried + sqrt(spread / tried) for reward, tried in zip(self._reward, self._tried)]
        return scores.index(max(scores))


class Feedback:
    def __init__(self, spec: Prefetch, start: int):
        self.depth = max(1, start)

    def observe(self, seen: Seen) -> None:
        if seen.demand and seen.link > BUSY:
            self.depth = max(1, self.depth // 2)
        else:
            self.depth = min(ARMS[-1], self.depth + 1)


CONTROLS: dict[str, type[Fixed] | type[Additive] | type[Ucb] | type[Feedback]] = {
    "fixed": Fixed,
    "additive": Additive,
    "ucb": Ucb,
    "feedback": Feedback,
}
