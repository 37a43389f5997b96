"""Latency under load (design 3.3): how long one access takes while others use the same device.

    L(u) = L0 (1 + a u / (1 - u)), at most L0 x saturation,

u the utilisation of the device by others, a its `load_factor`. a = 0, the default, is a device whose latency does not
depend on load; a = 0.32 gives 7.1 times at u = 0.95, what a switched CXL pool does near saturation (MemChannel,
arXiv:2608.21731: 230 -> 1624 ns). The curve is continuous and never falls.
Not modelled: load of the flow itself (that is queueing, which bandwidth sharing has already).
"""

from __future__ import annotations

SATURATION = 7.1  # times L0; MemChannel, arXiv:2608.21731


def loaded(latency: float, load_factor: float, load: float, saturation: float = SATURATION) -> float:
    """Seconds of an access of `latency` s unloaded, at a load of others between 0 and 1."""
    if not 0.0 <= load <= 1.0:
        raise ValueError(f"a load of {load} is not between 0 and 1")
    if load_factor == 0.0 or load == 0.0:
        return latency
    if load == 1.0:
        return latency * saturation
    return latency * min(1.0 + load_factor * load / (1.0 - load), saturation)
