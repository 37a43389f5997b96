"""KV in host memory behind one GPU's own port, without a scenario: copies, interference, whole offloaded steps.

An offloaded step is `prefetch.pipeline` over the layers, as in a simulation, with the layer cut where it needs its far pages:
before attention. So projections and rotary embedding of layer l belong to the time of layer l - 1, those of layer 0 come
first.

    on demand   copy, [dequantise], attend, one after the other; every copy is a lone one
    prefetch    two staging buffers: a copy runs as soon as the engine is free and the attention before the last has been
                read; the copies of layers 0 and 1 start with the step

Far pages are `fraction` of each sequence's pages, the oldest; the newest page of a decode stays on the GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from simulator import catalog
from simulator.catalog.fields import FIELDS
from simulator.experiments.steptime import gpu_named, step_seconds
from simulator.hardware import copy_engine
from simulator.hardware.codec import unpack_rate
from simulator.hardware.copy_engine import READ, WRITE, moving
from simulator.hardware.gpu import StepModel
from simulator.hardware.interference import Beside, Interference, Traffic, layer_seconds
from simulator.prefetch.pipeline import Carry, Counts, on_demand, streamed
from simulator.scenario.resolved import Codec, CopyEngine, Gpu, Link, Mover
from simulator.units import parse

HOST_MEMORY = 112e-9  # s, one access; with the link's latency it makes the round trip of a read
PAGE = 256 * 1024.0  # bytes of what a gather kernel moves at a time: large enough for its full rate
KERNELS_BEFORE = 3  # norm, QKV, rotary embedding with append


def copy_engine_named(name: str) -> CopyEngine:
    entry = catalog.load("copy_engines", name)
    kinds = FIELDS["copy_engines"]
    values = {
        field: value if kinds[field] == "number" else parse(str(value), kinds[field]) for field, value in entry.values.items()
    }
    return CopyEngine(name=name, **values)  # type: ignore[arg-type]


def host_link(gpu: str, values: Mapping[str, float] | None = None) -> HostLink:
    """The way of a catalogue GPU to host memory."""
    return HostLink(gpu_named(gpu), values=values)


def codec_named(name: str) -> Codec:
    """A codec of the catalogue, run by the GPU's kernels."""
    values: dict[str, Any] = catalog.load("codecs", name).values
    return Codec(**(values | {"compress_at": "gpu", "decompress_at": "gpu"}))


@dataclass(frozen=True)
class Transfer:
    """How far pages come: `arrays` copies a layer, or a gather kernel of `blocks` blocks; packed by `codec` or raw."""

    codec: Codec | None = None
    blocks: int = 0

    @property
    def arrays(self) -> int:
        return self.codec.arrays if self.codec else 1


def _behind(engine: CopyEngine, port: Link) -> CopyEngine:
    """No faster than the port, which may be of an older generation than the one that the engine was measured at."""
    return replace(
        engine,
        read_bandwidth=min(engine.read_bandwidth, port.read_bandwidth),
        write_bandwidth=min(engine.write_bandwidth, port.write_bandwidth),
        gather_read_bandwidth=min(engine.gather_read_bandwidth, port.read_bandwidth),
        gather_write_bandwidth=min(engine.gather_write_bandwidth, port.write_bandwidth),
    )


