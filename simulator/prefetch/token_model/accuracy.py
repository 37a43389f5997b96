"""How often the next token is among a model's first k guesses, on text that the model has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.prefetch.token_model.stream import Tokens

CLAIMED = 0.95  # CXL-SpecKV: top-4 accuracy of an LSTM with 128 K parameters; an unreproduced claim


class TokenModel(Protocol):
    def predict(self, tokens: Tokens, k: int) -> NDArray[np.int64]:
        """[len(tokens) - 1, k]: guesses for each token after the first, best first; -1 for none."""


@dataclass(frozen=True)
class Accuracy:
    """Shares of the held-out tokens, and over how many of them."""

    tokens: int
    top: dict[int, float]


def evaluate(model: TokenModel, held_out: Tokens, ks: Sequence[int] = (1, 2, 4, 8, 16)) -> Accuracy:
    """Top-k accuracy on `held_out` for each k, rounded to three digits."""
    guesses = model.predict(held_out, max(ks))
    right = guesses == held_out[1:, None]
    return Accuracy(len(guesses), {k: round(float(right[:, :k].any(axis=1).mean()), 3) for k in ks})
