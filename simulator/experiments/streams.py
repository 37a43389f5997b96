"""Random streams of a simulation: independent per purpose, derived from (seed, name), never from the order in which they are
made, so that a policy that draws more numbers does not move the arrivals (common random numbers for paired comparisons)."""

from __future__ import annotations

from hashlib import blake2s

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """The random stream of one purpose."""
    return np.random.default_rng([seed, *blake2s(name.encode()).digest()])
