"""Selection: which stored tokens a step reads. It shrinks reads, never what is stored.

    roles      d layers read everything; of the others every `select_every`-th selects, those between reuse its set
    read(n)  = d * n + (1 - d) * min(n, budget)      or fraction * n                     d: share of the layers
    index(n) = index * n * (share of selecting layers) / refresh                         bytes of K and V that a scan costs
    bytes      a selected token counts k_fraction of its K and v_fraction of its V

`index` is relative to the KV bytes of a token: 1 is full attention in the selecting layers. Sets that are kept for `refresh`
steps need it once in so many. How much two sets overlap decides what moves between tiers (`kvcache.selection`), not what is
read. Identity: `dense`, fractions 1.
"""

from __future__ import annotations

from simulator.kvcache.policies.curve import Curve
from simulator.scenario.resolved import Reading, Selection


def roles(selection: Selection, layers: int) -> tuple[float, float]:
    """(share of layers that read everything, share that selects)."""
    if selection.kind == "dense":
        return 1.0, 0.0
    dense = min(selection.dense_layers, layers)
    return dense / layers, -(-(layers - dense) // selection.select_every) / layers


def chosen(selection: Selection, tokens: Curve) -> Curve:
    """Of `tokens` tokens, those that a layer reads that is not dense."""
    return tokens.times(selection.fraction) if selection.fraction else tokens.capped(selection.budget)


def read(selection: Selection, layers: int, tokens: Curve) -> Curve:
    """Tokens that the mean layer reads, without the index."""
    dense, _ = roles(selection, layers)
    return tokens if dense == 1.0 else tokens.times(dense) + chosen(selection, tokens).times(1.0 - dense)


def index(selection: Selection, layers: int, tokens: Curve) -> Curve:
    """Tokens whose bytes the scan of an index takes, mean layer and step."""
    return tokens.times(selection.index * roles(selection, layers)[1] / selection.refresh)


def bytes_of(reading: Reading) -> float:
    """Bytes (and FLOPs) of a selected token that attention touches."""
    return (reading.k_fraction + reading.v_fraction) / 2.0
