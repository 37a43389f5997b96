"""Retention: which tokens exist at all.

    prompt(P)   = ceil(prompt_scale * keep * P)         keep only with `prefill_end`: what is kept of the prompt, once computed
    work        = (1 + pre_cost / prompt_scale) / keep  computed tokens for each kept token of a prompt
    kept(n)     = keep * n + (1 - keep) * min(n, window)                                  `always`: evicted as they age

Retention shrinks what is stored and what is read. `pre_cost` is the work of an encoder or a draft model over the whole prompt,
relative to the model's own. With `prefill_end` a prompt is never held whole: it is taken as compressed piece by piece.
A cache that evicts every w steps oscillates by w tokens; `window` is the mean of that. Identity: everything is kept.
"""

from __future__ import annotations

from math import ceil

from simulator.kvcache.policies.curve import IDENTITY, Curve
from simulator.scenario.resolved import Retention


def prompt_share(retention: Retention) -> float:
    """Tokens in the cache for each token of a prompt, before `kept`."""
    return retention.prompt_scale * (retention.keep if retention.when == "prefill_end" else 1.0)


def prompt(retention: Retention, tokens: int) -> int:
    return max(1, ceil(prompt_share(retention) * tokens - 1e-9))


def stretch(retention: Retention) -> float:
    """Tokens that attention sees in a prompt for each that is kept of it."""
    return 1.0 / retention.keep if retention.when == "prefill_end" else 1.0


def work(retention: Retention) -> float:
    """Tokens computed for each kept token of a prompt."""
    return (1.0 + retention.pre_cost / retention.prompt_scale) * stretch(retention)


def kept(retention: Retention, tokens: Curve = IDENTITY) -> Curve:
    """Of `tokens` tokens."""
    if retention.when == "prefill_end" or retention.keep == 1.0:
        return tokens
    return tokens.times(retention.keep) + tokens.capped(retention.window).times(1.0 - retention.keep)
