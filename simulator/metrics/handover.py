"""Requests whose prompt and tokens were computed by different replicas: one row of what two replicas recorded.

TTFT and its parts are those of the prefill replica, which gives out one token. All parts of the end-to-end time are sums of
both, and there is one more: `transfer_s`, from the first token until the KV was at the decode replica.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.metrics.far_share import COLUMNS as FAR_COLUMNS
from simulator.metrics.steps import PARTS

Columns = dict[str, NDArray[Any]]


def joined(prompts: Columns, tokens: Columns, at_both: NDArray[np.bool_], at_prompts: NDArray[np.bool_]) -> Columns:
    """`prompts`, `tokens`: a row for each of all requests, as the replicas of each kind recorded them (others: anything);
    `at_both`: requests that both served; `at_prompts`: those that a prefill replica did."""
    found = {name: _pick(at_prompts, prompts[name], tokens[name]) for name in tokens}
    sojourn = tokens["finished_s"] - prompts["arrival_s"]
    for name in ("finished_s", "status", "output_tokens"):
        found[name] = _pick(at_both, tokens[name], found[name])
    found["e2e_s"] = np.where(at_both, sojourn, found["e2e_s"])
    rest, gaps = found["e2e_s"] - found["ttft_s"], found["output_tokens"] - 1
    tpot = np.divide(rest, gaps, out=np.full(len(rest), np.nan), where=gaps > 0)
    found["tpot_s"] = np.where(at_both, tpot, found["tpot_s"])
    for name in ("queue_s", *(f"{part}_s" for part in PARTS), *FAR_COLUMNS, "preemptions", "cached_tokens"):
        found[name] = np.where(at_both, prompts[name] + tokens[name], found[name])
    done = ~np.isnan(found["e2e_s"])
    transfer = np.where(at_both, tokens["arrival_s"] - prompts["first_token_s"], 0.0)
    found["transfer_s"] = np.where(done, transfer, np.nan)
    return found


def _pick(where: NDArray[np.bool_], there: NDArray[Any], elsewhere: NDArray[Any]) -> NDArray[Any]:
    """Also of columns of text."""
    found: NDArray[Any] = np.where(where, there, elsewhere)
    return found
