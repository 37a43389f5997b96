"""The summary of a run: stable keys, SI units in the name (design section 6). `null` where a ratio has no denominator.

throughput  over the time from the first arrival to the last token; `decode_...`: tokens of steps without prefill tokens
            over the time of those steps
stall       mean seconds per finished request by part; their sum is latency.e2e_s.mean
prefetch    coverage = prefetched before asked / asked; timeliness = complete when asked / those; accuracy = used /
            issued
kv_access   seconds until one burst is at hand: L1 and L2 unloaded HBM; L3 unloaded path; miss: mean wait of what a
            layer had to wait for, queueing included; mean over all accesses
bound_by    the part with the most time over all steps, or "arrivals" if nothing ran for more than half of the time
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.metrics.cost import Energy
from simulator.metrics.recorder import STATUS, Recorder
from simulator.metrics.requests import distribution, token_gaps, weighted_percentiles
from simulator.metrics.steps import PARTS, Steps
from simulator.metrics.traffic import Traffic
from simulator.scenario.resolved import Slo

Columns = dict[str, NDArray[Any]]


def ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def latency(recorder: Recorder, steps: Steps, columns: Columns) -> dict[str, Any]:
    return {
        "ttft_s": distribution(columns["ttft_s"]),
        "tpot_s": distribution(columns["tpot_s"]),
        "itl_s": weighted_percentiles(*token_gaps(recorder, steps)),
        "e2e_s": distribution(columns["e2e_s"]),
    }


def throughput(steps: Steps, columns: Columns, makespan: float) -> dict[str, float | None]:
    done = columns["status"] == "finished"
    output, prompt = int(columns["output_tokens"][done].sum()), int(columns["input_tokens"][done].sum())
    pure = steps.prefill == 0
    return {
        "output_tokens_per_s": ratio(output, makespan),
        "decode_output_tokens_per_s": ratio(int(steps.rows[pure].sum()), float(steps.duration[pure].sum())),
        "total_tokens_per_s": ratio(output + prompt, makespan),
        "requests_per_s": ratio(int(done.sum()), makespan),
    }


def goodput(columns: Columns, slo: Slo, makespan: float) -> dict[str, float | None]:
    """Requests within every limit that is set, of all that arrived; one token has no TPOT to miss."""
    if slo.ttft is None and slo.tpot is None:
        return {"requests_per_s": None, "slo_attainment": None}
    good = columns["status"] == "finished"
    if slo.ttft is not None:
        good = good & (columns["ttft_s"] <= slo.ttft)
    if slo.tpot is not None:
        good = good & ~(columns["tpot_s"] > slo.tpot)
    return {"requests_per_s": ratio(int(good.sum()), makespan), "slo_attainment": ratio(int(good.sum()), len(good))}


def counts(recorder: Recorder) -> dict[str, int]:
    status = np.array(recorder.status)
    by_name = {name: int((status == kind).sum()) for kind, name in enumerate(STATUS) if name != "waiting"}
    return {"arrived": len(status)} | by_name | {"preemptions": sum(recorder.preemptions)}


def stall(columns: Columns) -> dict[str, float | None]:
    names = ["queue", *PARTS]
    return {f"{name}_s": distribution(columns[f"{name}_s"])["mean"] for name in names}


def prefix_cache(recorder: Recorder, columns: Columns, recorded: bool) -> dict[str, float | int | None]:
    """What of the prompts was found in the prefix cache; null where there is none, or where the workload has no block ids."""
    hits, asked = sum(recorder.cached_tokens), int(columns["input_tokens"][columns["status"] == "finished"].sum())
    return {"hit_tokens": hits if recorded else None, "hit_share": ratio(hits, asked) if recorded else None}


def prefetch(traffic: Traffic) -> dict[str, float | int | None]:
    used = traffic.in_time + traffic.late
    return {
        "coverage": ratio(used, traffic.asked),
        "accuracy": ratio(used, traffic.issued),
        "timeliness": ratio(traffic.in_time, used),
        "wasted_bytes": traffic.useless * traffic.page_bytes,
        "dropped": traffic.dropped,
        "late": traffic.late,
        "proposed": traffic.proposed,
        "issued": traffic.issued,
        "asked": traffic.asked,
        "demand": traffic.demand,
        "polluted": traffic.polluted,
    }


def kv_access(traffic: Traffic, near: int) -> dict[str, float | None]:
    near_s = traffic.l1_access_s
    total = near + traffic.asked
    immediate = total - traffic.waited
    return {
        "l1_s": near_s,
        "l2_s": near_s if traffic.l3_access_s is not None else None,
        "l3_s": traffic.l3_access_s,
        "miss_s": ratio(traffic.wait_s, traffic.waited),
        "mean_s": ratio(immediate * near_s + traffic.wait_s, total),
        "l3_read_share": ratio(traffic.asked, total),
        "l2_kept_share": ratio(traffic.l2_hits, total),
    }


def tiers(held: dict[str, tuple[float, NDArray[Any]]], duration: NDArray[np.float64], makespan: float) -> dict[str, Any]:
    """`held`: tier -> (capacity, bytes in use during each step)."""
    return {
        name: {
            "capacity_bytes": capacity,
            "peak_bytes": float(used.max(initial=0.0)),
            "mean_bytes": ratio(float(np.dot(used, duration)), makespan),
        }
        for name, (capacity, used) in held.items()
    }


def bound_by(steps: Steps, makespan: float) -> str:
    busy = float(steps.duration.sum())
    if busy < 0.5 * makespan or busy == 0.0:
        return "arrivals"
    totals = {name: float(part.sum()) for name, part in steps.parts.items()}
    return max(totals, key=lambda name: totals[name])


def money(hourly: dict[str, float], tokens: int, makespan: float, as_of: str, basis: str) -> dict[str, Any]:
    per_hour = sum(hourly.values())
    usd = per_hour * makespan / 3600
    return {
        "usd_per_million_output_tokens": ratio(usd * 1e6, tokens),
        "usd_per_hour": per_hour,
        **{f"{item}_usd_per_hour": value for item, value in hourly.items()},
        "basis": basis,
        "prices_as_of": as_of,
    }


def joules(energy: Energy, tokens: int) -> dict[str, float | None]:
    return {
        "joules_per_output_token": ratio(energy.total, tokens),
        "gpu_j": energy.gpu,
        "pool_j": energy.pool,
        "host_j": energy.host,
    }
