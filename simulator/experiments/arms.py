"""One scenario with several prefetchers on common random numbers, and what share of the possible gain each one got.

    gain_share = (T_none - T) / (T_none - T_oracle)

on the mean time of the steps that decode; null where the two differ by less than 0.1 %. Arms differ in `prefetch` alone:
arrivals, lengths and page sets come from streams of their own. An arm other than the scenario's own has the depth of the
scenario (at least 1) and else what that predictor has by default. Oracle and none always run, and are listed if asked for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from simulator.errors import InputError, Problem, did_you_mean
from simulator.experiments.measured import check_run
from simulator.experiments.run import simulate_resolved
from simulator.metrics import summary
from simulator.metrics.steps import WAITS
from simulator.scenario.resolve import resolve_prefetch
from simulator.scenario.resolved import Prefetch, ScenarioResolved
from simulator.scenario.scenario import Scenario
from simulator.scenario.schema import PREDICTORS
from simulator.scenario.schema import Prefetch as Written

GIVEN = ("statistical", "attention")  # have inputs without a default: arms only as the scenario's own


def known_arms(scenario: ScenarioResolved) -> list[str]:
    """Names that `run --arms` takes for a scenario."""
    drawn = scenario.kv.selection.kind == "pages"
    names = [name for name in PREDICTORS if name not in GIVEN and not (drawn and name == "stream")]
    return list(dict.fromkeys([*names, scenario.prefetch.predictor]))


def run_arms(scenario: Scenario, arms: list[str], check: bool = False) -> list[dict[str, Any]]:
    """A row an arm; the scenario's own prefetcher is always among them."""
    known = known_arms(scenario.resolved)
    wrong = [arm for arm in arms if arm not in known]
    if wrong:
        expected = f"expected {', '.join(known)}"
        raise InputError(
            [Problem("--arms", "", f"'{arm}' is not an arm; {expected}", did_you_mean(arm, known)) for arm in wrong]
        )
    own = scenario.resolved.prefetch
    wanted = list(dict.fromkeys([own.predictor, *arms]))
    times: dict[str, float] = {}
    rows = {}
    for arm in dict.fromkeys([*wanted, "none", "oracle"]):
        prefetch = own if arm == own.predictor else _arm(arm, scenario.resolved)
        measured = simulate_resolved(replace(scenario.resolved, prefetch=prefetch), None, True, check)
        if check:
            check_run(measured)
        steps, decoding = measured.steps, measured.steps.decodes > 0
        times[arm] = float(steps.duration[decoding].mean()) if decoding.any() else 0.0
        waits = np.sum([steps.parts[part] for part in WAITS], axis=0)
        rows[arm] = {
            "arm": arm,
            "step_time_s": times[arm],
            "stall_s": float(waits[decoding].mean()) if decoding.any() else 0.0,
            "output_tokens_per_s": summary.ratio(int(steps.rows.sum()), measured.makespan),
            "prefetch": summary.prefetch(measured.traffic),
        }
    possible = times["none"] - times["oracle"]
    significant = abs(possible) >= 1e-3 * times["none"]
    for arm, row in rows.items():
        row["gain_share"] = (times["none"] - times[arm]) / possible if significant else None
    return [rows[arm] for arm in wanted]


def _arm(name: str, scenario: ScenarioResolved) -> Prefetch:
    values: dict[str, Any] = {"predictor": name}
    if "depth" in PREDICTORS[name] and name != "cxl_speckv":
        values["depth"] = max(scenario.prefetch.depth, 1)
    return resolve_prefetch(Written.model_validate(values), scenario.model.layers)
