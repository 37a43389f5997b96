"""What far memory cannot serve whose transfers are events, be it for a run (`devices: detailed`, a pool that replicas share) or
for a replay (`crosscheck`): the same list for all of them, so that what one refuses the others do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from simulator.scenario.resolved import ScenarioResolved
from simulator.scenario.source import Where


class Unfit(NamedTuple):
    where: Where
    message: str
    use: str  # what to do about it


def unfit(scenario: ScenarioResolved, shared: bool = False) -> Iterator[Unfit]:
    """Every reason of a scenario with a pool; `shared`: between replicas of the scenario."""
    pool = scenario.pool
    if pool is not None and pool.mover is not None:
        message = "detailed devices are the boards' DMA; a copy engine moves pages without it"
        if shared:
            message = "a copy engine moves pages of a host's own memory"
        yield Unfit(("cluster", "kv_pool", "copy_engine"), message, "remove it")
    if scenario.prefetch.priority == "equal":
        message = f"{'a shared pool serves' if shared else 'detailed devices serve'} demand first"
        yield Unfit(("prefetch", "priority"), message, "use priority: demand")
    who = "replicas read from a shared pool" if shared else "detailed devices serve"
    for where, found, use in needs_identity(scenario):
        yield Unfit(where, f"{who} counts of pages, not pages by identity as '{found}' needs", f"use {use}")


def needs_identity(scenario: ScenarioResolved) -> Iterator[tuple[Where, str, str]]:
    """(field, its value, what counts of pages can do instead) of what has to know single pages."""
    selection, placement, predictor = scenario.kv.selection, scenario.kv.placement, scenario.prefetch.predictor
    prefix = scenario.kv.sharing == "prefix"  # sequences are in L1 alone, blocks are written as they fill or leave it
    identity: tuple[tuple[Where, str, bool, str], ...] = (
        (("kv", "selection", "kind"), selection.kind, selection.kind == "pages" and not prefix, "dense or budget"),
        (("kv", "placement", "eviction"), placement.eviction, placement.eviction not in ("split", "lru"), "split or lru"),
        (("kv", "placement", "l2"), placement.l2, placement.l2 != "exclusive", "exclusive"),
        (("kv", "placement", "write_back"), placement.write_back, placement.write_back != "lazy" and not prefix, "lazy"),
        (("prefetch", "predictor"), predictor, predictor == "history", "statistical"),
    )
    for where, found, refused, use in identity:
        if refused:
            yield where, found, use
