"""Hit rates of eviction policies on a recorded stream of requests that name their blocks: no time, one tier.

Per request: count the leading run of its blocks that the tier holds (a prefix cache can use no others), use its blocks last
to first, so that the head is the most recent, then evict. A chain's head is its first block; blocks may be shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from simulator.kvcache.eviction import Pages, Policy
from simulator.kvcache.tier import Ids, Tier


class Columns:
    """Plain columns for the pages of a stream; order: the request that used a page first."""

    def __init__(self, index: NDArray[np.int64], order: NDArray[np.int64], value: NDArray[np.float64]):
        self.uses = np.zeros(len(index), np.int64)
        self.index, self.order, self.value = index, order, value

    def uses_of(self, ids: Ids) -> NDArray[np.int64]:
        return self.uses[ids]

    def index_of(self, ids: Ids) -> NDArray[np.int64]:
        return self.index[ids]

    def order_of(self, ids: Ids) -> NDArray[np.int64]:
        return self.order[ids]

    def value_of(self, ids: Ids) -> NDArray[np.float64]:
        return self.value[ids]


def columns(chains: Sequence[Ids]) -> Columns:
    """Depth and first request of every block."""
    pages = 1 + max((int(chain.max(initial=0)) for chain in chains), default=0)
    index, order = np.zeros(pages, np.int64), np.zeros(pages, np.int64)
    for number in range(len(chains) - 1, -1, -1):
        index[chains[number]] = np.arange(len(chains[number]))
        order[chains[number]] = number
    return Columns(index, order, np.ones(pages))


def leading_hits(chains: Sequence[Ids], capacity: int, policy: Callable[[Pages], Policy]) -> int:
    """Blocks of all requests that lie in a leading run which the tier held."""
    known = columns(chains)
    tier = Tier(policy(known), capacity, len(known.uses))
    total = 0
    for chain in chains:
        held = tier.held[chain]
        total += len(chain) if held.all() else int(np.argmin(held))
        known.uses[chain] += 1
        tier.use(chain[::-1])
    return total
