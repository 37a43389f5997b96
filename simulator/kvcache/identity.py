"""The residency that knows single pages."""

from __future__ import annotations

import numpy as np

from simulator.kvcache.by_name import scans
from simulator.kvcache.geometry import Geometry
from simulator.kvcache.paged_cache import PagedCache
from simulator.kvcache.paged_lru import PagedLru
from simulator.kvcache.paged_split import PagedSplit
from simulator.scenario.resolved import ScenarioResolved

PagedResidency = PagedSplit | PagedCache | PagedLru


def paged(scenario: ScenarioResolved, sizes: Geometry, refetch: float, rng: np.random.Generator) -> PagedResidency:
    """The residency of a scenario, page by page; `refetch`: seconds to fetch one page."""
    kv = scenario.kv
    kind: type[PagedSplit] | type[PagedCache] | type[PagedLru] = PagedSplit if kv.eviction == "split" else PagedCache
    if kv.eviction == "lru" and scans(kv.selection, scenario.prefetch.predictor):
        kind = PagedLru
    value = sizes.layer_bytes * refetch
    return kind(
        sizes.l1_blocks, sizes.l3_blocks, sizes.layers, sizes.block_tokens, kv.selection, kv.placement, value, rng
    )  # fmt: skip
