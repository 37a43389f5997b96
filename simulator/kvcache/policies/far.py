"""What of a sequence may leave HBM for the pool, and what of that a step reads back (the third line of the composition law).

    stored   memory that a sequence takes (`law.stored`), cut into blocks; which are far is decided by the tiers
    near     never far: states, KV of rejected drafts, and tokens that the codec will still store in another form
    far(n)   = sum_g share_g * kv_scale_g * c * max(0, entries_g(n) - A) * (1 + index_stored)           memory beyond `near`
    scan(n)  = sum_g share_g * kv_scale_g * [touched * c * max(0, selected_g(n) - A) + index * max(0, entries_g(n) - A)]
    moved(n) = passes * (the same, each group / run_every_g)

A: age from which the codec's form is final, c: bytes per raw byte then. In dense tokens, the mean over the layers: layers (or
heads) that differ share what a block holds, so each layer moves the mean. Selected tokens are spread evenly over what is far;
newest ones are near. A far block therefore costs `moved / far` of its bytes in a step: 1 for a dense pass over all layers,
`k_fraction` and `v_fraction`, 1 / run_every, budget / n. Of an index the scan crosses the fabric like the KV it lies beside.

Loop: a pass reads far pages once for all tokens that it computes; a step gives one token and has `passes` of a pass. Drafts
read nothing far (a draft model has KV of its own). A prompt piece reads its past once, all of it where only decodes select.
KV goes to the pool in the form in which HBM stores it; the pool's own codec takes that as its raw side.
Not modelled: what a full window sends to the pool as it moves on: at most one token a step, which reads all of the window.
Identity: far(n) = scan(n) = moved(n) = n.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simulator.kvcache.policies import codec, law, layout, loop, selection
from simulator.kvcache.policies.curve import IDENTITY, Curve, Floats, Ints
from simulator.scenario.resolved import Model, Policies, ScenarioResolved, Selection


@dataclass(frozen=True)
class _Read:
    """Of one layout group as it is read."""

    weight: float  # share and size of an entry
    runs: float  # of the tokens
    entries: Curve
    selected: Curve


class FarReads:
    """Ratios of what a step reads of far memory, by context; `prompts`: of the past of prompt pieces instead."""

    def __init__(self, policies: Policies, chosen: Selection, model: Model, block_tokens: int, prompts: bool = False):
        self._final, self._size = codec.ages(policies.codec, codec.raw_bits(model))[-1]
        whole = prompts and policies.reading.stage == "decode"
        chosen = replace(chosen, kind="dense", index=0.0) if whole else chosen
        self._touched = 1.0 if whole else selection.bytes_of(policies.reading)
        self._index = selection.index(chosen, model.layers, IDENTITY).slope  # per entry, of a scan
        self.passes = 1.0 if prompts else loop.passes(policies.loop)
        stored = 1.0 + policies.reading.index_stored
        self._held = [(weight * stored, entries) for weight, entries in held_entries(policies, model, block_tokens)]
        self._read = []
        for group in layout.groups_of(policies.layout, model):
            entries = layout.entries(group, law.kept(policies, group))
            weight, selected = group.share * group.kv_scale, selection.read(chosen, model.layers, entries)
            self._read.append(_Read(weight, 1.0 / group.run_every, entries, selected))

    def far(self, contexts: Ints) -> Floats:
        """Dense tokens of sequences of these contexts that may be far."""
        return sum((weight * self._size * self._beyond(held, contexts) for weight, held in self._held), np.zeros(len(contexts)))

    def ratios(self, contexts: Ints) -> tuple[Floats, Floats]:
        """(scan, moved) by far bytes, of sequences of these contexts; 0 where nothing can be far."""
        far, scan, moved = self.far(contexts), np.zeros(len(contexts)), np.zeros(len(contexts))
        for group in self._read:
            read = group.weight * self._touched * self._size * self._beyond(group.selected, contexts)
            read += group.weight * self._index * self._beyond(group.entries, contexts)
            scan += read
            moved += group.runs * read
        some = np.where(far > 0.0, far, 1.0)
        return np.where(far > 0.0, scan / some, 0.0), np.where(far > 0.0, self.passes * moved / some, 0.0)

    def _beyond(self, entries: Curve, contexts: Ints) -> Floats:
        """Entries whose form is final."""
        return np.maximum(entries.over(contexts) - self._final, 0.0)


def held_entries(policies: Policies, model: Model, block_tokens: int) -> list[tuple[float, Curve]]:
    """(share times the size of an entry, entries of a sequence) of the groups that keep tokens."""
    held = layout.held_of(policies.layout, model, block_tokens)
    alive = [group for group in held if group.kind not in layout.STATES]
    return [(group.share * group.kv_scale, layout.entries(group, law.kept(policies, group))) for group in alive]


def near_tokens(policies: Policies, model: Model, block_tokens: int) -> float:
    """Dense tokens of a sequence, however long, that never leave HBM."""
    raw = codec.raw_bits(model)
    final, found = codec.ages(policies.codec, raw)[-1][0], law.stored(policies, model, block_tokens).constant
    for weight, entries in held_entries(policies, model, block_tokens):
        newest = codec.cost(policies.codec, entries.capped(final), raw=raw)
        found += weight * newest.limit * (1.0 + policies.reading.index_stored)
    return found


def far_reads(scenario: ScenarioResolved, prompts: bool = False) -> FarReads:
    kv = scenario.kv
    return FarReads(kv.policies, kv.selection, scenario.model, kv.block_tokens, prompts)
