"""Accuracy of the token models as it was measured on the recorded text, written by `analysis.calibration.token_model`.

`data/token_accuracy.json`: for each model the top-k accuracy on the held-out tenth for k = 1 .. 16, and the hash of
the tokens.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def measured() -> dict[str, Any]:
    """The file as it is."""
    found: dict[str, Any] = json.loads((files("simulator.prefetch") / "data" / "token_accuracy.json").read_text())
    return found


def accuracy_of(model: str, guesses: int) -> float:
    """Share of the held-out tokens that are among the first `guesses` guesses of a model."""
    top: list[float] = measured()["models"][model]["top"]
    return top[guesses - 1]


def claims(model: str) -> str:
    """What a model achieves, beside what is claimed."""
    claimed: float = measured()["claimed"]["top4"]
    first, fourth = accuracy_of(model, 1), accuracy_of(model, 4)
    return (
        f"token model {model}: top-1 {first:.1%}, top-4 {fourth:.1%} of recorded tokens that it has not seen; CXL-SpecKV "
        f"claims a top-4 of {claimed:.0%} for its LSTM (reported, unverified)"
    )
