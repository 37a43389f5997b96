"""Which figures a run, a comparison or a sweep has data for, and writing them.

    run         latency, attribution, tiers, utilisation, fault, cost, roofline, devices
    comparison  latency, attribution, cost of several runs; speed-up against the first
    sweep       axis (a metric along an axis), prefetch, load (throughput and latency), speedup, regime map, tornado, pareto,
                attribution, cost

A figure is left out where the folder has nothing to draw in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.figures import bars, devices, latency, over_time, studies
from analysis.figures.results import Results, Run, Sweep
from analysis.figures.style import Drawn, house, save, short
from analysis.files import filled
from simulator.errors import InputError, Problem, did_you_mean

FOLDER = "figures"
MOST_RUNS = 8  # in one figure


def figures_of(results: Results | Sequence[Run]) -> dict[str, Drawn]:
    """Name -> figure, in reading order."""
    with house():
        if isinstance(results, Sweep):
            return studies.figures(results)
        runs = [results] if isinstance(results, Run) else list(results)
        return _run(runs[0]) if len(runs) == 1 else _comparison(runs[:MOST_RUNS])


def chosen(drawn: dict[str, Drawn], names: Sequence[str] | None) -> dict[str, Drawn]:
    """Those that are asked for; InputError where there is none of that name, or nothing to draw at all."""
    if not drawn:
        raise InputError(Problem("plot", "", "the results hold nothing to draw: no request or no point finished"))
    if names is None:
        return drawn
    wanted = [name.strip() for name in names]
    wrong = [
        Problem("--only", "", f"there is no figure '{name}'; there are {', '.join(drawn)}", did_you_mean(name, drawn))
        for name in wanted
        if name not in drawn
    ]
    if wrong:
        raise InputError(wrong)
    return {name: drawn[name] for name in wanted}


def write(drawn: dict[str, Drawn], folder: Path) -> list[Path]:
    """All files of all figures; each appears complete or not at all. Other files in the folder are left alone."""
    with filled(folder) as aside:
        made = [file.name for name, figure in drawn.items() for file in save(figure, aside, name)]
    return [folder / name for name in made]


def caption_of(run: Run) -> str:
    """Scenario, seed, size, and that one run has no interval."""
    counted = run.summary.get("requests", {})
    text = f"Scenario '{run.name}', seed {run.seed}, {counted.get('finished', 0):,} of {counted.get('arrived', 0):,} requests"
    return f"{text} finished; one run, so no intervals."


def labels(runs: Sequence[Run]) -> list[str]:
    """Names of runs, with their folders where names repeat."""
    names = [run.name for run in runs]
    told = [name if names.count(name) == 1 else f"{short(run.folder.name)}" for name, run in zip(names, runs)]
    return [name if told.count(name) == 1 else f"{at + 1}: {name}" for at, name in enumerate(told)]


def _run(run: Run) -> dict[str, Drawn]:
    caption, drawn = caption_of(run), {}
    if run.requests["ttft_s"].notna().any():
        rows = latency.distribution_rows(run.requests, run.gaps, run.name)
        drawn["latency"] = latency.latency_distribution(rows, run.limits, caption)
        drawn["attribution"] = latency.attribution(latency.attribution_rows(run.requests, run.name), caption)
    if len(run.series):
        capacities = {name: tier["capacity_bytes"] for name, tier in run.summary.get("tiers", {}).items()}
        drawn["tiers"] = over_time.tiers_over_time(run.series, capacities, caption)
        paths = (run.explained or {}).get("paths")
        drawn["utilisation"] = over_time.utilisation_over_time(run.series, paths, caption)
        faults = over_time.fault_rows(run.summary.get("faults", []), run.explained)
        if faults:
            drawn["fault"] = over_time.fault_recovery(run.series, faults, caption)
    costs = pd.DataFrame(bars.cost_rows(run.name, run.summary.get("cost", {})))
    if len(costs):
        drawn["cost"] = bars.cost_breakdown(costs, caption)
    return drawn | _devices([run], [run.name], caption)


def _devices(runs: Sequence[Run], names: Sequence[str], caption: str) -> dict[str, Drawn]:
    drawn: dict[str, Drawn] = {}
    run, explained = runs[0], runs[0].explained
    if explained and (explained.get("bounds") or {}).get("roofline"):
        drawn["roofline"] = devices.roofline(devices.roofline_rows(explained, run.summary, names[0]), caption)
    if explained:
        rows = devices.curve_rows(explained)
        if len(rows):
            drawn["devices"] = devices.latency_bandwidth(rows, _others_load(run), caption)
    return drawn


def _others_load(run: Run) -> float | None:
    """Load of others on the devices of the pool, as the resolved scenario has it."""
    pool = (run.scenario.get("cluster") or {}).get("kv_pool")
    load = pool.get("others_load") if isinstance(pool, dict) else None
    return float(load) if isinstance(load, int | float) else None


def _comparison(runs: Sequence[Run]) -> dict[str, Drawn]:
    names = labels(runs)
    seeds = ", ".join(dict.fromkeys(str(run.seed) for run in runs))
    caption = f"{len(runs)} runs, seeds {seeds}; one run each, so no intervals."
    drawn: dict[str, Drawn] = {}
    rows = pd.concat([latency.distribution_rows(run.requests, run.gaps, name) for run, name in zip(runs, names)])
    if len(rows):
        drawn["latency"] = latency.latency_distribution(rows.reset_index(drop=True), runs[0].limits, caption)
    parts = pd.concat([latency.attribution_rows(run.requests, name) for run, name in zip(runs, names)])
    if parts["mean_s"].notna().any():
        drawn["attribution"] = latency.attribution(parts.reset_index(drop=True), caption)
    metric = "throughput.output_tokens_per_s"
    table = pd.DataFrame(
        [
            {"arm": name, "replication": 0, metric: run.summary["throughput"]["output_tokens_per_s"]}
            for run, name in zip(runs, names)
        ]
    )
    ratios = bars.speedup_rows(table, names, [], metric)
    if len(ratios):
        drawn["speedup"] = bars.speedup(ratios, metric, caption)
    costs = pd.DataFrame([row for run, name in zip(runs, names) for row in bars.cost_rows(name, run.summary.get("cost", {}))])
    if len(costs):
        drawn["cost"] = bars.cost_breakdown(costs, caption)
    return drawn
