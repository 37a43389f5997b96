"""Predictors that propose pages by name: a set for each layer group and step (design 3.5).

A page predictor is told which pages a step read (`observe`, one array of page numbers per group, newest blocks aside) and says
which ones it expects the next step to read (`expect`, the same form). The far memory (`scheduler.paged`) does the rest: of
what is expected, what is neither in L1 nor in L2 is issued `window` layers before its layer, in the order of use; what the
layer then reads was right, the rest was wrong and stays in L2, as far as there is room, until it is used or evicted.

    history   the next step reads what the last one read

    `next_layer` knows no names: it issues what is certain. With selected pages a layer's set is known one layer before it at
    most, where it reuses the set of the layer before (`certain`).

A plug-in is a class and one line in `PAGE_PREDICTORS` (and in `kvcache.by_name.PAGE_PREDICTORS`: it needs the page table).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from simulator.kvcache.selection import Group
from simulator.kvcache.table import Ids
from simulator.scenario.resolved import Prefetch


class PagePredictor(Protocol):
    def window(self, layers: int) -> int:
        """How many layers ahead of its use a page is issued; 0 for never."""

    def observe(self, read: Sequence[Ids]) -> None:
        """Pages that a step read, by group."""

    def expect(self) -> Sequence[Ids]:
        """Pages that the next step will read, by group; distinct."""


class History:
    def __init__(self, spec: Prefetch, rng: np.random.Generator):
        self.depth = spec.depth
        self._last: Sequence[Ids] = ()

    def window(self, layers: int) -> int:
        return min(self.depth, layers)

    def observe(self, read: Sequence[Ids]) -> None:
        self._last = read

    def expect(self) -> Sequence[Ids]:
        return self._last


PAGE_PREDICTORS: dict[str, type[History]] = {"history": History}


def certain(groups: Sequence[Group]) -> list[bool]:
    """For each layer, whether its pages are known before it begins: all but layers that select."""
    return [not (group.selects and place == 0) for group in groups for place in range(group.layers)]


class Certain:
    """`next_layer` over selected pages; `Predictor` of `predictors.py` with the layers that are known."""

    wraps = knows_the_future = False
    rounds = "layer"

    def __init__(self, spec: Prefetch, groups: Sequence[Group]):
        self.depth = spec.depth
        self._known = certain(groups)
        self._selects = any(group.selects for group in groups)

    def window(self, layers: int) -> int:
        return min(self.depth, 1 if self._selects else layers)

    def propose(self, far: Sequence[int], sequences: int = 1) -> tuple[Sequence[int], Sequence[int]]:
        return [pages if known else 0 for pages, known in zip(far, self._known)], [0] * len(far)


class Given:
    """Right and wrong pages worked out beforehand, layer by layer; on into the next step."""

    wraps = True
    knows_the_future = False
    rounds, depth = "step", 0

    def __init__(self, window: int):
        self._window = window
        self.right: list[int] = []
        self.wrong: list[int] = []

    def window(self, layers: int) -> int:
        return self._window

    def propose(self, far: Sequence[int], sequences: int = 1) -> tuple[Sequence[int], Sequence[int]]:
        return self.right, self.wrong
