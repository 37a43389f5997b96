"""Results folders as figures and reports read them: a run or a sweep, also one from another machine.

Nothing but the folder is needed: no trace, no scenario file, no simulator.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from simulator.errors import InputError, Problem

SUMMARY, STUDY, ROWS = "summary.json", "study.yaml", "results.parquet"
SUMMARY_KEYS = ("throughput", "latency", "requests", "simulation")
REQUESTS = ("status", "arrival_s", "output_tokens", "ttft_s", "tpot_s", "e2e_s")
SERIES = ("time_s", "output_tokens_per_s")
OWN = ("point_id", "replication", "seed", "arm", "status", "error")  # columns of a sweep that are neither axis nor result


@dataclass(frozen=True)
class Run:
    """A run folder."""

    folder: Path

    @cached_property
    def summary(self) -> dict[str, Any]:
        return _json(self.folder / SUMMARY)

    @cached_property
    def scenario(self) -> dict[str, Any]:
        return _yaml(self.folder / "scenario.resolved.yaml")

    @cached_property
    def explained(self) -> dict[str, Any] | None:
        """What `explain` said of the scenario; None in folders that do not have it."""
        file = self.folder / "explain.json"
        return _json(file) if file.exists() else None

    @cached_property
    def requests(self) -> pd.DataFrame:
        return _parquet(self.folder / "requests.parquet")

    @cached_property
    def series(self) -> pd.DataFrame:
        return _parquet(self.folder / "timeseries.parquet")

    @cached_property
    def gaps(self) -> pd.DataFrame | None:
        """The distribution of ITL; None in folders that do not have it."""
        file = self.folder / "itl.parquet"
        return _parquet(file) if file.exists() else None

    @property
    def name(self) -> str:
        return str(self.summary.get("name") or self.folder.name)

    @property
    def seed(self) -> Any:
        return self.summary.get("provenance", {}).get("seed")

    @property
    def limits(self) -> dict[str, float]:
        """The SLO in seconds, by latency column."""
        return slo_of(self.scenario)


@dataclass(frozen=True)
class Sweep:
    """A folder of `sweep` or `search`."""

    folder: Path

    @cached_property
    def study(self) -> dict[str, Any]:
        return _yaml(self.folder / STUDY)

    @cached_property
    def everything(self) -> pd.DataFrame:
        """All rows, failed ones too."""
        return _parquet(self.folder / ROWS)

    @cached_property
    def table(self) -> pd.DataFrame:
        found = self.everything
        return found[found["status"] == "finished"].reset_index(drop=True)

    @cached_property
    def insight(self) -> dict[str, Any]:
        file = self.folder / "insight.json"
        return _json(file) if file.exists() else {"analyses": {}, "sentences": []}

    @cached_property
    def search(self) -> dict[str, Any]:
        file = self.folder / "search.json"
        return _json(file) if file.exists() else {}

    @property
    def name(self) -> str:
        return str(self.study.get("name") or self.folder.name)

    @property
    def axes(self) -> list[str]:
        return [path for path in self.study.get("axes") or {} if path in self.everything.columns]

    @property
    def arms(self) -> list[str]:
        """In the order of the study."""
        found = list(dict.fromkeys(self.table["arm"].astype(str)))
        named = [str(arm) for arm in self.study.get("arms") or {} if str(arm) in found]
        return named + [arm for arm in found if arm not in named]

    @property
    def replications(self) -> int:
        return int(self.table["replication"].nunique()) if len(self.table) else 0

    @cached_property
    def limits(self) -> dict[str, float]:
        """The SLO of the first point."""
        for file in sorted((self.folder / "points").glob("*.yaml")):
            return slo_of(_yaml(file))
        return slo_of(self.study.get("base") if isinstance(self.study.get("base"), dict) else {})

    def column(self, metric: str) -> str:
        """The column of a summary key: `measured.` stands before one that is an axis as well."""
        return f"measured.{metric}" if f"measured.{metric}" in self.everything.columns else metric


Results = Run | Sweep


def open_results(folder: Path) -> Results:
    """What is in the folder, checked so far that all its files are there and can be read."""
    if not folder.is_dir():
        raise _problem(folder, "is not a folder; expected a run (`speckvsim run ... --out`) or a sweep")
    if (folder / SUMMARY).exists():
        run = Run(folder)
        _ = run.scenario, run.explained
        _whole(folder / SUMMARY, run.summary, SUMMARY_KEYS)
        for name, table, columns in (("requests", run.requests, REQUESTS), ("timeseries", run.series, SERIES)):
            _whole(folder / f"{name}.parquet", table, columns)
        if run.gaps is not None:
            _whole(folder / "itl.parquet", run.gaps, ("itl_s", "gaps"))
        return run
    if (folder / STUDY).exists():
        sweep = Sweep(folder)
        if not (folder / ROWS).exists():
            raise _problem(folder, f"has no {ROWS}: the sweep has not finished; run the same `speckvsim sweep` again")
        _ = sweep.study, sweep.insight, sweep.search
        _whole(folder / ROWS, sweep.everything, OWN)
        return sweep
    raise _problem(folder, f"is neither a run nor a sweep: it has no {SUMMARY} and no {STUDY}")


def _whole(file: Path, found: Any, names: Sequence[str]) -> None:
    """InputError if a table lacks columns, or a document keys, without which nothing can be drawn."""
    missing = [name for name in names if name not in found]
    if missing:
        raise _problem(file, f"has no {', '.join(missing)}; expected what `speckvsim` wrote")


def open_all(folders: Sequence[Path]) -> list[Results]:
    """All of them; every wrong one is named at once."""
    found: list[Results] = []
    problems: list[Problem] = []
    for folder in folders:
        try:
            found.append(open_results(folder))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return found


def open_as_one(folders: Sequence[Path]) -> Sweep | list[Run]:
    """A sweep, or a run with those it is compared with. Sweeps are not compared here: `speckvsim compare` does that."""
    found = open_all(folders)
    sweeps = [each for each in found if isinstance(each, Sweep)]
    if sweeps and len(found) > 1:
        hint = "`speckvsim compare` takes several sweeps"
        raise _problem(sweeps[0].folder, "is a sweep; expected one sweep alone, or runs", hint)
    return sweeps[0] if sweeps else [each for each in found if isinstance(each, Run)]


def slo_of(scenario: Any) -> dict[str, float]:
    """Limits in seconds, as the resolved scenario writes them ('2 s', '50 ms')."""
    limits = scenario.get("slo") if isinstance(scenario, dict) else None
    found = {}
    for name, column in (("ttft", "ttft_s"), ("tpot", "tpot_s")):
        seconds = _seconds((limits or {}).get(name))
        if seconds is not None:
            found[column] = seconds
    return found


def _seconds(text: Any) -> float | None:
    number, _, unit = str(text).partition(" ")
    sizes = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
    try:
        return float(number) * sizes[unit.strip()]
    except (KeyError, ValueError):
        return None


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error
    if not isinstance(found, dict):
        raise _problem(file, "holds no JSON object; expected what `speckvsim` wrote")
    return found


def _yaml(file: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _unreadable(file, error) from error
    if not isinstance(found, dict):
        raise _problem(file, "holds no mapping; expected what `speckvsim` wrote")
    return found


def _parquet(file: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> InputError:
    what = getattr(error, "strerror", None) or " ".join(str(error).split())
    return _problem(file, f"cannot be read: {what}")


def _problem(place: Path, message: str, hint: str = "") -> InputError:
    return InputError(Problem(str(place), "", message, hint))
