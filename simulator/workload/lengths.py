"""Token counts of synthetic requests.

`lognormal` has the mean and coefficient of variation given *before* it is rounded and clipped to [low, high]; a high of
0 leaves the upper end open. `geometric` (1, 2, ...) has its mean before it is clipped at `high`. `empirical` draws rows of
a recorded trace with replacement; where input and output name the same trace, they come from the same row, so that their
correlation stays. Draws are made in blocks of `BLOCK` requests, inputs before outputs, so that a longer workload starts
with the requests of a shorter one.
A distribution is a function and one line in `DISTRIBUTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log, sqrt
from typing import Protocol

import numpy as np

from simulator.workload.fields import MOST_TOKENS
from simulator.workload.read import read_trace
from simulator.workload.requests import Ints, Requests

BLOCK = 4096


class LengthsLike(Protocol):
    """The fields of a length distribution; see `draw_lengths` for which ones count."""

    @property
    def dist(self) -> str: ...
    @property
    def tokens(self) -> int: ...
    @property
    def low(self) -> int: ...
    @property
    def high(self) -> int: ...
    @property
    def mean(self) -> float: ...
    @property
    def cv(self) -> float: ...
    @property
    def trace(self) -> str: ...


def fixed(rng: np.random.Generator, lengths: LengthsLike) -> Ints:
    return np.full(BLOCK, lengths.tokens, dtype=np.int64)


def uniform(rng: np.random.Generator, lengths: LengthsLike) -> Ints:
    return rng.integers(lengths.low, lengths.high, BLOCK, endpoint=True)


def lognormal(rng: np.random.Generator, lengths: LengthsLike) -> Ints:
    variance = log(1 + lengths.cv**2)  # of the logarithm
    drawn = np.exp(log(lengths.mean) - variance / 2 + sqrt(variance) * rng.standard_normal(BLOCK))
    return np.clip(np.rint(drawn), max(lengths.low, 1), lengths.high or MOST_TOKENS).astype(np.int64)


def geometric(rng: np.random.Generator, lengths: LengthsLike) -> Ints:
    return np.minimum(rng.geometric(1 / lengths.mean, BLOCK), lengths.high or MOST_TOKENS)


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, LengthsLike], Ints]] = {
    "fixed": fixed,
    "geometric": geometric,
    "lognormal": lognormal,
    "uniform": uniform,
}


def draw_lengths(rng: np.random.Generator, count: int, input: LengthsLike, output: LengthsLike) -> tuple[Ints, Ints]:
    """Input and output tokens of `count` requests."""
    traces = {one.trace: read_trace(one.trace) for one in (input, output) if one.dist == "empirical"}
    prompts, generated = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    for start in range(0, count, BLOCK):
        block = slice(start, min(start + BLOCK, count))
        drawn_input, drawn_output = _block(rng, input, output, traces)
        prompts[block] = drawn_input[: block.stop - start]
        generated[block] = drawn_output[: block.stop - start]
    return prompts, generated


def _block(rng: np.random.Generator, input: LengthsLike, output: LengthsLike, traces: dict[str, Requests]) -> tuple[Ints, Ints]:
    if input.dist == output.dist == "empirical" and input.trace == output.trace:
        rows = rng.integers(len(traces[input.trace]), size=BLOCK)
        return traces[input.trace].input_tokens[rows], traces[input.trace].output_tokens[rows]
    prompts = _one_side(rng, input, traces[input.trace].input_tokens if input.dist == "empirical" else None)
    generated = _one_side(rng, output, traces[output.trace].output_tokens if output.dist == "empirical" else None)
    return prompts, generated


def _one_side(rng: np.random.Generator, lengths: LengthsLike, recorded: Ints | None) -> Ints:
    if recorded is None:
        return DISTRIBUTIONS[lengths.dist](rng, lengths)
    return recorded[rng.integers(len(recorded), size=BLOCK)]
