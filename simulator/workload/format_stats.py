"""Figures of a trace that only some formats record: sessions, agents, latencies of a recorded run."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.workload.agentic import Agentic, Session, sessions
from simulator.workload.lines import open_lines
from simulator.workload.prefix_reuse import unbounded_runs
from simulator.workload.requests import Requests
from simulator.workload.vllm_run import run_rows


def spread(values: npt.NDArray[Any]) -> dict[str, float]:
    """Extremes, mean, percentiles and sum, rounded for print."""
    p50, p90, p99 = np.percentile(values, (50, 90, 99))
    return {
        "max": _short(values.max(), 4),
        "mean": _short(values.mean(), 1),
        "min": _short(values.min(), 4),
        "p50": _short(p50, 4),
        "p90": _short(p90, 1),
        "p99": _short(p99, 1),
        "sum": _short(values.sum(), 4),
    }


def _short(value: float, digits: int) -> float:
    """Rounded, and whole numbers without a fraction."""
    rounded = round(float(value), digits)
    return int(rounded) if rounded.is_integer() else rounded


def session_stats(requests: Requests) -> dict[str, Any]:
    """How many sessions there are, and their turns."""
    assert requests.session is not None
    turns = np.unique(requests.session[requests.session >= 0], return_counts=True)[1]
    return {"sessions": len(turns), "turns_per_session": spread(turns)}


def blocks_stats(requests: Requests) -> dict[str, Any]:
    """Blocks of all prompts, and the share of them in a leading run that was there before (unbounded cache)."""
    assert requests.hash_ids is not None
    total = len(requests.hash_ids.flat)
    return {"blocks_total": total, "intra_session_leading_run_fraction": round(int(unbounded_runs(requests).sum()) / total, 4)}


def agentic_stats(path: str | PathLike[str], skip: bool) -> dict[str, Any] | None:
    """What recorded sessions of agents have beyond requests; None where the file is something else."""
    with open_lines(path, skip) as lines:
        if not Agentic().recognises(lines.peek()):
            return None
        found = [_without_ids(session) for session in sessions(lines)]
    calls = [call for session in found for call in session.calls]
    parents = [[call for call in session.calls if call.parent] for session in found]
    return {
        "api_time_s": _of([call.api for call in calls]),
        "parent_requests_per_session": _of([len(one) for one in parents]),
        "requests": len(calls),
        "session_span_s": _of([one[-1].at - one[0].at for one in parents if one]),
        "sessions": len(found),
        "subagent_requests": sum(not call.parent for call in calls),
        "subagents": sum(session.subagents for session in found),
        "think_time_s": _of([call.think for call in calls]),
        "ttft_s": _of([call.ttft for call in calls]) | {"n": sum(call.ttft is not None for call in calls)},
    }


def _without_ids(session: Session) -> Session:
    for call in session.calls:
        del call.ids[:]
    return session


def _of(values: Sequence[float | None]) -> dict[str, float]:
    """Of those that are recorded."""
    known = np.array([value for value in values if value is not None])
    return spread(known) if len(known) else {}


def run_stats(path: str) -> dict[str, Any]:
    """Latencies of a recorded vLLM run: definitions of vLLM's benchmark, from when the engine queued a request."""
    rows = run_rows(path)
    queued, first, last, output = (
        np.array([row[name] for row in rows], np.float64)
        for name in ("queued_ts", "first_token_ts", "last_token_ts", "output_toks")
    )
    found = {
        "latency_s": spread(last - queued),
        "makespan_s": _short(last.max() - queued.min(), 4),
        "ttft_ms": spread((first - queued) * 1e3),
    }
    several = output > 1
    if several.any():
        found["tpot_ms"] = spread((last - first)[several] * 1e3 / (output[several] - 1))
    if all("scheduled_ts" in row for row in rows):
        scheduled = np.array([row["scheduled_ts"] for row in rows], np.float64)
        found["queue_ms"] = spread((scheduled - queued) * 1e3)
    return found
