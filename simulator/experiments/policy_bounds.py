"""What KV policies change in the bounds that `explain` states: tokens read, multiplied and kept of a sequence, and passes.

Without policies beyond the model's own cache each is what the model itself needs. The bounds stay bounds: a policy's overheads
(drafts, exchanges, work on prompts) are left out, so no run is faster than them.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.kvcache.geometry import Geometry
from simulator.kvcache.policies import law, layout, loop
from simulator.scenario.resolved import ScenarioResolved


@dataclass(frozen=True)
class Needs:
    """Of a sequence in a decode step, in dense tokens; of a step, in passes."""

    read: float  # bytes from HBM
    elsewhere: float  # bytes from memory with its own processors
    multiplied: float  # FLOPs of attention
    kept: float  # tokens of blocks
    memory: float = 1.0  # bytes of a block relative to the model's own
    passes: float = 1.0
    width: int = 1  # tokens of a sequence in a pass
    layers: float = 1.0  # share of the layers that the mean token runs through


def needs(scenario: ScenarioResolved, sizes: Geometry, context: float) -> Needs | None:
    """None where the policies are the identity."""
    policies, model = scenario.kv.policies, scenario.model
    if policies.identity:
        return None
    moved = law.read(policies, scenario.kv.selection, model, 1.0, 0.0).at(context)
    flops = law.read(policies, scenario.kv.selection, model, 1e-12, 1.0).at(context)
    there = policies.compute.at != "gpu"
    own = model.kv_elements(sizes.ranks) * model.kv_bytes * sizes.block_tokens
    return Needs(
        read=0.0 if there else moved,
        elsewhere=moved if there else 0.0,
        multiplied=0.0 if there else flops,
        kept=sizes.held(context),
        memory=sizes.page_bytes / own,
        passes=loop.passes(policies.loop),
        width=loop.width(policies.loop),
        layers=layout.layers_run(policies.layout),
    )


def note(scenario: ScenarioResolved, sizes: Geometry, context: float) -> str:
    """A sentence on what the policies do to a sequence of that length; empty for none."""
    found = needs(scenario, sizes, context)
    if found is None:
        return ""
    where = " elsewhere than in HBM" if found.elsewhere else ""
    read = (found.read + found.elsewhere) / context
    memory = found.kept * found.memory / context
    said = f"KV policies: a sequence of {context:.0f} tokens takes {memory:.0%} of its memory and reads "
    said += f"{read:.0%} of its bytes{where} in a decode step"
    return said + (f"; {found.passes:.2g} passes for each token" if found.passes != 1.0 else "")
