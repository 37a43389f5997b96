"""What a study says: its analyses, each as rows (insight.json, insight/NAME.parquet) and as sentences.

Columns common to all: `arm`, `metric`, and the values of the axes that an analysis does not look along (SI units).
Intervals are 95 %, over replications with common random numbers unless the analysis says otherwise; null with one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from simulator.experiments.studies.break_even import break_even
from simulator.experiments.studies.landscape import regime_map, trend
from simulator.experiments.studies.load import Study
from simulator.experiments.studies.points import Point
from simulator.experiments.studies.runner import Runner
from simulator.experiments.studies.sensitivity import elasticity, morris, sobol, tornado
from simulator.experiments.studies.versus import versus
from simulator.experiments.studies.view import Found, View

ANALYSES: dict[str, Callable[[View, Any], Found]] = {
    "elasticity": elasticity,
    "tornado": tornado,
    "morris": morris,
    "sobol": sobol,
    "break_even": break_even,
    "trend": trend,
    "regime_map": regime_map,
    "versus": versus,
}


def analyse(
    study: Study, runner: Runner, points: Sequence[Point], replications: Mapping[str, int]
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """({analyses: {name: rows}, sentences}, tables); runs of its own go through the same journal."""
    view = View(study, runner, points, replications)
    found: dict[str, Found] = {}
    for name, analysis in ANALYSES.items():
        asked = getattr(study.file.analyses, name)
        if asked is not None:
            found[name] = analysis(view, asked)
    tables = {name: rows for name, (rows, _) in found.items()}
    return {"analyses": tables, "sentences": [each for _, sentences in found.values() for each in sentences]}, tables
