"""What the report of a run shows, and that of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.figures import draw
from analysis.figures.quantities import named, with_unit
from analysis.figures.results import Run
from analysis.figures.style import number
from analysis.report import findings
from analysis.report.content import at, cell, dump, empty, table

INVARIANTS = {
    "INV-REQUESTS": "arrived = finished + rejected + aborted; each request ends once",
    "INV-TOKENS": "tokens out = tokens asked for; no decode before its prefill is complete",
    "INV-PRESENT": "no layer computes before every page it reads is in HBM",
    "INV-CAPACITY": "occupancy of every tier is within its capacity at every instant",
    "INV-BYTES": "bytes read = hits + in flight + fetched; each stage carried what its flows moved",
    "INV-RATES": "rates through a stage sum to at most its capacity",
    "INV-ATTRIBUTION": "the parts of a latency sum to the whole",
    "INV-PREFETCH": "proposed = issued + dropped; issued = used + useless",
    "INV-LITTLE": "the integral of the number in system equals the sum of sojourns",
}
COMPARED = (
    "throughput.output_tokens_per_s", "latency.ttft_s.mean", "latency.ttft_s.p99", "latency.tpot_s.mean", "latency.tpot_s.p99",
    "goodput.slo_attainment", "cost.usd_per_million_output_tokens", "energy.joules_per_output_token",
)  # fmt: skip


def run_content(run: Run) -> dict[str, Any]:
    summary = run.summary
    counted = summary["requests"]
    text = f"{counted['arrived']:,} requests arrived, {counted['finished']:,} finished"
    checked = summary.get("simulation", {}).get("checked")
    load = summary.get("stability", {}).get("utilization")
    share = f" at {100 * load:.0f} % of the requests that full batches would serve" if load is not None else ""
    state = [f"{findings.verdict(run)}{share}."] if findings.verdict(run) else []
    return empty(run.name, "One run") | {
        "sentences": [f"{text} in {number(summary['simulation']['simulated_s'])} s of simulated time.", *state],
        "headlines": findings.headlines(run),
        "bound": findings.bound(summary.get("stall", {}), summary.get("bound_by")),
        "limits": findings.limits(run),
        "values": (run.explained or {}).get("values", []),
        "documents": [{"title": "Summary", "text": dump(summary)}],
        "provenance": provenance([run]),
        "checks": {"checked": bool(checked), "rows": [{"name": name, "says": says} for name, says in INVARIANTS.items()]},
    }


def runs_content(runs: Sequence[Run]) -> dict[str, Any]:
    names = draw.labels(runs)
    base = runs[0]
    rows = []
    for run, name in zip(runs, names):
        cells: list[Any] = [name]
        for metric in COMPARED:
            cells.append(cell(at(run.summary, metric), named(metric)[1]))
        rows.append([*cells, cell(run.summary.get("bound_by"), ""), findings.verdict(run)])
    columns = ["run", *(with_unit(*named(metric)) for metric in COMPARED), "bound by", "steady state"]
    over = [name for run, name in zip(runs, names) if findings.overloaded(run)]
    warnings = [f"{name}: {text}" for run, name in zip(runs, names) for text in findings.limits(run)["warnings"]]
    limits = findings.limits(base) | {"warnings": list(dict.fromkeys(warnings))}
    checked = all(run.summary.get("simulation", {}).get("checked") for run in runs)
    return empty(" / ".join(names[:3]) + (" ..." if len(names) > 3 else ""), f"{len(runs)} runs side by side") | {
        "sentences": [_paired(base, run, names[0], name) for run, name in zip(runs[1:], names[1:])]
        + [f"{name} is OVERLOADED: its latencies grow with the length of the run." for name in over],
        "headlines": [],
        "bound": findings.bound(base.summary.get("stall", {}), base.summary.get("bound_by"), names[0]),
        "limits": limits,
        "tables": [table("Runs", columns, rows)],
        "values": (base.explained or {}).get("values", []),
        "documents": [{"title": f"Resolved scenario of {name}", "text": dump(run.scenario)} for run, name in zip(runs, names)],
        "provenance": provenance(runs),
        "checks": {"checked": checked, "rows": [{"name": name, "says": says} for name, says in INVARIANTS.items()]},
    }


def _paired(base: Run, run: Run, base_name: str, name: str) -> str:
    """Difference of the mean end-to-end time, request by request, with batch means."""
    keys = ["arrival_s", "input_tokens", "output_tokens"]
    one, other = base.requests, run.requests
    rate = run.summary["throughput"]["output_tokens_per_s"] or 0.0
    against = base.summary["throughput"]["output_tokens_per_s"]
    text = name
    if against:
        times = rate / against
        many = "as many output tokens per second as"
        how = many if abs(times - 1) < 5e-4 else f"{times:.3g} times the output tokens per second of"
        text = f"{name} gives {how} {base_name}"
    if len(one) != len(other) or not one[keys].equals(other[keys]):
        return f"{text}; the two had different requests, so no difference is taken request by request."
    difference = (other["e2e_s"] - one["e2e_s"]).dropna()
    low, high = findings.mean_interval(difference)
    if low is None or high is None:
        return f"{text}; too few requests for an interval of the difference."
    sure = "significant" if low > 0 or high < 0 else "not significant"
    mean = float(difference.mean())
    return (
        f"{text}; a request ends {number(abs(mean))} s {'later' if mean > 0 else 'earlier'} in the mean "
        f"(95 % of the paired difference: {number(low)} to {number(high)} s, {sure})."
    )


def provenance(runs: Sequence[Run]) -> list[dict[str, str]]:
    rows = []
    for run in runs:
        several = f"{run.name}: " if len(runs) > 1 else ""
        for key, value in run.summary.get("provenance", {}).items():
            rows.append({"name": f"{several}{key}", "value": str(value)})
        took = run.summary.get("simulation", {})
        if took.get("wall_s"):
            text = f"{number(took['wall_s'])} s, {took.get('steps', 0):,} steps, {took.get('events', 0):,} events"
            rows.append({"name": f"{several}simulated in", "value": text})
    return rows
