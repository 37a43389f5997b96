"""Differences between runs, or between the arms of a sweep, with 95 % intervals; "not significant" where it is so.

run folders    the first is the baseline. The same requests in both: differences request by request, in order of
               arrival; else the two series apart (Welch). Means by batch means, percentiles and throughput by
               sections (`statistics`); a percentile's own interval is that of order statistics, which takes
               requests as independent.
sweep folders  the arms of one sweep against its first arm, point by point, or the same points of several sweeps
               against the first one; replications with the same seed are paired.

metric, baseline, run, baseline_value, value, difference, low, high, relative_pct, significant (null: no interval),
n, method
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import isnan, nan, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.errors import InputError, Problem
from simulator.experiments.store import SUMMARY
from simulator.experiments.studies.journal import ROWS, STUDY
from simulator.experiments.studies.runner import number
from simulator.experiments.studies.schema import METRICS
from simulator.experiments.studies.statistics import (
    BATCHES,
    Array,
    Interval,
    batch_means,
    paired,
    quantile_interval,
    sectioned,
    t_interval,
    t_quantile,
)
from simulator.metrics.stability import OVERLOADED

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]

KEYS = ("arrival_s", "input_tokens", "output_tokens")  # requests are the same that agree in these
LATENCIES = ("ttft_s", "tpot_s", "e2e_s")
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
FEWEST = 4  # sections
ONLY_VALUES = ("cost.usd_per_million_output_tokens", "energy.joules_per_output_token")


def compare(folders: Sequence[Path]) -> list[Row]:
    """Rows of differences; InputError for folders that cannot be compared."""
    problems = [Problem(str(each), "", _missing(each)) for each in folders if _missing(each)]
    if problems:
        raise InputError(problems)
    sweeps = [(folder / ROWS).is_file() for folder in folders]
    if all(sweeps):
        return list(_sweeps(folders))
    if any(sweeps):
        raise InputError(Problem(str(folders[sweeps.index(True)]), "", "is a sweep among runs; give only runs or only sweeps"))
    if len(folders) < 2:
        raise InputError(Problem(str(folders[0]), "", "one run has nothing to be compared with; give another run folder"))
    first, *others = folders
    baseline = _Run(first)
    return [row for other in others for row in _runs(baseline, _Run(other))]


def _missing(folder: Path) -> str:
    if (folder / ROWS).is_file() or ((folder / SUMMARY).is_file() and (folder / "requests.parquet").is_file()):
        return ""
    what = "no such folder" if not folder.exists() else f"is neither a run ({SUMMARY}, requests.parquet) nor a sweep ({ROWS})"
    return f"{what}; `speckvsim run SCENARIO --out DIR` writes a run folder"


class _Run:
    """A run folder."""

    def __init__(self, folder: Path):
        import pandas as pd

        self.name = str(folder)
        try:
            self.summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
            table = pd.read_parquet(folder / "requests.parquet")
        except (OSError, ValueError) as error:
            raise InputError(Problem(str(folder), "", f"cannot be read: {error}")) from None
        missing = [name for name in (*KEYS, "status", "finished_s", *LATENCIES) if name not in table]
        if missing or not {"throughput", "latency"} <= self.summary.keys():
            what = f"requests.parquet has no {', '.join(missing)}" if missing else f"{SUMMARY} has no throughput and latency"
            raise InputError(Problem(str(folder), "", f"{what}; expected what `speckvsim run` wrote"))
        self.requests = table.sort_values("arrival_s", kind="stable")

    def column(self, name: str) -> Array:
        return self.requests[name].to_numpy(dtype=np.float64)

    def same_requests(self, other: _Run) -> bool:
        return len(self.requests) == len(other.requests) and all(
            np.array_equal(self.column(key), other.column(key)) for key in KEYS
        )

    def rates(self) -> Array:
        """Output tokens per second in equal windows of the run, by the time of the last token."""
        done = self.requests[self.requests["status"] == "finished"]
        ends = done["finished_s"].to_numpy(dtype=np.float64)
        if not len(ends):
            return np.array([])
        width = ends.max() / BATCHES
        tokens, _ = np.histogram(ends, BATCHES, (0.0, ends.max()), weights=done["output_tokens"].to_numpy(dtype=np.float64))
        return np.asarray(tokens / width, dtype=np.float64)


def _runs(one: _Run, other: _Run) -> Iterator[Row]:
    """`other` against the baseline `one`."""
    same = one.same_requests(other)
    metric = "throughput.output_tokens_per_s"
    rates = other.rates(), one.rates()
    yield _row(metric, one, other, _together(*rates, True), f"{BATCHES} windows of each run")
    for latency in LATENCIES:
        ours, theirs = other.column(latency), one.column(latency)
        if same:
            both = ~np.isnan(ours) & ~np.isnan(theirs)
            ours, theirs = ours[both], theirs[both]
            found, how = batch_means(ours - theirs), "batch means of paired requests"
        else:
            ours, theirs = ours[~np.isnan(ours)], theirs[~np.isnan(theirs)]
            found, how = _welch(batch_means(ours), batch_means(theirs)), "batch means of each run"
        yield _row(f"latency.{latency}.mean", one, other, found, how)
        for name, share in SHARES.items():
            fewest = min(len(ours), len(theirs))
            count = min(BATCHES, int(fewest * (1 - share) / 2)) if fewest else 0
            statistic = partial(np.quantile, q=share)
            found = _sections(statistic, ours, theirs, count, same) if count >= FEWEST else t_interval([])
            row = _row(f"latency.{latency}.{name}", one, other, found, f"{count} sections" if found.n else "too few requests")
            own = quantile_interval(ours, share)
            yield row | {"value_low": own.low, "value_high": own.high}
    for metric in ONLY_VALUES:
        yield _row(metric, one, other, t_interval([]), "values only")


def _sections(statistic: Callable[..., Any], ours: Array, theirs: Array, count: int, same: bool) -> Interval:
    one, other = (np.array(sectioned(lambda part: float(statistic(part)), [each], count)) for each in (ours, theirs))
    return _together(one, other, same)


def _together(ours: Array, theirs: Array, same: bool) -> Interval:
    if not len(ours) or not len(theirs):
        return t_interval([])
    return paired(ours, theirs) if same else _welch(t_interval(ours), t_interval(theirs))


def _welch(ours: Interval, theirs: Interval) -> Interval:
    """Of the difference of two independent means."""
    if ours.n < 2 or theirs.n < 2:
        return t_interval([])
    errors = [each.half / t_quantile(each.n - 1) for each in (ours, theirs)]
    total = sqrt(sum(error**2 for error in errors))
    difference = ours.value - theirs.value
    if total == 0.0:
        return Interval(difference, difference, difference, ours.n)
    freedom = total**4 / sum(error**4 / (each.n - 1) for error, each in zip(errors, (ours, theirs)))
    half = t_quantile(max(1, int(freedom))) * total
    return Interval(difference, difference - half, difference + half, min(ours.n, theirs.n))


def _row(metric: str, one: _Run, other: _Run, found: Interval, method: str) -> Row:
    """The difference is that of the summaries; the interval is moved onto it."""
    before, after = number(one.summary, metric), number(other.summary, metric)
    difference = after - before
    shift = difference - found.value if found.n else nan
    if metric.startswith("latency."):
        method += _overloads([run.summary.get("stability", {}).get("verdict") for run in (one, other)])
    return _difference(
        metric,
        one.name,
        other.name,
        before,
        after,
        Interval(difference, found.low + shift, found.high + shift, found.n),
        method,
    )


def _overloads(verdicts: Iterable[Any]) -> str:
    """A mean latency of an overloaded run is never told without saying so."""
    return "; OVERLOADED: grows with the length of the run" if OVERLOADED in verdicts else ""


def _difference(metric: str, baseline: str, run: str, before: float, after: float, found: Interval, method: str) -> Row:
    known = not isnan(found.low)
    return {
        "metric": metric,
        "baseline": baseline,
        "run": run,
        "baseline_value": before,
        "value": after,
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "relative_pct": 100 * found.value / abs(before) if before else nan,
        "significant": found.significant if known else None,
        "n": found.n,
        "method": method if known else (method if found.n == 0 else "one replication"),
    }


def _sweeps(folders: Sequence[Path]) -> Iterator[Row]:
    tables = {str(folder): _table(folder) for folder in folders}
    first, (baseline, axes, metrics) = next(iter(tables.items()))
    if len(tables) == 1:
        arms = list(dict.fromkeys(baseline["arm"]))
        if len(arms) < 2:
            raise InputError(Problem(first, "", "has one arm; give another sweep, or a study with arms:"))
        for arm in arms[1:]:
            yield from _matched(
                baseline[baseline["arm"] == arms[0]], baseline[baseline["arm"] == arm], axes, metrics, arms[0], arm
            )
        return
    for name, (table, _, _) in list(tables.items())[1:]:
        shared = [axis for axis in axes if axis in table]
        yield from _matched(baseline, table, [*shared, "arm"], metrics, first, name)


def _table(folder: Path) -> tuple[pd.DataFrame, list[str], list[str]]:
    """(rows, axes, metrics) of a sweep folder."""
    import pandas as pd

    from simulator.scenario.yaml_source import read_file

    study = read_file(folder / STUDY).data
    try:
        table = pd.read_parquet(folder / ROWS)
    except (OSError, ValueError) as error:
        raise InputError(Problem(str(folder / ROWS), "", f"cannot be read: {error}")) from None
    wanted = study.get("metrics") or METRICS
    metrics = [wanted] if isinstance(wanted, str) else list(wanted)
    return table, [axis for axis in study.get("axes") or {} if axis in table], metrics


def _matched(
    one: pd.DataFrame, other: pd.DataFrame, keys: Sequence[str], metrics: Sequence[str], baseline: str, name: str
) -> Iterator[Row]:
    """Rows with the same keys, replication and seed, metric by metric."""
    on = [*keys, "replication", "seed"]
    both = one.merge(other, on=on, suffixes=("_1", "_2"))
    if both.empty:
        raise InputError(Problem(name, "", f"has no row with the axes, replication and seed of a row of {baseline}"))
    groups = both.groupby(list(keys), sort=False, dropna=False) if keys else [((), both)]
    for values, group in groups:
        where = dict(zip(keys, values if isinstance(values, tuple) else (values,)))
        for metric in metrics:
            column = metric if f"{metric}_1" in group else f"measured.{metric}"
            if f"{column}_1" not in group:
                continue
            before, after = (group[f"{column}_{side}"].to_numpy(dtype=np.float64) for side in (1, 2))
            found = paired(after, before)
            method = "paired replications"
            if metric.startswith("latency."):
                columns = [f"stability.verdict_{side}" for side in (1, 2)]
                method += _overloads({verdict for column in columns if column in group for verdict in group[column]})
            row = _difference(metric, baseline, name, t_interval(before).value, t_interval(after).value, found, method)
            yield where | row
