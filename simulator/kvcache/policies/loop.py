"""Loop: passes of the model for each output token, and tokens that a pass computes.

    autoregressive    1 pass, 1 token a sequence
    speculative       a draft proposes g tokens, one pass checks them: width = g + 1,
                      tokens a pass = 1 + sum_(i<=g) prod_(j<=i) a_j,   a_j: acceptance of position j after those before it
                      passes = 1 / tokens a pass; each pass costs g drafts of `draft_cost` plain steps
    parallel_workers  W workers continue one sequence: width = W over one cache, passes = steps_scale
    block_diffusion,  passes = steps_scale, each computes `recompute` of the context again
    denoise

KV of rejected tokens is dropped; until then a sequence holds g tokens more. Acceptance, the use of workers and steps depend on
content: inputs, never results. Tokens leave evenly (the mean of a pass), so gaps between tokens are means as well.
Identity: autoregressive.
"""

from __future__ import annotations

from simulator.scenario.resolved import Loop


def accepted(loop: Loop) -> float:
    """Expected tokens of a speculative pass: the accepted ones, and the one that the model itself gives."""
    expected, chance = 1.0, 1.0
    for rate in loop.acceptance[: loop.draft]:
        chance *= rate
        expected += chance
    return expected


def passes(loop: Loop) -> float:
    """Passes for each output token."""
    return 1.0 / accepted(loop) if loop.kind == "speculative" else loop.steps_scale


def width(loop: Loop) -> int:
    """Tokens of one sequence in a pass."""
    return loop.draft + 1 if loop.kind == "speculative" else loop.workers


def drafting(loop: Loop) -> float:
    """Seconds of drafts for each pass, in plain decode steps."""
    return loop.draft * loop.draft_cost if loop.kind == "speculative" else 0.0
