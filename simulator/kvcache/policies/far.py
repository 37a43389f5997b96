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
from simulator.kvcache.policies.curve import Curve, Floats, Ints
from simulator.kvcache.policies.retention import kept
from simulator.scenario.resolved import Model, Policies, ScenarioResolved, Selection


@dataclass(frozen=True)
class _Group:
    """Of one layout group, all times its share and size of an entry."""

    weight: float
    runs: float  # of the tokens
    entries: Curve
    selected: Curve
    index: float  # per entry, of a scan


class FarReads:
    """Ratios of what a step reads of far memory, by context; `prompts`: of the past of prompt pieces instead."""

    def __init__(self, policies: Policies, chosen: Selection, model: Model, prompts: bool = False):
        self._final, self._size = codec.ages(policies.codec)[-1]
        whole = prompts and policies.reading.stage == "decode"
        chosen = replace(chosen, kind="dense", index=0.0) if whole else chosen
        self._touched = 1.0 if whole else selection.bytes_of(policies.reading)
        self._stored = 1.0 + policies.reading.index_stored
        self.passes = 1.0 if prompts else loop.passes(policies.loop)
        self._groups = []
        for group in layout.groups_of(policies.layout):
            if group.kind not in layout.STATES:
                held = law.through(layout.kept(group), kept(policies.retention))
                entries = layout.entries(group, held)
                read = selection.read(chosen, model.layers, entries)
                index = selection.index(chosen, model.layers, Curve.of([(np.inf, 1.0)])).slope
                weight = group.share * group.kv_scale
                self._groups.append(_Group(weight, 1.0 / group.run_every, entries, read, index))

    def ratios(self, contexts: Ints) -> tuple[Floats, Floats]:
        """(scan, moved) by far bytes, of sequences of these contexts; 0 where nothing can be far."""
        far, scan, moved = (np.zeros(len(contexts)) for _ in range(3))
        for group in self._groups:
            beyond = np.maximum(group.entries.over(contexts) - self._final, 0.0)
            read = self._touched * self._size * np.maximum(group.selected.over(contexts) - self._final, 0.0)
            read += group.index * beyond
            far += group.weight * self._size * self._stored * beyond
            scan += group.weight * read
            moved += group.weight * group.runs * read
        some = np.where(far > 0.0, far, 1.0)
        return np.where(far > 0.0, scan / some, 0.0), np.where(far > 0.0, self.passes * moved / some, 0.0)


def near_tokens(policies: Policies, model: Model) -> float:
    """Dense tokens of a sequence, however long, that never leave HBM."""
    final, found = codec.ages(policies.codec)[-1][0], law.stored(policies, model).constant
    for group in layout.groups_of(policies.layout):
        if group.kind not in layout.STATES and final > 0.0:
            newest = codec.cost(policies.codec, layout.entries(group, layout.kept(group)).capped(final), group.kv_scale)
            found += group.share * newest.limit * (1.0 + policies.reading.index_stored)
    return found


def far_reads(scenario: ScenarioResolved, prompts: bool = False) -> FarReads:
    return FarReads(scenario.kv.policies, scenario.kv.selection, scenario.model, prompts)
