"""When single pages matter, and the residency that knows them."""

from __future__ import annotations

import numpy as np

from simulator.kvcache.geometry import Geometry
from simulator.kvcache.paged_cache import PagedCache
from simulator.kvcache.paged_lru import PagedLru
from simulator.kvcache.paged_split import PagedSplit
from simulator.scenario.resolved import Placement, ScenarioResolved, Selection

COUNTED = ("split", "lru")  # dense residency that needs no identity
PAGE_PREDICTORS = ("history",)  # of `prefetch.pages`: they propose pages by name

PagedResidency = PagedSplit | PagedCache | PagedLru


def needs_table(selection: Selection, placement: Placement, predictor: str) -> bool:
    """Whether single pages matter; if not, counts (`residency`) give the same results faster."""
    plain = placement.l2 == "exclusive" and placement.write_back == "lazy"
    return selection.kind == "pages" or placement.eviction not in COUNTED or not plain or predictor in PAGE_PREDICTORS


def scans(selection: Selection, predictor: str) -> bool:
    """Every step reads all blocks of its sequences in all layers, and no page is proposed by name."""
    return selection.kind == "dense" and predictor not in PAGE_PREDICTORS


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
