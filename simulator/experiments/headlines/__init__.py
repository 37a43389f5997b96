"""Published headlines of KV systems against the composition law under the conditions that were stated.

`rows()` gives one row a headline: what was published (read from the catalogue), what the simulator says for the same conditions
(computed here, never typed in), which conditions had to be assumed, a label, and a sentence why.

    explained         within 15 % of the published value (for a bound: on its right side)
    partly explained  on the right side of no change, by between a third and three times of the published change
    not explained     anything else
    not checked       the published conditions do not suffice for a number; the reason is in the catalogue beside the headline

Where a value that nobody stated decides, it is scanned over a named range: explained is what the whole range explains, partly
explained what lies in the range, or what the nearer end explains in part.

Nothing is fitted: the same step model, GPUs and presets as everywhere. Steady steps and capacities, no queueing: a headline is
a ratio of two steps or two capacities at a stated point, and runs would add arrivals that no headline states.
"""

from __future__ import annotations

from typing import Any

from simulator import catalog
from simulator.experiments.headlines import codecs, layouts, selections, serving
from simulator.experiments.headlines.finding import Finding

NEAR, PART = 0.15, 3.0
EXPLAINED, PARTLY, UNEXPLAINED, NOT = "explained", "partly explained", "not explained", "not checked"
CHECKS = (*layouts.CHECKS, *selections.CHECKS, *codecs.CHECKS, *serving.CHECKS)
Row = dict[str, Any]


def rows() -> list[Row]:
    """All headlines: those that are checked, then the others."""
    return [_row(finding) for check in CHECKS for finding in check()] + unchecked()


def unchecked() -> list[Row]:
    """Headlines that the simulator cannot give a number for, each with its reason."""
    return [
        _published(name, one, one.get("value")) | {"simulated": None, "assumed": "", "label": NOT, "why": one["not_checked"]}
        for name in catalog.names("kv_systems")
        for one in catalog.load("kv_systems", name).about["headlines"]
        if "not_checked" in one
    ]


def _published(system: str, headline: dict[str, Any], value: Any) -> Row:
    return {
        "system": system,
        "metric": headline["metric"],
        "published": value,
        "bound": headline.get("bound", "reported"),
        "unit": headline.get("unit", ""),
        "conditions": headline.get("conditions", ""),
    }


def _row(finding: Finding) -> Row:
    found = [one for one in catalog.load("kv_systems", finding.system).about["headlines"] if one["metric"] == finding.metric]
    published = found[finding.number]
    value = published["value"]
    if isinstance(value, list) and published["bound"] != "range":
        value = value[finding.part]
    row = _published(finding.system, published, value)
    return row | {
        "simulated": finding.simulated,
        "assumed": finding.assumed,
        "label": label(value, finding.simulated, row["bound"], row["unit"]),
        "why": finding.why,
    }


def label(published: float | list[float], simulated: float | tuple[float, float], bound: str, unit: str) -> str:
    """By the rule above; a percentage is a change in itself, a factor changes from 1, anything else from 0."""
    if isinstance(simulated, tuple):
        ends = [label(published, end, bound, unit) for end in simulated]
        if set(ends) == {EXPLAINED}:
            return EXPLAINED
        values = published if isinstance(published, list) else [published]
        inside = any(simulated[0] <= value <= simulated[1] for value in values)
        return PARTLY if inside or set(ends) != {UNEXPLAINED} else UNEXPLAINED
    if isinstance(published, list):
        if min(published) <= simulated <= max(published):
            return EXPLAINED
        published = min(published, key=lambda end: abs(end - simulated))
    neutral = 1.0 if unit == "x" else 0.0
    if bound == "at_most_drop" and published <= simulated <= neutral:
        return EXPLAINED
    if (bound == "more_than_drop" and simulated <= published) or (bound == "over" and simulated >= published):
        return EXPLAINED
    if abs(simulated / published - 1.0) <= NEAR:
        return EXPLAINED
    share = (simulated - neutral) / (published - neutral)
    return PARTLY if 1.0 / PART <= share <= PART else UNEXPLAINED
