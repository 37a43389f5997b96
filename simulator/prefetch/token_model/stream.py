"""The recorded token stream: the Python Language Reference under a byte-level BPE (`traces/README.md`).

112,753 ids of a vocabulary of 4,096; the first nine tenths train, the last tenth (other topics) is held out.
"""

from __future__ import annotations

import gzip
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

VOCABULARY = 4096
HELD_OUT = 0.1

Tokens = NDArray[np.int64]


def recorded() -> tuple[Tokens, Tokens]:
    """Ids to train on and held-out ids, in text order."""
    data = (files("simulator.prefetch") / "data" / "python_reference.npy.gz").open("rb")
    with data, gzip.open(data) as file:
        tokens = np.load(file).astype(np.int64)
    split = int(len(tokens) * (1.0 - HELD_OUT))
    return tokens[:split], tokens[split:]
