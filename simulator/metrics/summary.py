"""The summary of a run: stable keys, SI units in the name (design section 6). `null` where a ratio has no denominator.

throughput  over the time from the first arrival to the last token; `decode_...`: tokens of steps without prefill tokens
            over the time of those steps
stall       mean seconds per finished request by part; their sum is latency.e2e_s.mean
prefetch    coverage = prefetched before asked / asked; timeliness = complete when asked / those; accuracy = used /
            issued
kv_access   seconds until one burst is at hand: L1 and L2 unloaded HBM; L3 unloaded path; miss: mean wait of what a
            layer had to wait for, queueing included; mean over all accesses
tiers       read_bytes: raw KV that steps with far memory read in L1, in L2 (kept there, or prefetched in time), and in L3 (late
            or on demand): together all that they read
layer_groups  the same for the layers that share their page sets (one group where all layers are alike), by fate
bound_by    the part with the most time over all steps, or "arrivals" if nothing ran for more than half of the time
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.metrics.classes import weighted_attainment
from simulator.metrics.cost import Energy
from simulator.metrics.recorder import STATUS
from simulator.metrics.requests import distribution, mean, weighted_percentiles
from simulator.metrics.steps import PARTS, StepColumns, Steps
from simulator.metrics.traffic import Traffic
from simulator.scenario.resolved import Slo

Columns = dict[str, NDArray[Any]]


def ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def latency(columns: Columns, gaps: tuple[NDArray[np.float64], NDArray[np.int64]]) -> dict[str, Any]:
    """`gaps`: all times between tokens, as `requests.token_gaps` gives them."""
    return {
        "ttft_s": distribution(columns["ttft_s"]),
        "tpot_s": distribution(columns["tpot_s"]),
        "itl_s": weighted_percentiles(*gaps),
        "e2e_s": distribution(columns["e2e_s"]),
    }


def throughput(each: Sequence[Steps], columns: Columns, makespan: float) -> dict[str, float | None]:
    """`each`: the steps of every replica; what each decodes per second adds up."""
    done = columns["status"] == "finished"
    output, prompt = int(columns["output_tokens"][done].sum()), int(columns["input_tokens"][done].sum())
    rates = [rate for steps in each if (rate := decode_rate(steps)) is not None]
    return {
        "output_tokens_per_s": ratio(output, makespan),
        "decode_output_tokens_per_s": sum(rates) if rates else None,
        "total_tokens_per_s": ratio(output + prompt, makespan),
        "requests_per_s": ratio(int(done.sum()), makespan),
    }


def decode_rate(steps: Steps) -> float | None:
    """Tokens per second of the steps of a replica that compute no prompt."""
    pure = steps.prefill == 0
    return ratio(int(steps.rows[pure].sum()), float(steps.duration[pure].sum()))


def goodput(met: NDArray[np.bool_], slo: Slo, kind: NDArray[np.int64], makespan: float) -> dict[str, float | None]:
    """Requests within the limits of their class (`met`), of all that arrived; null where no class has any."""
    if all(one.ttft is None and one.tpot is None for one in slo.classes):
        return {"requests_per_s": None, "slo_attainment": None, "weighted_attainment": None}
    return {
        "requests_per_s": ratio(int(met.sum()), makespan),
        "slo_attainment": ratio(int(met.sum()), len(met)),
        "weighted_attainment": weighted_attainment(met, slo.classes, kind),
    }


def counts(columns: Columns) -> dict[str, int]:
    status = columns["status"]
    by_name = {name: int((status == name).sum()) for name in STATUS if name != "waiting"}
    return {"arrived": len(status)} | by_name | {"preemptions": int(columns["preemptions"].sum())}


def stall(columns: Columns) -> dict[str, float | None]:
    names = ["queue", *PARTS, *(["transfer"] if "transfer_s" in columns else [])]
    return {f"{name}_s": mean(columns[f"{name}_s"]) for name in names}


def prefix_cache(columns: Columns, blocks: Mapping[str, int], recorded: bool) -> dict[str, float | int | None]:
    """What of the prompts was found in the prefix cache; null where there is none, or where the workload has no block ids."""
    hits = int(columns["cached_tokens"].sum())
    asked = int(columns["input_tokens"][columns["status"] == "finished"].sum())
    found: dict[str, float | int | None] = {
        "hit_tokens": hits,
        "hit_share": ratio(hits, asked),
        "blocks": blocks["asked"],
        "hit_block_share": ratio(blocks["l1"] + blocks["l2"] + blocks["l3"], blocks["asked"]),
        **{f"{tier}_hit_blocks": blocks[tier] for tier in ("l1", "l2", "l3")},
    }
    return found if recorded else dict.fromkeys(found)


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


def with_reads(tiers: dict[str, Any], traffic: Traffic) -> dict[str, Any]:
    """The tiers of a far memory with what was read there."""
    if not traffic.groups:
        return tiers
    pages = {"l1": traffic.near, "l2": traffic.l2_hits + traffic.in_time, "l3": traffic.demand + traffic.late}
    return {
        name: tier | ({"read_bytes": pages[name] * traffic.page_bytes} if name in pages else {}) for name, tier in tiers.items()
    }


def layer_groups(traffic: Traffic) -> list[dict[str, Any]]:
    """Raw bytes by layers that share their page sets; the sums are those of `tiers` and `prefetch`."""
    return [
        {
            "layers": [group.first, group.first + group.layers - 1],
            "reads": "selected" if group.selects else "all",
            "l1_bytes": group.near * traffic.page_bytes,
            "l2_kept_bytes": group.kept * traffic.page_bytes,
            "in_time_bytes": group.in_time * traffic.page_bytes,
            "late_bytes": group.late * traffic.page_bytes,
            "demand_bytes": group.demand * traffic.page_bytes,
            "wasted_bytes": group.useless * traffic.page_bytes,
        }
        for group in traffic.groups
    ]


def bound_by(steps: StepColumns, makespan: float, replicas: int = 1) -> str:
    busy = float(steps.duration.sum()) / replicas
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


def replicas(rows: list[dict[str, Any]], routing: str) -> dict[str, Any]:
    """A row a replica, and how unequal they are: the most of one over the mean, within groups."""
    groups = list(dict.fromkeys(row["group"] for row in rows))
    worst = {}
    for name in ("requests", "output_tokens", "step_share"):
        shares = []
        for group in groups:
            values = [row[name] or 0 for row in rows if row["group"] == group]
            if sum(values):
                shares.append(max(values) * len(values) / sum(values))
        worst[name] = max(shares, default=None)
    return {"replicas": rows, "routing": {"rule": routing, "imbalance": worst}}


def handover(columns: Columns, remote: int, moved: float) -> dict[str, Any]:
    """Prompts computed by other replicas than their tokens: how many, raw bytes of KV that crossed, and s from the first token
    until it had, those that did not cross left out."""
    crossed = columns["transfer_s"][columns["transfer_s"] > 0.0]
    return {"requests": remote, "bytes": moved, "transfer_s": distribution(crossed)}


def joules(energy: Energy, tokens: int) -> dict[str, float | None]:
    return {
        "joules_per_output_token": ratio(energy.total, tokens),
        "gpu_j": energy.gpu,
        "pool_j": energy.pool,
        "host_j": energy.host,
    }
