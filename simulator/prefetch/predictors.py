"""Who proposes far pages, how far ahead, and how many of the proposals are right (design 3.5).

With dense attention the set of pages is known, so a predictor only decides order, lead and waste:

    none         proposes nothing; every layer fetches on demand
    next_layer   all far pages of the next `depth` layers of the same step, in order
    stream       the whole working set in the order of use, on into the next step, as far ahead as the staging space allows; it
                 does not know which sequences end
    statistical  each far page of the next `depth` layers (on into the next step) with probability `coverage`; for n
                 right pages n (1 - accuracy) / accuracy wrong ones as well, dummies that use link, engine and staging
    attention    as statistical with its recall and precision as coverage and accuracy, within the step: the query of a layer
                 scores the keys of the next ones, which reads `score` of a step's KV in every layer
    token_model  guesses the next token of each sequence; a right guess (with the measured top-k accuracy of `model`, see
                 `token_model`) stands for all pages that the sequence reads, a wrong one for as many that it does not. This is
                 the reading in which a token is worth the most: with dense attention no token changes what is read
    cxl_speckv   what its authors publish: for every layer and sequence a hint of `guesses` pages (`cxl_speckv.py`)
    session      next_layer for the prefixes that a step brings back, and before that whole sessions (`session.py`)
    oracle       all far pages of all later layers, on into the next step and exactly what that will ask for, as far ahead
                 as the staging space allows

A predictor is a pure decision: how many pages of each layer, given how many there are and how many sequences ask. What its
calls cost is in `service.py`. A plug-in is a class and one line in `PREDICTORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from simulator.prefetch.cxl_speckv import CxlSpecKv
from simulator.prefetch.token_model.measured import accuracy_of
from simulator.scenario.resolved import Prefetch

LAYER, STEP = "layer", "step"  # what a round of predictions is asked for: one hint a sequence


class Predictor(Protocol):
    wraps: bool  # continues into the next step
    knows_the_future: bool  # what is set in motion for the next step is what that will ask for
    rounds: str  # LAYER or STEP
    depth: int  # what depth control changes

    def window(self, layers: int) -> int:
        """How many layers ahead it proposes; 0 for none."""

    def propose(self, far: Sequence[int], sequences: int = 1) -> tuple[Sequence[int], Sequence[int]]:
        """Right and wrong pages for each entry of `far` (pages asked for by a layer), read by so many sequences."""


class Nothing:
    wraps = knows_the_future = False
    rounds, depth = LAYER, 0

    def __init__(self, spec: Prefetch, rng: np.random.Generator):
        pass

    def window(self, layers: int) -> int:
        return 0

    def propose(self, far: Sequence[int], sequences: int = 1) -> tuple[Sequence[int], Sequence[int]]:
        return [0] * len(far), [0] * len(far)


class NextLayer:
    wraps = knows_the_future = False
    rounds = LAYER

    def __init__(self, spec: Prefetch, rng: np.random.Generator):
        self.depth = spec.depth

    def window(self, layers: int) -> int:
        return min(self.depth, layers)

    def propose(self, far: Sequence[int], sequences: int = 1) -> tuple[Sequence[int], Sequence[int]]:
        return far, [0] * len(far)


class SessionAhead(NextLayer):
    """Within a step; what comes before it is not proposed here."""


class Stream:
    wraps, knows_the_future = True, False
    rounds, depth = STEP, 0

    def __init__(self, spec: Prefetch, rng: np.random.Generator):
        pass

    def window(self, layers: int) -> int:
        return layers

    def propose(self, far: Sequence[int], sequences: int = 1) -> tuple[Sequence[int], Sequence[int]]:
        return far, [0] * len(far)


class Oracle(Stream):
    knows_the_future = True


class Statistical:
    wraps, knows_the_future = True, False
    rounds = LAYER

    def __init__(self, spec: Prefetch, rng: np.random.Generator):
        self.depth = spec.depth
        self.coverage = spec.coverage
        self.waste = (1.0 - spec.accuracy) / spec.accuracy
        self._rng = rng

    def window(self, layers: int) -> int:
        return min(self.depth, layers) if self.coverage > 0.0 else 0

    def propose(self, far: Sequence[int], sequences: int = 1) -> tuple[Sequence[int], Sequence[int]]:
        pages = far[0]
        if far.count(pages) == len(far):  # much faster than a draw for each of many counts
            right = self._rng.binomial(pages, self.coverage, len(far))
        else:
            right = self._rng.binomial(far, self.coverage)
        # rounded up or down at random, so that the mean is kept
        wrong = (right * self.waste + self._rng.random(len(right))).astype(np.int64)
        return right.tolist(), wrong.tolist()


class Attention(Statistical):
    wraps = False


class TokenGuess:
    wraps, knows_the_future = True, False
    rounds = STEP

    def __init__(self, spec: Prefetch, rng: np.random.Generator):
        self.depth, self._rng = spec.depth, rng
        self.accuracy = accuracy_of(spec.model, spec.guesses)

    def window(self, layers: int) -> int:
        return min(self.depth, layers)

    def propose(self, far: Sequence[int], sequences: int = 1) -> tuple[Sequence[int], Sequence[int]]:
        share = self._rng.binomial(sequences, self.accuracy) / sequences  # of the sequences, each guessed right or not
        right = [round(pages * share) for pages in far]
        return right, [pages - known for pages, known in zip(far, right)]


PREDICTORS: dict[str, Callable[[Prefetch, np.random.Generator], Predictor]] = {
    "none": Nothing,
    "next_layer": NextLayer,
    "stream": Stream,
    "statistical": Statistical,
    "attention": Attention,
    "token_model": TokenGuess,
    "cxl_speckv": CxlSpecKv,
    "session": SessionAhead,
    "oracle": Oracle,
}
