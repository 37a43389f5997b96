"""SLO classes and tenants: who got what. Latency and attainment of each, and how even the shares of the tenants are.

attainment   of all that arrived, the share that finished within the limits of its class; a class without limits is met by every
             request that finishes; `weighted_attainment` counts each request by the weight of its class
fairness     Jain's index (sum x)^2 / (n sum x^2) over the tenants that sent anything; 1: even, 1/n: one has all
               jain_service   x = output tokens given / weight: even use of the system
               jain_slowdown  x = mean end-to-end time per output token: even treatment, whatever is asked for
far_read_bytes, transfer_bytes, swap_bytes   raw bytes that crossed the fabric for a tenant: those of its requests in the table
             of requests, shares of what was prefetched for nothing included; KV on its way from prefill to decode replicas; out
             and back. `throttled_s`: seconds in which something of the tenant waited for its bandwidth (`scheduler.tenants`)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.metrics.far_share import FATES
from simulator.metrics.requests import distribution
from simulator.scenario.resolved import SloClass, Tenant

Columns = dict[str, NDArray[Any]]


def good(columns: Columns, ttft: float | None, tpot: float | None) -> NDArray[np.bool_]:
    """Requests that finished within every limit that is set; one token has no TPOT to miss."""
    met: NDArray[np.bool_] = columns["status"] == "finished"
    if ttft is not None:
        met = met & (columns["ttft_s"] <= ttft)
    if tpot is not None:
        met = met & ~(columns["tpot_s"] > tpot)
    return met


def good_by_class(columns: Columns, classes: Sequence[SloClass], kind: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The same, each request by the limits of its own class."""
    met = np.zeros(len(kind), dtype=bool)
    for number, one in enumerate(classes):
        met |= good(columns, one.ttft, one.tpot) & (kind == number)
    return met


def weighted_attainment(met: NDArray[np.bool_], classes: Sequence[SloClass], kind: NDArray[np.int64]) -> float | None:
    weight = np.array([one.weight for one in classes])[kind]
    return float((weight * met).sum() / weight.sum()) if len(kind) else None


def by_name(
    columns: Columns, names: Sequence[str], number: NDArray[np.int64], met: NDArray[np.bool_], makespan: float
) -> dict[str, dict[str, Any]]:
    """A row a class or tenant."""
    found = {}
    for one, name in enumerate(names):
        of = number == one
        done = of & (columns["status"] == "finished")
        asked = int(of.sum())
        found[name] = {
            "arrived": asked,
            "finished": int(done.sum()),
            "rejected": int((of & (columns["status"] == "rejected")).sum()),
            "output_tokens": int(columns["output_tokens"][done].sum()),
            "slo_attainment": int((met & of).sum()) / asked if asked else None,
            "goodput_requests_per_s": int((met & of).sum()) / makespan if makespan else None,
            **{key: distribution(columns[key][of]) for key in ("ttft_s", "tpot_s", "e2e_s")},
        }
    return found


def on_fabric(
    columns: Columns, number: NDArray[np.int64], crossed: Sequence[float], swapped: Sequence[float], throttled: Sequence[float]
) -> list[dict[str, float]]:  # fmt: skip
    """What crossed the fabric for each tenant, of its requests' columns and its own."""
    read = np.bincount(number, sum(columns[f"far_{fate}_bytes"] for fate in FATES), len(crossed))
    names = ("far_read_bytes", "transfer_bytes", "swap_bytes", "throttled_s")
    return [dict(zip(names, row)) for row in zip(read.tolist(), crossed, swapped, throttled, strict=True)]


def fairness(columns: Columns, tenants: Sequence[Tenant], number: NDArray[np.int64]) -> dict[str, float | None]:
    done = columns["status"] == "finished"
    there = [one for one in range(len(tenants)) if (number == one).any()]
    service = [float(columns["output_tokens"][done & (number == one)].sum()) / tenants[one].weight for one in there]
    slowdown = []
    for one in there:
        of = done & (number == one)
        if of.any():
            slowdown.append(float((columns["e2e_s"][of] / columns["output_tokens"][of]).mean()))
    return {"jain_service": jain(service), "jain_slowdown": jain(slowdown)}


def jain(shares: Sequence[float]) -> float | None:
    squares = sum(share**2 for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else None
