"""A run of equal steps: durations that grow evenly with the context, so that many steps are one expression.

Its clock is the sequential sum of the durations, so a run ends at the same byte as its single steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

SHORT_RUN = 12  # up to this many steps a Python loop is faster than numpy


@dataclass(slots=True)
class Run:
    """Equal steps from `start`, at most `limit`: each takes base + per_token * its context + extra."""

    start: float
    base: float
    per_token: float
    context: int  # of the first step
    growth: int  # of the context, a step
    extra: float
    limit: int

    def to(self, until: float) -> tuple[int, float, float]:
        """Steps up to the one in which `until` falls, the end of the last one, the end of the one before it."""
        now, base, per_token, context, growth, extra = (
            self.start, self.base, self.per_token, self.context, self.growth, self.extra
        )  # fmt: skip
        first, limit = base + per_token * context + extra, self.limit
        if limit > 1 and until < inf:
            limit = max(1, min(limit, int((until - now) / first) + 1))
        if limit <= SHORT_RUN:
            end, steps, last = now + first, 1, now
            while steps < limit and end < until:
                last = end
                end += base + per_token * (context + growth * steps) + extra
                steps += 1
            return steps, end, last
        ends = base + per_token * (context + growth * np.arange(limit)) + extra
        ends[0] += now
        np.add.accumulate(ends, out=ends)
        steps = limit if until == inf else min(limit, int(np.searchsorted(ends, until)) + 1)
        return steps, float(ends[steps - 1]), float(ends[steps - 2]) if steps > 1 else now
