"""Times of the steps of a replica whose KV policies go beyond the model's own cache: the composition law on the step model.

    decode attention   units of `kvcache.policies.law` * time of a dense token (the longer of its bytes and its FLOPs)
    layers             layers that run for one token in B: the step's tokens / B, at least one, as often as there is one
    passes             a step gives each sequence one token; it takes `passes` of a pass over `width` tokens a sequence, and
                       drafts. Rows that complete a prompt count as decodes
    prompts            `work` tokens computed for each kept one; attention over prompts by group: windows cut it, selection
                       with stage `both` reads what it selects and pays `index_flops`
    elsewhere          attention at host or near data: `placement`; KV of prompts goes over the link
    pipeline           the sequences of a step are dealt into micro-batches, each of which does all this; attention elsewhere
                       has its devices and their link dealt out over the stages
    lock step          every pass of all replicas together; a replica without tokens in a pass runs a dummy one
    sharded latent     decode attention with all heads over 1/TP of the latent, and one more all-reduce a layer

Where one kernel runs decodes and prompt pieces (`attention`), the pieces add what they add to decodes of whole raw KV.
Not modelled: of a prompt that was thinned out, attention to the part that a prefix cache had costs as if it were whole;
sequences that accept different numbers of drafted tokens in a step (every step is the mean one), projections
that a layout saves or adds, attention among the tokens that a pass computes again, updates of states (their bytes count).
No events.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from simulator.hardware import collective, power
from simulator.hardware.gemm import ACTIVATION_BYTES
from simulator.hardware.gpu import StepModel
from simulator.hardware.operator import PARTS, Operator, Parts, beyond
from simulator.hardware.windows import cuts
from simulator.kvcache.policies import law, layout, loop, placement, retention, selection, sharing, topology
from simulator.kvcache.policies.curve import IDENTITY
from simulator.kvcache.selection import tokens_read
from simulator.scenario.resolved import ScenarioResolved

LARGE = 4096  # tokens of a step that is bound by compute: what one more costs there


class PolicySteps(StepModel):
    def __init__(self, scenario: ScenarioResolved):
        spec, self.policies = scenario.scheduler, scenario.kv.policies
        self.selection, self._drawn, self._block = scenario.kv.selection, None, scenario.kv.block_tokens
        if scenario.far_in_place and self.selection.kind == "pages":  # which of a pool are drawn one by one: whole pages
            self._drawn, self.selection = self.selection, replace(self.selection, kind="dense", index=0.0)
        super().__init__(scenario.model, scenario.gpus, spec.host_overhead, spec.host_per_sequence)
        policies = self.policies
        self.elsewhere = policies.compute.at != "gpu"
        self.one_kernel = self.one_kernel and not self.elsewhere
        self.width, self.passes_each = loop.width(policies.loop), loop.passes(policies.loop)
        self.drafting, self.work = loop.drafting(policies.loop), retention.work(policies.retention)
        self.host, self.host_per_sequence = self.host * self.passes_each, self.host_per_sequence * self.passes_each
        self._runs: dict[float, float] = {}  # run every so many tokens -> share of the layers
        for group in layout.groups_of(policies.layout, self.model):
            self._runs[group.run_every] = self._runs.get(group.run_every, 0.0) + group.share
        self._pass: dict[tuple[int, int, int, int, float | None], Parts] = {}
        self._set_attention()

    def _set_attention(self) -> None:
        policies, model = self.policies, self.model
        if policies.latent == "sharded":
            heads, kv_heads, size, element = self._decode_shape
            share = topology.shares(policies.latent, self.ranks)
            self._decode_shape = heads * self.ranks, kv_heads, size * share, element
        one = self.decode_attention(1)
        self.memory, self.compute = one.memory_s, one.compute_s * self.width
        if self.elsewhere:
            self.memory = placement.attention_seconds(policies.compute, model.kv_bytes_per_token_layer) * self.stages
            self.compute = 0.0
        self.token = max(self.memory, self.compute)
        curve = law.read(policies, self.selection, model, self.memory, self.compute)
        bytes_only = law.read(policies, self.selection, model, self.memory, 0.0)
        self.attention_is_compute = curve.slope * self.token > bytes_only.slope * self.memory * (1 + 1e-9)
        flops_only = law.read(policies, self.selection, model, 0.0, self.compute).slope if self.compute else 0.0
        self.shared = bytes_only.slope * self.memory, flops_only * self.compute  # s of a token that several sequences read
        self.shared_each = curve.slope
        if policies.loop.recompute:
            more = (super().layer(2 * LARGE).total - super().layer(LARGE).total) / LARGE
            curve = curve + IDENTITY.times(policies.loop.recompute * more / self.token)
            self.attention_is_compute = True
        self.token_units = law.UNITS * self.layers // self.units
        self.law = law.Law.of(curve, self.token_units)
        plain = max(one.memory_s, one.compute_s)
        self.attention_per_token = self.passes_each * (self.token + self.drafting * plain) / law.UNITS
        self._unit_time = self.units * self.attention_per_token

    @property
    def attention_part(self) -> str:
        return "pool_memory" if self.elsewhere else super().attention_part

    def shared_units(self, distinct: float, reads: float) -> int:
        """What reading shared tokens once takes less, in units; negative or 0. Tokens that all read are old ones: windows and
        whole newest tokens are read by each sequence for itself."""
        if not reads:
            return 0
        seconds = sharing.shared_seconds(distinct, reads, *self.shared)
        return round((seconds / self.token - reads * self.shared_each) * self.token_units)

    def reads_of(self, contexts: Iterable[int]) -> int:
        found = contexts if isinstance(contexts, np.ndarray) else np.array(list(contexts), np.int64)
        if self._drawn is not None:
            found = np.array([tokens_read(self._drawn, found, self._block, self.layers)])
        return self.law.units(found)

    # steps

    @property
    def _dense(self) -> bool:
        """Layers and head are those of a dense step: only attention differs, if anything."""
        same = (self.width, self.passes_each, self.drafting, self.work) == (1, 1.0, 0.0, 1.0)
        return same and list(self._runs) == [1.0] and not self.elsewhere and self.policies.latent == "replicated"

    def parts(self, tokens: int, rows: int, attentions: int = 1) -> Parts:
        return super().parts(tokens, rows, attentions) if self._dense else self._parts(tokens, rows, attentions)

    def mean_tokens(self, steps: Sequence[tuple[int, int]]) -> tuple[float, ...]:
        """Of the mean replica: tokens of a pass, of a draft, of a pass with what prompts add."""
        if self._dense:
            return super().mean_tokens(steps)
        each = [self._computed(tokens, rows) for tokens, rows in steps]
        return tuple(sum(counts) / len(steps) for counts in zip(*each, strict=True))

    def shared_parts(self, tokens: int, rows: int, attentions: int, shared: tuple[float, ...]) -> Parts:
        if self._dense:
            return super().shared_parts(tokens, rows, attentions, shared)
        return self._parts(tokens, rows, attentions, shared)

    def _computed(self, tokens: int, rows: int) -> tuple[int, int, int]:
        """Tokens of a pass, of a draft, of a pass with what prompts add."""
        decodes = min(rows, tokens)
        many = decodes * self.width
        return many, decodes, many + round((tokens - decodes) * self.work)

    def _parts(self, tokens: int, rows: int, attentions: int, shared: tuple[float, ...] = ()) -> Parts:
        many, decodes, every_token = self._computed(tokens, rows)
        batches, once, drafts = self.micro_batches(tokens), self.passes_each, self.drafting
        of_pass, of_draft, of_all = shared or (None, None, None)
        found = self._one_pass(many, many, attentions, batches, of_pass)
        every = [once * getattr(found, name) for name in PARTS]
        if drafts:
            draft = self._one_pass(decodes, decodes, attentions, batches, of_draft)
            every = [value + once * drafts * getattr(draft, name) for value, name in zip(every, PARTS)]
        if every_token > many:  # what it adds to the pass; of the parts of both together, as an operator may change its bound
            whole = self._one_pass(every_token, many, attentions, batches, of_all)
            share = 1.0 + (sum(every) - found.total) / whole.total
            every = [share * getattr(whole, name) for name in PARTS]
        return Parts(*every)

    def _one_pass(self, tokens: int, rows: int, attentions: int, batches: int, shared: float | None) -> Parts:
        """All layers and the head for these tokens in so many micro-batches; nothing for none, unless the experts compute
        `shared` tokens of the mean replica."""
        key = (tokens, rows, attentions, batches, shared)
        found = self._pass.get(key)
        if found is None:
            if not tokens and not shared:
                return Parts(0.0, 0.0, 0.0, 0.0)
            stages, layers = self.stages, self.stages * self.stage_layers
            each, emitting = -(-max(1, tokens) // batches), -(-rows // batches)
            sums = [stages * getattr(self.head(emitting), name) for name in PARTS]
            for every, share in self._runs.items():
                mean = None if shared is None else max(1.0, shared / every)
                layer = self.layer(max(1, round(each / every)), attentions, mean)
                factor = layers * share * min(1.0, each / every)
                sums = [value + factor * getattr(layer, name) for value, name in zip(sums, PARTS)]
            sums[PARTS.index("collective")] += layers * self._exchanges(emitting) + stages * self.send(each)
            found = self._pass[key] = Parts(*sums)
        return found

    def _exchanges(self, rows: int) -> float:
        """Seconds a layer of what decodes send: to where attention is computed, to ranks with the rest of a latent."""
        seconds, policies = 0.0, self.policies
        if self.elsewhere and rows:
            seconds += placement.exchange_seconds(policies.compute, self.model, rows * self.stages)
        if policies.latent == "sharded":
            size = rows * topology.partial_outputs(self.model) * ACTIVATION_BYTES
            seconds += collective.all_reduce(self.gpu, self.ranks, size)
        return seconds

    def base(self, tokens: int, rows: int, attentions: int = 1) -> float:
        time = self._base.get((tokens, rows, attentions))
        if time is None:
            if self._dense:
                return super().base(tokens, rows, attentions)
            time = self._base[tokens, rows, attentions] = self.host_time(rows) + self.parts(tokens, rows, attentions).total
        return time

    def head_time(self, rows: int) -> float:
        return super().head_time(rows) if self._dense else self.passes_each * self.head(rows).total

    def layer_time(self, tokens: int, attentions: int, context: int, pieces: float = 0.0, rows: int = 0) -> float:
        """The mean layer of a step: what its passes take between the host and the head, dealt out evenly."""
        if self._dense:
            return super().layer_time(tokens, attentions, context, pieces)
        between = self.base(tokens, rows, attentions) - self.host_time(rows) - self.head_time(rows)
        each = self.attention_per_token * (self.units / self.layers)
        return between / self.layers + each * context + pieces

    def dense_tokens(self, units: int) -> int:
        """Tokens of the model's own cache that take a decode as long as these units."""
        return round(units / self.token_units)

    def scan_time(self, tokens: float) -> float:
        """Seconds a layer to read what takes the memory of so many dense tokens, once in each pass."""
        return self.passes_each * self.memory * tokens

    def load(self, tokens: int, rows: int, batches: int = 0) -> tuple[float, float]:
        many, decodes, every_token = self._computed(tokens, rows)
        count = batches or self.micro_batches(tokens)
        found = self._load(many, many, count)
        drafts, whole = self._load(decodes, decodes, count), self._load(every_token, many, count)
        run, once = layout.layers_run(self.policies.layout), self.passes_each
        streaming, computing = (
            run * (once * (one + self.drafting * draft) + every - one) for one, draft, every in zip(found, drafts, whole)
        )
        return streaming, computing

    def _load(self, tokens: int, rows: int, batches: int) -> tuple[float, float]:
        return super().load(tokens, rows, batches) if tokens else (0.0, 0.0)

    def unit_load(self) -> tuple[float, float]:
        if self.elsewhere:
            return 0.0, 0.0
        one, units = self.decode_attention(1), self.passes_each * self.units / law.UNITS / self.stages
        streaming, computing = power.streaming_seconds(self.gpu, one.bytes), power.computing_seconds(self.gpu, one.flops)
        return units * streaming, units * computing * self.width

    # prompts

    def prefill_attention(
        self, pieces: Sequence[tuple[int, int]], paged: bool | None = None, contexts: Sequence[int] = ()
    ) -> Operator:
        stretch, policies = retention.stretch(self.policies.retention), self.policies
        pieces = [(max(1, round(tokens * stretch)), round(past * stretch)) for tokens, past in pieces]
        whole, windows = 0.0, dict[int, float]()  # layers' worth of attention: to all, to the last so many tokens
        for group in layout.groups_of(policies.layout, self.model):
            if group.kind in layout.STATES:
                continue
            factor = group.share * group.flops_scale * policies.layout.query_heads
            factor /= group.run_every * group.tokens_per_entry
            if group.kind == "full":
                read, chosen, budget = self._selected()
                whole += factor * read
                windows[budget] = windows.get(budget, 0.0) + factor * chosen
                continue
            whole += factor * group.fraction
            window = group.window + group.sink
            windows[window] = windows.get(window, 0.0) + factor
        found = list[tuple[float, Operator]]()
        for window, factor in windows.items():
            if window and not cuts(pieces, window):
                whole += factor
            elif window and factor:
                found.append((factor, self.windowed_attention(pieces, window, paged, contexts)))
        if whole:
            found.append((whole, self.whole_attention(pieces, paged, contexts)))
        work = _sum(found, self._sent(pieces))
        if not self.one_kernel:
            return work
        decodes, share = self.decode_attention(sum(contexts), len(contexts)), sum(weight for weight, _ in found)
        return beyond(work, decodes, self.attention_latency, share)

    def decode_imbalance(self, contexts: Iterable[int]) -> float:
        """The same, of sequences as long as what is read of them."""
        found = np.array(list(contexts), np.int64)
        if self._drawn is not None:
            found = np.array([tokens_read(self._drawn, found[[at]], self._block, self.layers) for at in range(len(found))])
        tokens = self.law.each(found).tolist()
        return self.passes_each * super().decode_imbalance(tokens) / self.token_units

    def _selected(self) -> tuple[float, float, int]:
        """Of what a layer that keeps everything reads of prompts: (share of it all, share of its last tokens, how many)."""
        reading = self.policies.reading
        if reading.stage == "decode":
            return 1.0, 0.0, 0
        dense, selecting = selection.roles(self.selection, self.layers)
        touched = selection.bytes_of(reading)
        read, part = dense * touched + selecting * reading.index_flops, (1.0 - dense) * touched
        if self.selection.fraction:
            return read + part * self.selection.fraction, 0.0, 0
        return read, part, self.selection.budget

    def _sent(self, pieces: Sequence[tuple[int, int]]) -> float:
        """Seconds a layer in which the new KV of prompts goes to where attention is computed."""
        tokens = sum(tokens for tokens, _ in pieces)
        size = tokens * self.model.kv_bytes_per_token_layer * self.stages
        return size / self.policies.compute.link if self.elsewhere else 0.0


def _sum(weighted: list[tuple[float, Operator]], memory: float) -> Operator:
    """Operators that run one after the other, each a share of its time, and so many seconds of memory."""
    flops, moved = (sum(weight * getattr(one, name) for weight, one in weighted) for name in ("flops", "bytes"))
    compute = sum(weight * one.time for weight, one in weighted if one.bound == "compute")
    memory += sum(weight * one.time for weight, one in weighted if one.bound != "compute")
    return Operator("prefill_attention", flops, moved, compute, memory, exposed=1.0)


def other_steps(scenario: ScenarioResolved) -> PolicySteps | None:
    """Where what a step reads is more than a sum of contexts, or of pages drawn one by one; else None."""
    near = scenario.pool is None or scenario.parks
    sparse = near and scenario.kv.selection.kind != "dense"
    return PolicySteps(scenario) if sparse or not scenario.kv.policies.identity else None
