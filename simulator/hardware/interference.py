"""What KV on the move costs the kernels beside it: a GPU with transfers in flight is a GPU with less of everything.

HBM. A byte that a copy engine moves takes from the kernels as much streaming as `write_cost` (into HBM) or `read_cost` (out
of it) bytes; a byte of a gather kernel `gather_cost`. Writes cost more than their size: they turn the bus around and open
rows for little. So

    HBM bandwidth left = peak - sum over transfers of rate * cost / eta,      eta = efficiency of streaming weights

SMs. Each gather block takes the places of `gather_sms` SMs: tiles have the rest, and decode attention the loads in flight of
the rest, which bound it once they sustain less than the HBM bandwidth left. At the power limit fewer SMs may run at a higher
clock, but for the share `gather_power` of the power of their places that the gather blocks draw.
Tail. A product that finds a gather block where a tile of its last wave should run is late by that tile: `gather_tail` times
what a tile of 128 x 256 outputs takes. Blocks settle first on SMs that tiles leave idle, where they disturb nobody: of the
compute-bound products the share 1 - exp(-blocks / `gather_spare`) is late, in the end every one, none twice.

The rest of the step model is as it is: a compute-bound layer does not feel the loss of bandwidth.
Not modelled: copies are not slowed by the kernels; shares of L2 and of the on-chip network beyond the costs above.
Events: none. Source: seven constants fitted to own H100 measurements by analysis/calibration/link.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, inf
from typing import NamedTuple

from simulator.hardware.gpu import StepModel
from simulator.scenario.resolved import CopyEngine, Gpu, Gpus, Mover

TILE_ROWS, TILE_COLUMNS = 128, 256


@dataclass(frozen=True)
class Traffic:
    """Bytes/s of each kind through the HBM of one GPU, and the blocks of gather kernels at work on it."""

    written: float = 0.0  # by copy engines, into HBM
    read: float = 0.0  # by copy engines, out of HBM
    gathered: float = 0.0
    blocks: int = 0

    def streaming(self, engine: CopyEngine) -> float:
        """Bytes/s of streaming that the kernels lose."""
        return self.written * engine.write_cost + self.read * engine.read_cost + self.gathered * engine.gather_cost


def beside(gpu: Gpu, engine: CopyEngine, traffic: Traffic) -> Gpu:
    """The GPU that is left to the kernels; the tail of matrix products apart (`tail`)."""
    lost = traffic.streaming(engine) / (gpu.gemm_bandwidth_efficiency * gpu.memory_bandwidth)
    hbm = max(1.0 - lost, 0.01)
    sms = 1.0 - min(engine.gather_sms * traffic.blocks, gpu.multiprocessors - 1) / gpu.multiprocessors
    return replace(
        gpu,
        memory_bandwidth=gpu.memory_bandwidth * hbm,
        multiprocessors=round(gpu.multiprocessors * sms),
        peak_flops=gpu.peak_flops * sms,
        gemm_sustained_efficiency=gpu.gemm_sustained_efficiency / sms ** (1.0 - engine.gather_power),
        attention_bandwidth_efficiency=gpu.attention_bandwidth_efficiency * min(sms / hbm, 1.0),
    )


def tail(model: StepModel, engine: CopyEngine, blocks: int, tokens: int) -> float:
    """Seconds that the products of one layer of `model` (on the whole GPU) wait for their slowest tiles."""
    if not blocks:
        return 0.0
    shape, gpu = model.model, model.gpu
    inner = {"output_projection": model.heads * shape.head_dim, "down": shape.intermediate / model.ranks}
    tile = 2.0 * TILE_ROWS * TILE_COLUMNS * gpu.multiprocessors / (gpu.gemm_flops_efficiency * gpu.peak_flops)
    products = [one.name for one in model.layer_operators(tokens) if one.bound == "compute" and one.name != "element_wise"]
    late = engine.gather_tail * (1.0 - exp(-blocks / engine.gather_spare))
    return sum(late * tile * inner.get(name, shape.hidden) for name in products)


def layer_seconds(model: StepModel, tokens: int, context: int, pieces: Sequence[tuple[int, int]] = ()) -> float:
    """One layer of a step of `tokens` tokens: decodes over `context` tokens in all, and prompt pieces."""
    attention = model.prefill_attention(pieces).time if pieces else 0.0
    return model.layer_time(tokens, (context > 0) + bool(pieces), context, attention)


def at_full_clocks(model: StepModel) -> StepModel:
    """The same without the power limit: what runs after a wait long enough to save for it."""
    return _on(model, replace(model.gpu, gemm_sustained_efficiency=inf))


def _on(model: StepModel, gpu: Gpu) -> StepModel:
    return StepModel(model.model, Gpus(gpu, model.ranks, model.ranks, 1.0, 0.0), model.host)


class Beside:
    """Times of layers while transfers run; `model` is the one without them."""

    def __init__(self, model: StepModel, engine: CopyEngine, traffic: Traffic):
        self._whole, self._engine, self._blocks = model, engine, traffic.blocks
        self.model = _on(model, beside(model.gpu, engine, traffic))

    def layer(self, tokens: int, context: int, pieces: Sequence[tuple[int, int]] = ()) -> float:
        """Seconds of one layer; arguments as of `layer_seconds`."""
        seconds = layer_seconds(self.model, tokens, context, pieces)
        return seconds + tail(self._whole, self._engine, self._blocks, tokens)


class Slow(NamedTuple):
    """What a layer loses beside transfers, as `prefetch.pipeline` and the write-back take it."""

    reading: float = 0.0  # share of its speed, while pages are read
    writing: float = 0.0  # the same, while pages are written back
    boost: float = 0.0  # s that it wins back after a wait as long


UNDISTURBED = Slow()


class Interference:
    """Of the transfers of a replica with the layers of its steps."""

    def __init__(self, model: StepModel, mover: Mover, read: float, write: float):
        """`read`, `write`: bytes/s of the mover on one GPU."""
        gathers = bool(mover.blocks)
        reading = Traffic(gathered=read, blocks=mover.blocks) if gathers else Traffic(written=read)
        writing = Traffic(gathered=write, blocks=mover.blocks) if gathers else Traffic(read=write)
        self._model, self._full = model, at_full_clocks(model)
        self._reading, self._writing = (Beside(model, mover.engine, traffic) for traffic in (reading, writing))

    def slow(self, tokens: int, context: int, pieces: Sequence[tuple[int, int]] = ()) -> Slow:
        """For a layer of a step; arguments as of `layer_seconds`."""
        step = (tokens, context, pieces)
        alone = layer_seconds(self._model, *step)
        boost = alone - layer_seconds(self._full, *step)
        return Slow(1.0 - alone / self._reading.layer(*step), 1.0 - alone / self._writing.layer(*step), boost)
