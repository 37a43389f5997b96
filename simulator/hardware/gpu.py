"""Time of one step on the GPUs: a sum of operators (design 3.1).

Modelled, for one tensor-parallel rank (the ranks are symmetric):

    layer(M)  = products + element-wise + 2 all-reduces + launches          M tokens in the step; mean over the layers
    attention = per context token for decodes (one query row each); over all prompt pieces together for prefill
    head(n)   = LM head of the n rows that emit a token + its launches
    step      = host overhead + layers * (layer(M) + attention) + head(n)

Products of a layer are in `layers.py` and `gemm.py` (experts in `moe.py`, formats in `precision.py`), attention in
`attention.py`, all-reduces in `collective.py`. Every kernel costs a launch (inside a replayed graph: ramp-up and tail);
decodes and prompt pieces have an attention kernel each. The constants come from the catalogue; parts without measurements are
reported as uncalibrated. Layers of several kinds (leading dense ones of a MoE, windows in some) enter by their mean.

Latent attention (MLA). Decode attends in the latent space: a context token costs every head kv_latent + rope_dim for the
score and kv_latent for the value, and its bytes are read once for all heads. Prefill expands the latents of its past, then
attends with heads of the expanded size. Both are given to `attention.py` as heads of the mean of both dimensions with the
fraction of a KV head that has the latent's bytes, so FLOPs and bytes are exact.

Windows. A decode in a layer with a window w reads min(context, w); so does each row of a prompt piece. Tokens read are counted
in units: of all layers, or of single layers where only some have a window (`reads`).

Pipeline of p stages. The sequences are dealt into m = min(p, tokens) micro-batches, which follow each other through the stages;
in steady state the step is the cycle p * (slowest stage of a micro-batch + send to the next stage), so that

    step = host + p * (ceil(layers / p) * (layer(M/m) + attention/m) + head(n/m) + send(M/m))

A batch smaller than p leaves stages idle (bubbles), and so does the LM head, which only the last stage has. Throughput is that
of m micro-batches in flight; a lone step from an empty pipeline takes up to (p - 1)/p longer to fill it, which is not modelled.

Not modelled: overlap of collectives with compute, padding of the batch to captured graph sizes.

Everything but the prompt pieces is a function of few integers (tokens in the step, rows that emit, attention kernels,
context tokens), so a run of steps with unchanged membership is a vector expression in the context alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from simulator.hardware import attention, collective, power
from simulator.hardware.gemm import ACTIVATION_BYTES, gemm
from simulator.hardware.layers import KERNELS_PER_LAYER as KERNELS_PER_LAYER
from simulator.hardware.layers import Layers
from simulator.hardware.moe import exchange
from simulator.hardware.operator import PARTS, Operator, Parts, add_up, beyond, mean, together
from simulator.hardware.precision import for_precision
from simulator.hardware.sampler import sampling
from simulator.hardware.windows import cut_to_window, cuts
from simulator.scenario.resolved import Gpus, Model

KERNELS_PER_HEAD = 4  # final norm, LM head, sampling, token gather
KEPT = 4096  # shapes of prompt pieces whose attention is remembered: prompts of one length come in few of them


class StepModel:
    """Times of steps of one replica. All methods are pure; layer and head are cached by their integer arguments."""

    def __init__(self, model: Model, gpus: Gpus, host_overhead: float, host_per_sequence: float = 0.0):
        self.model, self.gpu, self.ranks = model, gpus.gpu, gpus.tensor_parallel
        self.host, self.host_per_sequence = host_overhead, host_per_sequence
        self.layers, self.stages = model.layers, gpus.pipeline_parallel
        self._kinds = Layers(model, gpus.gpu, gpus.tensor_parallel, gpus.expert_parallel)
        self.kv_heads, self.heads = self._kinds.kv_heads, self._kinds.heads
        self._decode_shape, self._prefill_shape = self._shapes()
        self._mixed = 0 < model.windowed_layers < model.layers
        self.window = model.window
        self._layer: dict[tuple[int, int, float | None], Parts] = {}
        self._shared: dict[tuple[int, int, float], Parts] = {}
        self._head: dict[int, Parts] = {}
        self._head_load: dict[int, tuple[float, float]] = {}
        self._works: dict[int, tuple[float, float]] = {}
        self._base: dict[tuple[int, int, int], float] = {}
        self._prefills: dict[tuple[object, ...], Operator] = {}  # attention of prompt pieces, the latest ones
        moe = model.moe_layers  # (layers of a kind, whether it has experts)
        self.kinds = [(count, kind) for count, kind in ((model.layers - moe, False), (moe, True)) if count]
        self.one_kernel = gpus.gpu.attention_kernels == "together"  # for decodes and prompt pieces of a step
        self.attention_latency = attention.decode_latency(gpus.gpu, self.heads, self.kv_heads)
        token = self.decode_attention(1)
        self.attention_per_token = token.time  # s per context token and layer
        self._unit_time = self.units * self.attention_per_token
        self.attention_is_compute = token.bound == "compute"

    def _shapes(self) -> tuple[tuple[float, float, float, float], tuple[float, float, float, float]]:
        """(heads, KV heads, head size, bytes of an element) of decode and of prefill attention."""
        model = self.model
        if not model.latent:
            shape = (self.heads, self.kv_heads, model.head_dim, model.kv_bytes)
            return shape, shape
        latent = model.kv_latent + model.rope_dim
        absorbed, expanded = (latent + model.kv_latent) / 2, (model.query_dim + model.head_dim) / 2
        return (
            (self.heads, latent / (2 * absorbed), absorbed, model.kv_bytes),
            (self.heads, latent / (2 * expanded), expanded, model.kv_bytes),
        )

    # operators

    def layer_operators(self, tokens: float, moe: bool | None = None, shared: float | None = None) -> list[Operator]:
        """Operators of one layer that depend on the tokens of the step only (no attention, no collectives).

        `moe` says which kind of layer; by default the one that most layers are. `shared` are the tokens of the mean replica
        of the expert group, by default as many as here.
        """
        return self._kinds.operators(tokens, self.model.moe_layers > 0 if moe is None else moe, shared)

    def expert_block(self, tokens: float, touched: float) -> list[Operator]:
        """Routed experts of one layer, for tokens that touch that many experts of this GPU."""
        return self._kinds.expert_block(tokens, touched)

    def all_operators(self, tokens: float) -> list[tuple[int, Operator]]:
        """(layers that have it, operator): those of all layers."""
        return [(count, operator) for count, moe in self.kinds for operator in self.layer_operators(tokens, moe)]

    def head_operator(self, rows: float) -> Operator:
        model = self.model
        vocab, each = model.vocab / self.ranks, model.embedding_bytes
        if each is None or each == model.weight_bytes:
            return self._kinds.product("lm_head", rows, vocab, model.hidden)
        return gemm(self.gpu, "lm_head", rows, vocab, model.hidden, each)

    def sampling(self, rows: float) -> Operator:
        """Every rank draws from the logits of all."""
        return sampling(self.gpu, rows, self.model.vocab)

    def decode_attention(self, context: float, sequences: float = 0.0) -> Operator:
        """Attention of decode rows in one layer over `context` tokens in all, and what that many sequences cost besides."""
        return attention.decode_attention(self.gpu, *self._decode_shape, context, sequences)

    def decode_imbalance(self, contexts: Iterable[int]) -> float:
        """Extra seconds a layer of a decode kernel that does not split sequences over SMs."""
        return attention.decode_imbalance(self.gpu, *self._decode_shape, contexts)

    def prefill_attention(
        self, pieces: Sequence[tuple[int, int]], paged: bool | None = None, contexts: Sequence[int] = ()
    ) -> Operator:
        """Attention in one layer (the mean over the layers) of prompt pieces (tokens, cached past).

        Where one kernel runs them `together` with the decodes of the step: what it takes longer than the decodes alone, whose
        time is counted by their `contexts`.
        """
        if not self.one_kernel:
            key = (*pieces, paged)
            found = self._prefills.get(key)
            if found is None:
                if len(self._prefills) >= KEPT:
                    self._prefills.clear()
                found = self._prefills[key] = self._pieces_attention(pieces, paged, contexts)
            return found
        work = self._pieces_attention(pieces, paged, contexts)
        return beyond(work, self.decode_attention(sum(contexts), len(contexts)), self.attention_latency)

    def _pieces_attention(self, pieces: Sequence[tuple[int, int]], paged: bool | None, contexts: Sequence[int]) -> Operator:
        model = self.model
        whole = self.whole_attention(pieces, paged, contexts)
        if not cuts(pieces, model.window):
            return whole
        windowed = self.windowed_attention(pieces, model.window, paged, contexts)
        share = model.windowed_layers / model.layers
        return windowed if share == 1.0 else mean(windowed, whole, share)

    def whole_attention(
        self, pieces: Sequence[tuple[int, int]], paged: bool | None = None, contexts: Sequence[int] = ()
    ) -> Operator:
        """Attention of a layer without a window over prompt pieces."""
        whole = attention.prefill_attention(self.gpu, *self._prefill_shape, pieces, paged, contexts)
        past = sum(before for _, before in pieces)
        return together(whole, self._kinds.expansion(past)) if past and self.model.kv_latent else whole

    def windowed_attention(
        self, pieces: Sequence[tuple[int, int]], window: int, paged: bool | None = None, contexts: Sequence[int] = ()
    ) -> Operator:
        """The same of a layer whose rows read the last `window` tokens, where some piece is longer than that."""
        if paged is None:
            paged = any(past for _, past in pieces)
        cut, read = cut_to_window(pieces, window)
        windowed = attention.prefill_attention(self.gpu, *self._prefill_shape, cut, paged, contexts)
        once = read / sum(tokens + past for tokens, past in cut)  # the rows of a piece share what they read
        windowed = replace(windowed, bytes=windowed.bytes * once, memory_s=windowed.memory_s * once)
        past = sum(min(before, window) for _, before in pieces)
        return together(windowed, self._kinds.expansion(past)) if past and self.model.kv_latent else windowed

    def all_reduce(self, tokens: float) -> float:
        """Seconds of one all-reduce of the hidden states of `tokens` tokens; 0 on one rank."""
        return collective.all_reduce(self.gpu, self.ranks, tokens * self.model.hidden * ACTIVATION_BYTES)

    def exchange(self, tokens: float) -> float:
        """Seconds to bring the tokens of all replicas to the experts and back, in one MoE layer of an expert group."""
        kinds = self._kinds
        return exchange(self.gpu, kinds.group, tokens * kinds.replicas * self.model.hidden * ACTIVATION_BYTES)

    def collectives(self, tokens: float, moe: bool, shared: float | None = None) -> float:
        """Seconds of the collectives of one layer."""
        if moe and self._kinds.replicas > 1:
            return self.all_reduce(tokens) + self.exchange(tokens if shared is None else shared)
        return 2 * self.all_reduce(tokens)

    def touched_experts(self, tokens: float) -> float:
        """Mean number of experts that a step of `tokens` tokens on every replica of the group touches, over all its GPUs."""
        return self._kinds.touched(tokens) * self._kinds.group

    def send(self, tokens: float) -> float:
        """Seconds to hand the hidden states of a micro-batch to the next stage: point to point at the bus bandwidth."""
        if self.stages == 1:
            return 0.0
        return collective.all_reduce(self.gpu, 2, tokens * self.model.hidden * ACTIVATION_BYTES)

    def kernels(self, moe: bool) -> int:
        """Launches of one layer without its attention kernels."""
        return self._kinds.kernels(moe)

    @property
    def attention_part(self) -> str:
        """The part of a step's time that decode attention belongs to."""
        return "compute" if self.attention_is_compute else "hbm"

    # steps

    def layer(self, tokens: int, attentions: int = 1, shared: float | None = None) -> Parts:
        """One layer (the mean over the layers) without the work of attention, for `tokens` tokens and attention kernels;
        `shared` are the tokens of the mean replica of the expert group, by default as many as here."""
        parts = self._layer.get((tokens, attentions, shared))
        if parts is None:
            each = [(count / self.layers, self._one_layer(tokens, attentions, moe, shared)) for count, moe in self.kinds]
            parts = Parts(*(sum(share * getattr(kind, part) for share, kind in each) for part in PARTS))
            self._layer[tokens, attentions, shared] = parts
        return parts

    def layer_time(self, tokens: int, attentions: int, context: int, pieces: float = 0.0, rows: int = 0) -> float:
        """Seconds of one layer (the mean over the layers): with decodes that read `context` units, and `pieces` seconds of
        attention beside them; `rows` that emit a token make no difference here."""
        each = self.attention_per_token * (self.units / self.layers)
        return self.layer(tokens, attentions).total + each * context + pieces

    def _one_layer(self, tokens: int, attentions: int, moe: bool, shared: float | None = None) -> Parts:
        launch = self.launches(attentions, moe)
        return add_up(self.layer_operators(tokens, moe, shared), self.collectives(tokens, moe, shared), launch)

    def mean_tokens(self, steps: Sequence[tuple[int, int]]) -> tuple[float, ...]:
        """Tokens of the mean replica, where the steps of those that share experts have these (tokens, rows)."""
        return (sum(tokens for tokens, _ in steps) / len(steps),)

    def shared_parts(self, tokens: int, rows: int, attentions: int, shared: tuple[float, ...]) -> Parts:
        """A step of one of the replicas that share experts, by what bounds it, without host and the work of attention;
        `shared` are the tokens of the mean replica."""
        key = (tokens, attentions, shared[0])
        parts = self._shared.get(key)
        if parts is None:
            each = [(count, self._one_layer(tokens, attentions, moe, shared[0])) for count, moe in self.kinds]
            parts = Parts(*(sum(count * getattr(kind, part) for count, kind in each) for part in PARTS))
            self._shared[key] = parts
        head = self.head(rows)
        return Parts(*(getattr(parts, part) + getattr(head, part) for part in PARTS))

    def launches(self, attentions: int, moe: bool) -> float:
        """Seconds of the launches of one layer with that many attention kernels, and of what those need besides work."""
        kernels = min(attentions, 1) if self.one_kernel else attentions
        return (self.kernels(moe) + kernels) * self.gpu.launch + kernels * self.attention_latency

    def head(self, rows: int) -> Parts:
        """Final norm, LM head and sampling of the rows that emit a token; nothing for none.

        With them the thread blocks that each costs the decode attention of every layer (`attention.decode_block`).
        """
        parts = self._head.get(rows)
        if parts is None:
            if rows == 0:
                parts = Parts(0.0, 0.0, 0.0, 0.0)
            else:
                operators = [self.head_operator(rows), self.sampling(rows)]
                parts = add_up(operators, 0.0, KERNELS_PER_HEAD * self.gpu.launch)
                blocks = self.layers * rows * attention.decode_block(self.gpu, self.kv_heads)
                parts = Parts(parts.compute, parts.hbm + blocks, parts.collective, parts.launch)
            self._head[rows] = parts
        return parts

    def head_time(self, rows: int) -> float:
        """Seconds of what follows the last layer in a step that emits so many tokens."""
        return self.head(rows).total

    def host_time(self, rows: int) -> float:
        """Seconds that the GPU waits for the host in a step that emits so many tokens."""
        return self.host + self.host_per_sequence * rows

    def micro_batches(self, tokens: int) -> int:
        return min(self.stages, max(1, tokens))

    @property
    def stage_layers(self) -> int:
        """Layers of the longest stage."""
        return -(-self.layers // self.stages)

    def passes(self, tokens: int) -> float:
        """Layer times in a step whose work in a layer is shared evenly by the micro-batches: the layers, without a pipeline."""
        if self.stages == 1:
            return self.layers
        return self.stages * self.stage_layers / self.micro_batches(tokens)

    def parts(self, tokens: int, rows: int, attentions: int = 1) -> Parts:
        """A step without host and the work of attention, by what bounds it."""
        count = self.micro_batches(tokens)
        each = -(-tokens // count)
        layer, head = self.layer(each, attentions), self.head(-(-rows // count))
        layers = self.stages * self.stage_layers
        sums = [layers * getattr(layer, part) + self.stages * getattr(head, part) for part in PARTS]
        sums[PARTS.index("collective")] += self.stages * self.send(each)
        return Parts(*sums)

    def base(self, tokens: int, rows: int, attentions: int = 1) -> float:
        """Seconds of a step without the work of attention: host + layers + head."""
        time = self._base.get((tokens, rows, attentions))
        if time is None:
            if self.stages == 1:
                time = self.host_time(rows) + self.layers * self.layer(tokens, attentions).total + self.head(rows).total
            else:
                time = self.host_time(rows) + self.parts(tokens, rows, attentions).total
            self._base[tokens, rows, attentions] = time
        return time

    @property
    def units(self) -> int:
        """Layers that one unit of tokens read stands for: all, or one where only some layers have a window."""
        return 1 if self._mixed else self.layers

    def reads(self, context: int, windowed: int) -> int:
        """Units that a decode step reads over sequences of `context` tokens, `windowed` of them in layers with the window."""
        if not self.window:
            return context
        if self._mixed:
            return self.model.full_layers * context + self.model.windowed_layers * windowed
        return windowed

    def reads_of(self, contexts: Iterable[int]) -> int:
        """The same from the contexts themselves."""
        lengths, window = list(contexts), self.model.window
        return self.reads(sum(lengths), sum(min(length, window) for length in lengths) if window else 0)

    def unit_time(self, decodes: int) -> float:
        """Seconds of decode attention, all layers, per unit read in a step of `decodes` decodes."""
        if self.stages == 1:
            return self._unit_time
        return self._unit_time * self.passes(decodes) / self.layers

    def load(self, tokens: int, rows: int, batches: int = 0) -> tuple[float, float]:
        """(HBM seconds, tensor-core seconds), each at its full rate, of a step without attention: what draws power.

        Of the mean GPU of a pipeline: each runs every micro-batch through the layers of a stage, one of them has the head.
        `batches` are the micro-batches, if not as many as the tokens allow.
        """
        count = batches or self.micro_batches(tokens)
        device = for_precision(self.gpu, self.model.weights)
        share = count / self.stages  # of all layers, and of the heads
        moved, flops = self._work(-(-tokens // count))
        streaming = share * power.streaming_seconds(self.gpu, moved)
        computing = share * power.computing_seconds(device, flops)
        if rows:
            each = -(-rows // count)
            head = self._head_load.get(each)
            if head is None:
                work = self.head_operator(each)
                moved = work.bytes + self.sampling(each).bytes
                head = power.streaming_seconds(self.gpu, moved), power.computing_seconds(self.gpu, work.flops)
                self._head_load[each] = head
            streaming += share * head[0]
            computing += share * head[1]
        return streaming, computing

    def _work(self, tokens: int) -> tuple[float, float]:
        """(bytes, FLOPs) of all layers; many shapes of a run have the same tokens."""
        work = self._works.get(tokens)
        if work is None:
            found = self.all_operators(tokens)
            work = sum(times * one.bytes for times, one in found), sum(times * one.flops for times, one in found)
            self._works[tokens] = work
        return work

    def unit_load(self) -> tuple[float, float]:
        """The same of one unit of decode attention, all layers."""
        one = self.decode_attention(1)
        units = self.units / self.stages
        return units * power.streaming_seconds(self.gpu, one.bytes), units * power.computing_seconds(self.gpu, one.flops)

    def product_alone(self, rows: int, columns: int, inner: int, sustained: bool = False) -> float:
        """Seconds of one bf16 matrix product with its launch; by default too short to meet the power limit."""
        return gemm(self.gpu, "gemm", rows, columns, inner, ACTIVATION_BYTES, sustained).time + self.gpu.launch

    def all_reduce_bytes(self, message: float) -> float:
        """Seconds of one all-reduce of a message of that many bytes."""
        return collective.all_reduce(self.gpu, self.ranks, message)

    def power(self, duration: float, moved: float, flops: float) -> float:
        """W of one GPU that moves these bytes through HBM and computes these FLOPs in `duration` seconds."""
        return power.power(self.gpu, duration, moved, flops)
