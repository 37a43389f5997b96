"""What KV policies change in the bounds that `explain` states: tokens read, multiplied and kept of a sequence, and passes.

Without policies beyond the model's own cache each is what the model itself needs. The bounds stay bounds: a policy's overheads
(drafts, exchanges, work on prompts) are left out, so no run is faster than them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.kvcache.geometry import Geometry
from simulator.kvcache.policies import law, layout, loop
from simulator.kvcache.policies.far import far_reads
from simulator.kvcache.policies.topology import shares
from simulator.scenario.resolved import HbmCodec, ScenarioResolved


@dataclass(frozen=True)
class Needs:
    """Of a sequence in a decode step, in dense tokens; of a step, in passes."""

    read: float  # bytes from HBM
    elsewhere: float  # bytes from memory with its own processors
    multiplied: float  # FLOPs of attention
    kept: float
    passes: float = 1.0
    width: int = 1  # tokens of a sequence in a pass
    layers: float = 1.0  # share of the layers that the mean token runs through
    far: float = 0.0  # beside a pool: what may leave HBM,
    scanned: float = 0.0  # of that, what a pass over all layers reads,
    moved: float = 0.0  # and what a step does


def needs(scenario: ScenarioResolved, sizes: Geometry, context: float) -> Needs | None:
    """None where the policies are the identity."""
    policies, model = scenario.kv.policies, scenario.model
    if policies.identity:
        return None
    moved = law.read(policies, scenario.kv.selection, model, 1.0, 0.0).at(context)
    flops = law.read(policies, scenario.kv.selection, model, 1e-12, 1.0).at(context)
    there = policies.compute.at != "gpu"
    far = scan = moving = 0.0
    if scenario.far_in_place:
        reads, one = far_reads(scenario), np.array([round(context)])
        far = float(reads.far(one)[0]) * shares(policies.latent, sizes.ranks)
        scan, moving = (far * float(ratio[0]) for ratio in reads.ratios(one))
    return Needs(
        read=0.0 if there else moved,
        elsewhere=moved if there else 0.0,
        multiplied=0.0 if there else flops,
        kept=sizes.held(context) * sizes.relative,
        passes=loop.passes(policies.loop),
        width=loop.width(policies.loop),
        layers=layout.layers_run(policies.layout),
        far=far,
        scanned=scan,
        moved=moving,
    )


def of_a_sequence(
    scenario: ScenarioResolved, sizes: Geometry, context: float, read: float, kept: float
) -> dict[str, float | None]:  # fmt: skip
    """Bytes of a sequence of that length on all GPUs; without policies it reads and keeps so many tokens. Nulls where
    nothing of a sequence that runs is far."""
    found = needs(scenario, sizes, context) or Needs(read, 0.0, read, kept, far=kept, moved=read)
    token, pool = sizes.token_bytes, scenario.far_in_place
    return {
        "context_tokens": context,
        "stored_bytes": found.kept * token,
        "read_bytes_per_step": (found.read + found.elsewhere)
        * found.passes
        * shares(scenario.kv.policies.latent, sizes.ranks)
        * token,
        "always_near_blocks": sizes.near_blocks if pool else None,
        "far_bytes_at_most": found.far * token if pool else None,
        "moved_bytes_per_step_at_most": found.moved * token if pool else None,
    }


def note(scenario: ScenarioResolved, sizes: Geometry, context: float) -> str:
    """A sentence on what the policies do to a sequence of that length; empty for none."""
    found = needs(scenario, sizes, context)
    if found is None:
        return ""
    where = " elsewhere than in HBM" if found.elsewhere else ""
    read = (found.read + found.elsewhere) / context
    said = f"KV policies: a sequence of {context:.0f} tokens takes {found.kept / context:.0%} of its memory and reads "
    said += f"{read:.0%} of its bytes{where} in a decode step"
    if found.far:
        said += f"; of what is in the pool {found.moved / found.far:.0%} crosses the fabric in each"
    return said + (f"; {found.passes:.2g} passes for each token" if found.passes != 1.0 else "")


def twice_compressed(scenario: ScenarioResolved) -> str:
    """A sentence on a pool's codec that takes what another one has made; empty without both."""
    own, ratio = scenario.kv.policies.codec != HbmCodec(), scenario.kv.codec.ratio
    if scenario.pool is None or not own or ratio == 1.0:
        return ""
    said = f"kv.codec takes what kv.hbm_codec has made smaller by another {ratio:.3g}: unless that ratio was measured on such "
    return said + "data, ratio: 1 is what to expect"
