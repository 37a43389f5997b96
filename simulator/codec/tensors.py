"""Tensors for the codec: a `.npy` file, or a synthetic distribution with a name.

    normal     independent normal values
    ar1:RHO    each channel is a first-order autoregression over the tokens with unit variance: neighbouring tokens correlate
               by RHO

A file is read as data (no pickled objects): floats, at least two axes, the last two being tokens and channels; values must
be finite as 16-bit floats.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulator.errors import InputError, Problem, did_you_mean

TOKENS, CHANNELS = 4096, 128  # of a synthetic tensor
KINDS = ("normal", "ar1")


def load(path: Path) -> NDArray[np.float16]:
    """[..., tokens, channels] of a file; InputError says what is wrong with it."""
    where = str(path)
    try:
        with path.open("rb") as file:
            tensor = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise InputError(Problem(where, "", f"cannot be read: {error.strerror}")) from None
    except ValueError as error:
        raise InputError(Problem(where, "", f"is not a .npy file of plain numbers ({error})")) from None
    if tensor.dtype.kind != "f":
        raise InputError(Problem(where, "", f"holds {tensor.dtype}; expected float16, float32 or float64"))
    if tensor.ndim < 2 or tensor.size == 0:
        raise InputError(Problem(where, "", f"has shape {tensor.shape}; expected [..., tokens, channels], not empty"))
    with np.errstate(over="ignore"):
        narrow = tensor.astype(np.float16)
    if not np.isfinite(narrow).all():
        place = tuple(np.argwhere(~np.isfinite(narrow))[0].tolist())
        raise InputError(Problem(where, str(list(place)), f"{tensor[place]} is not finite as a 16-bit float"))
    return narrow


def synthetic(name: str, seed: int = 0, where: str = "--synthetic") -> NDArray[np.float16]:
    """[4096 tokens, 128 channels] of a named distribution; the same for the same seed."""
    kind, _, parameter = name.partition(":")
    expected = "expected normal or ar1:RHO with RHO between -1 and 1, for example ar1:0.95"
    if kind not in KINDS or (kind == "normal") == bool(parameter):
        raise InputError(Problem(where, "", f"{name!r}: {expected}", did_you_mean(kind, KINDS)))
    noise = np.random.default_rng(seed).standard_normal((TOKENS, CHANNELS))
    if kind == "normal":
        return noise.astype(np.float16)
    try:
        rho = float(parameter)
    except ValueError:
        rho = 2.0
    if not -1.0 < rho < 1.0:
        raise InputError(Problem(where, "", f"{name!r}: {expected}"))
    from scipy.signal import lfilter

    innovations = np.concatenate([noise[:1], noise[1:] * (1.0 - rho * rho) ** 0.5])
    return np.asarray(lfilter([1.0], [1.0, -rho], innovations, axis=0)).astype(np.float16)


def scale_group(channels: int) -> int:
    """Channels that share a scale by default: 64, or all where 64 does not divide them."""
    return channels if channels % 64 else 64
