"""Published headlines of KV systems against the composition law under the conditions that were stated.

`rows()` gives one row a headline: what was published (read from the catalogue), what the simulator says for the same conditions
(computed here, never typed in), which conditions had to be assumed, a label, and a sentence why.

    explained         within 15 % of the published value (for a bound: on its right side)
    partly explained  on the right side of no change, by between a third and three times of the published change
    not explained     anything else
    not checked       the published conditions do not suffice for a number

Nothing is fitted: the same step model, GPUs and presets as everywhere. Steady steps and capacities, no queueing: a headline is
a ratio of two steps or two capacities at a stated point, and runs would add arrivals that no headline states.
"""

from __future__ import annotations

from typing import Any

from simulator import catalog
from simulator.experiments.headlines import codecs, layouts, selections, serving
from simulator.experiments.headlines.finding import Finding

NEAR, PART = 0.15, 3.0
CHECKS = (*layouts.CHECKS, *selections.CHECKS, *codecs.CHECKS, *serving.CHECKS)
Row = dict[str, Any]


def rows() -> list[Row]:
    """All headlines that are checked, in the order of the catalogue's classes."""
    return [_row(finding) for check in CHECKS for finding in check()]


def _row(finding: Finding) -> Row:
    found = [one for one in catalog.load("kv_systems", finding.system).about["headlines"] if one["metric"] == finding.metric]
    published = found[finding.number]
    value = published["value"]
    if isinstance(value, list) and published["bound"] != "range":
        value = value[finding.part]
    return {
        "system": finding.system,
        "metric": finding.metric,
        "published": value,
        "bound": published.get("bound", "reported"),
        "unit": published["unit"],
        "conditions": published.get("conditions", ""),
        "simulated": finding.simulated,
        "assumed": finding.assumed,
        "label": label(value, finding.simulated, published.get("bound", "reported"), published["unit"]),
        "why": finding.why,
    }


def label(published: float | list[float], simulated: float | None, bound: str, unit: str) -> str:
    """By the rule above; a percentage is a change in itself, a factor changes from 1."""
    if simulated is None:
        return "not checked"
    if isinstance(published, list):
        if min(published) <= simulated <= max(published):
            return "explained"
        published = min(published, key=lambda end: abs(end - simulated))
    neutral = 0.0 if unit.startswith("%") else 1.0
    if bound == "at_most_drop" and published <= simulated <= neutral:
        return "explained"
    if (bound == "more_than_drop" and simulated <= published) or (bound == "over" and simulated >= published):
        return "explained"
    if abs(simulated / published - 1.0) <= NEAR:
        return "explained"
    share = (simulated - neutral) / (published - neutral)
    return "partly explained" if 1.0 / PART <= share <= PART else "not explained"
