"""Published serving measurements against the simulator: every expressible row is run, none is left out silently.

A row's error is model / truth - 1. A row that was used to fit the law of its engine is *fitted*, all others are *held back*.
A row that the simulator refuses (weights in host memory) counts as outside. Why a row is outside 15 % is looked up by its id in
`data/serving_reasons.yaml`: each reason with its evidence; what nobody can explain says so.

GPU power of decode: some rows note the mean power of their run as a share of the board's limit. The model's is the energy of
the run beyond that of its first tokens, over the same time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from analysis.validation.compare import Compared
from analysis.validation.serving_engines import Law, law_of, laws
from analysis.validation.serving_rows import Measurement, rows, sort_out
from analysis.validation.serving_scenarios import predict, run
from simulator import step_model
from simulator.errors import InputError

DATA_SET = "serving_measurements"
REASONS = "serving_reasons.yaml"
WITHIN = 15.0  # percent
UNKNOWN = "not known"
POWER = re.compile(r"mean GPU power ([0-9.]+) of TDP")


@dataclass(frozen=True)
class Outcome:
    """A row that was run."""

    row: Measurement
    law: Law
    model: float | None  # in the unit of the row; None: refused
    refusal: str = ""

    @property
    def fitted(self) -> bool:
        return self.row.id in self.law.fitted_rows

    @property
    def error_pct(self) -> float | None:
        return None if self.model is None else 100.0 * (self.model / self.row.value - 1.0)

    @property
    def within(self) -> bool:
        return self.error_pct is not None and abs(self.error_pct) <= WITHIN


@dataclass(frozen=True)
class Serving:
    """All rows of the table."""

    outcomes: list[Outcome]
    missing: dict[str, str]  # id of a row that is not expressible -> the first field it lacks
    reasons: dict[str, str]  # id -> likely reason of an error

    @cached_property
    def held(self) -> list[Outcome]:
        return [one for one in self.outcomes if not one.fitted]

    def outside(self) -> list[dict[str, Any]]:
        """The rows that are not within 15 %, with the likely reason."""
        return [
            {
                "row": one.row.id,
                "engine": one.row.engine,
                "gpu": f"{one.row.gpus} x {one.row.gpu}",
                "model": one.row.model,
                "load": _load(one.row),
                "metric": one.row.metric,
                "measured": one.row.value,
                "simulated": one.model,
                "error_pct": one.error_pct,
                "fitted": one.fitted,
                "reason": self.reasons.get(one.row.id, one.refusal or UNKNOWN),
            }
            for one in self.outcomes
            if not one.within
        ]

    def counts(self) -> dict[str, Any]:
        good = sum(one.within for one in self.held)
        return {
            "rows": len(self.outcomes) + len(self.missing),
            "expressible": len(self.outcomes),
            "fitted": len(self.outcomes) - len(self.held),
            "held_back": len(self.held),
            "held_back_within_15_pct": good,
            "held_back_within_15_pct_share": good / len(self.held) if self.held else None,
        }

    def document(self) -> dict[str, Any]:
        """All of it as plain data."""
        missing = [{"row": name, "missing": lack} for name, lack in self.missing.items()]
        return self.counts() | {"outside_15_pct": self.outside(), "not_expressible": missing}

    def compared(self) -> list[Compared]:
        """By metric, fitted and held back apart."""
        found = []
        for metric in dict.fromkeys(one.row.metric for one in self.outcomes):
            for fitted, what in ((False, "held back"), (True, "fitted")):
                part = [one for one in self.outcomes if one.row.metric == metric and one.fitted == fitted]
                if part:
                    found.append(_compared(f"{DATA_SET}, {what}", metric, part))
        return found


def serving(table: Iterable[dict[str, str]] | None = None) -> Serving:
    """Run every expressible row of the table that comes with the package, or of another with the same columns."""
    among = laws()
    expressible, missing = sort_out(rows() if table is None else table)
    return Serving([outcome(row, law_of(row.engine, row.gpu, among)) for row in expressible], missing, reasons())


def outcome(row: Measurement, law: Law) -> Outcome:
    try:
        return Outcome(row, law, predict(row, law))
    except InputError as error:
        return Outcome(row, law, None, f"refused: {error.problems[0].message}")


def reasons() -> dict[str, str]:
    """Row id -> why it may be off."""
    text = files("analysis.validation").joinpath("data", REASONS).read_text(encoding="utf-8")
    found = {}
    for entry in yaml.safe_load(text):
        for name in entry["rows"]:
            found[name] = f"{entry['reason']} [{entry['evidence']}]"
    return found


def decode_power(outcomes: Iterable[Outcome]) -> Compared:
    """Mean power of a GPU while it decodes, as a share of its limit."""
    names, model, truth = [], [], []
    for one in outcomes:
        noted = POWER.search(one.row.notes)
        if noted and one.model is not None and one.row.metric == "tpot_ms":
            names.append(one.row.id)
            model.append(_power_share(one.row, one.law))
            truth.append(float(noted[1]))
    return Compared("serving_measurements, decode power", "share_of_power_limit", names, np.array(model), np.array(truth))


def _power_share(row: Measurement, law: Law) -> float:
    whole, start = run(row, law).summary, run(replace(row, output=2), law).summary
    joules = whole["energy"]["gpu_j"] - start["energy"]["gpu_j"]
    seconds = whole["simulation"]["simulated_s"] - start["simulation"]["simulated_s"]
    return float(joules / seconds / row.gpus / step_model(row.gpu, row.model).gpu.prefill_power)


def _compared(data_set: str, metric: str, part: list[Outcome]) -> Compared:
    there = [one for one in part if one.model is not None]
    model, truth = np.array([one.model for one in there]), np.array([one.row.value for one in there])
    return Compared(data_set, metric, [one.row.id for one in there], model, truth, len(part) - len(there))


def _load(row: Measurement) -> str:
    load = f"batch {row.batch}" if row.batch else f"{row.rate:g} requests/s"
    return f"{load}, {row.prompt}+{row.output} tokens"
