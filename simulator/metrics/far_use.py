"""What each step with far memory added to the traffic, from totals recorded before it and the totals of the run.

A row of the recorder's `far` table is a step; what happens until the next row (prefetches taken back after a batch ended)
is counted with it. Sums over the rows are exactly the totals of the run.

    moved    pages set in motion from L3, useless ones included; negative where more was taken back than set in motion
    sent     raw bytes given to write-back        useless  pages prefetched and never used
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.metrics.traffic import Traffic


def by_step(far: dict[str, NDArray[np.generic]], traffic: Traffic) -> dict[str, NDArray[np.float64]]:
    """`moved`, `sent`, `useless` of each far row."""
    totals = {"moved": traffic.moved, "sent": traffic.sent_bytes, "useless": traffic.useless}
    found = {}
    for name, total in totals.items():
        before = far[name].astype(np.float64)
        first = np.zeros(min(1, len(before)))  # what came before the first row belongs to it
        found[name] = np.diff(np.concatenate([first, before[1:], np.full(len(first), float(total))]))
    return found
