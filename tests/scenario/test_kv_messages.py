"""Messages of `kv.selection` and `kv.placement`: what does not belong together is refused, with what to write instead."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.errors import InputError
from tests.properties.small import pool, scenario

WORK = {
    "workload.synthetic": {
        "requests": 1, "arrivals": {"process": "at_once"}, "input": {"dist": "fixed", "tokens": "30 tokens"},
        "output": {"dist": "fixed", "tokens": "3 tokens"},
    }
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kv.selection", {"kind": "pages", "tokens": "64 tokens"}, "pages needs overlap"),
        ("kv.selection", {"kind": "pages", "overlap": 0.5}, "either tokens"),
        ("kv.selection", {"kind": "pages", "overlap": 0.5, "tokens": "64 tokens", "fraction": 0.1}, "either tokens"),
        ("kv.selection", {"kind": "pages", "overlap": 0.5, "floor": 0.6, "fraction": 0.1}, "floor 0.6 exceeds overlap 0.5"),
        ("kv.selection", {"kind": "budget"}, "budget needs tokens"),
        ("kv.selection", {"kind": "budget", "tokens": "64 tokens", "refresh": 2}, "budget does not use refresh"),
        ("kv.selection", {"overlap": 0.5}, "dense does not use overlap; remove it or write kind: pages"),
        ("kv.placement", {"eviction": "lru", "threshold": 3}, "'lru' does not use threshold"),
        ("kv.placement", {"l2": "inclusive"}, "split moves a block once and keeps no copy"),
        ("kv.placement", {"write_back": "immediate"}, "split moves a block once and keeps no copy"),
        ("kv.placement", {"eviction": "belady"}, "expected"),
        ("prefetch", {"predictor": "history", "coverage": 0.5}, "'history' does not use coverage"),
    ],
)
def test_refused(field: str, value: dict[str, Any], message: str) -> None:
    """Would catch: a field that is accepted and ignored, a message without a way out."""
    with pytest.raises(InputError) as caught:
        scenario(WORK | pool(8, 20) | {field: value})
    assert message in str(caught.value)


def test_resolves_to_itself() -> None:
    """The resolved document of a scenario with every new field gives the same scenario again.

    Would catch: a field that `scenario.resolved.yaml` leaves out.
    """
    placement = {"eviction": "hot", "l2": "inclusive", "write_back": "immediate", "threshold": 3, "adapt": True}
    selection = {
        "kind": "pages", "fraction": 0.25, "dense_layers": 1, "select_every": 2, "index": 0.1, "overlap": 0.75, "floor": 0.5,
        "refresh": 4,
    }  # fmt: skip
    first = scenario(WORK | pool(8, 20) | {"kv.placement": placement, "kv.selection": selection}).resolved
    again = scenario({**first.document}).resolved
    assert again.kv == first.kv
    assert selection.items() <= first.document["kv"]["selection"].items()
    assert first.document["kv"]["placement"] == placement
