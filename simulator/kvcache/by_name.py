"""When single pages matter."""

from __future__ import annotations

from simulator.scenario.resolved import Placement, ScenarioResolved, Selection

COUNTED = ("split", "lru")  # dense residency that needs no identity
PAGE_PREDICTORS = ("history",)  # of `prefetch.pages`: they propose pages by name


def needs_table(selection: Selection, placement: Placement, predictor: str) -> bool:
    """Whether single pages matter; if not, counts (`residency`) give the same results faster."""
    plain = placement.l2 == "exclusive" and placement.write_back == "lazy"
    return selection.kind == "pages" or placement.eviction not in COUNTED or not plain or predictor in PAGE_PREDICTORS


def scans(selection: Selection, predictor: str) -> bool:
    """Every step reads all blocks of its sequences in all layers, and no page is proposed by name."""
    return selection.kind == "dense" and predictor not in PAGE_PREDICTORS


def named(scenario: ScenarioResolved) -> bool:
    """Whether single pages of sequences that run matter: those of a pool which they read from."""
    kv = scenario.kv
    return scenario.far_in_place and needs_table(kv.selection, kv.placement, scenario.prefetch.predictor)