class HostLink:
    """One GPU's way to host memory; `values` overrides fields of its copy engine (SI units), as a fit does."""

    def __init__(self, gpu: Gpu, engine: str = "h100-pcie-gen5", values: Mapping[str, float] | None = None):
        self.gpu = gpu
        self.engine = replace(_behind(copy_engine_named(engine), gpu.link), **(values or {}))  # type: ignore[arg-type]
        self.round_trip = 2 * gpu.link.latency + HOST_MEMORY

    def rate(self, direction: str, blocks: int = 0, page: float = 1 << 20) -> float:
        """Bytes/s of long copies, or of a gather kernel."""
        if blocks:
            return copy_engine.gather_rate(self.engine, direction, blocks, page, self.round_trip)
        return copy_engine.bandwidth(self.engine, direction)

    def copies(self, direction: str, size: float, issue: float | None = None, both: bool = False) -> float:
        """Seconds per copy of many in a row."""
        return copy_engine.copies(self.engine, direction, size, issue, both)

    def scattered(self, direction: str, method: str, pages: int, page: float, blocks: int = 0) -> float:
        """Seconds to move `pages` pages from random places to random places."""
        if method == "kernel":
            return self.gpu.launch + self.round_trip + pages * page / self.rate(direction, blocks, page)
        if method == "memcpyBatchAsync":
            return self.engine.start + pages * copy_engine.batched(self.engine, direction, page)
        return self.engine.start + pages * self.copies(direction, page)

    def lone(self, direction: str, size: float) -> float:
        """Seconds of one copy until the host has seen its end."""
        return copy_engine.lone(self.engine, direction, size)

    def block_read(self, size: float) -> float:
        """Seconds in which one thread block reads `size` bytes of host memory; one thread, if it is 8 bytes."""
        return self.round_trip if size <= 8 else copy_engine.block_read(self.engine, self.round_trip, size)

    def traffic(self, transfer: str) -> Traffic:
        """What `h2d`, `d2h`, `both` or `gatherN` puts on the GPU at full rate."""
        if transfer.startswith("gather"):
            blocks = int(transfer.removeprefix("gather"))
            return Traffic(gathered=self.rate(READ, blocks), blocks=blocks)
        both = transfer == "both"
        written = copy_engine.bandwidth(self.engine, READ, both) if transfer in (READ, "both") else 0.0
        read = copy_engine.bandwidth(self.engine, WRITE, both) if transfer in (WRITE, "both") else 0.0
        return Traffic(written, read)

    def slowdown(
        self, model: StepModel, transfer: str, contexts: Sequence[int] = (), pieces: Sequence[tuple[int, int]] = ()
    ) -> float:
        """How much longer a step takes beside a link that is busy all the time."""
        tokens = len(contexts) + sum(take for take, _ in pieces)
        left = Beside(model, self.engine, self.traffic(transfer))
        rows = len(contexts) + len(pieces)
        beside = model.layers * left.layer(tokens, sum(contexts), pieces) + left.model.head(rows).total
        return beside / step_seconds(model, contexts, pieces)

    def offloaded(
        self,
        model: StepModel,
        far_tokens: int,
        mode: str,
        transfer: Transfer,
        contexts: Sequence[int] = (),
        pieces: Sequence[tuple[int, int]] = (),
        rows: int | None = None,
    ) -> float:
        """Seconds of a step that reads `far_tokens` tokens of KV a layer from host memory, `mode` ondemand or prefetch."""
        if not far_tokens:
            return step_seconds(model, contexts, pieces, rows)
        tokens, context = len(contexts) + sum(take for take, _ in pieces), sum(contexts)
        raw = model.model.kv_bytes_per_token_layer / model.model.kv_heads * model.kv_heads  # bytes a token on this rank
        size = far_tokens * raw / (transfer.codec.ratio if transfer.codec else 1.0)
        gpu, layers = self.gpu, model.layers
        mover = Mover(self.engine, "gather" if transfer.blocks else "copy", transfer.blocks)
        moves = moving(mover, PAGE, transfer.arrays, self.round_trip, gpu.launch)
        carried = size / moves.read_bandwidth  # s
        unpack = 0.0
        if transfer.codec:
            unpack = gpu.launch + far_tokens * raw / unpack_rate(transfer.codec, gpu)
        layer = layer_seconds(model, tokens, context, pieces)
        slow = Interference(model, mover, moves.read_bandwidth, moves.write_bandwidth).slow(tokens, context, pieces)
        before = self._before(model, tokens)
        compute = [layer + unpack] * (layers - 1) + [layer + unpack - before]
        head = model.head(len(contexts) + len(pieces) if rows is None else rows).total
        far, host = [far_tokens] * layers, model.host + before
        if mode == "ondemand":
            token = carried / far_tokens
            return on_demand(far, compute, host, head, token, moves.latency, 1 << 62, Counts(), slow.boost).end
        stream = carried + moves.setup
        first = min(2, layers)
        started = Carry([far_tokens] * first, [0] * first, [stream] * first, [max(0.0, moves.latency - moves.setup)] * first)
        return streamed(
            far, compute, host, head, stream / far_tokens, 0.0, 0.0, 1, far, [0] * layers, False, started, Counts(),
            drag=slow.reading, boost=slow.boost,
        ).end  # fmt: skip

    def _before(self, model: StepModel, tokens: int) -> float:
        """Seconds of a layer before its attention."""
        operators = {one.name: one for one in model.layer_operators(tokens)}
        stream, products = operators["element_wise"], operators.get("qkv")
        qkv = (model.heads + 2 * model.kv_heads) * model.model.head_dim
        share = (4 * model.model.hidden + 2 * qkv) * tokens * 2.0 / stream.bytes  # a norm with residual add, rotary, append
        return (products.time if products else 0.0) + share * stream.time + KERNELS_BEFORE * self.gpu.launch
