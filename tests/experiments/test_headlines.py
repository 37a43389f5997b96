"""Published headlines against the simulator: rows are computed, labels follow the rule."""

from __future__ import annotations

import pytest

from simulator import catalog
from simulator.experiments.headlines import label, rows, serving

LABELS = {"explained", "partly explained", "not explained", "not checked"}


def test_rows_are_published_headlines_with_a_reason() -> None:
    """Every row quotes the catalogue, has a label and a sentence. Catches a headline invented or quoted wrongly."""
    found = rows()
    assert len(found) >= 25 and {row["label"] for row in found} == LABELS
    for row in found:
        known = catalog.load("kv_systems", row["system"]).about["headlines"]
        values = [one["value"] for one in known if one["metric"] == row["metric"]]
        assert any(row["published"] == value or (isinstance(value, list) and row["published"] in value) for value in values)
        assert len(row["why"]) > 20 and (row["simulated"] is None) == (row["label"] == "not checked")


def test_hydragen_moves_with_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the batch has half of the prefix FLOPs, and less to gain. Catches a result that is typed in."""
    before = [one.simulated for one in serving.hydragen()]
    monkeypatch.setattr(serving, "BATCH", 256)
    after = [one.simulated for one in serving.hydragen()]
    assert before[0] is not None and after[0] is not None and before[1] is not None and after[1] is not None
    assert after[0] < before[0] and after[1] > before[1]


@pytest.mark.parametrize(
    ("published", "simulated", "bound", "unit", "expected"),
    [
        (1.48, 1.58, "reported", "x", "explained"),
        (2.0, 1.6, "up_to", "x", "partly explained"),
        (2.0, 1.1, "up_to", "x", "not explained"),
        (2.0, 0.5, "up_to", "x", "not explained"),
        (2.0, 3.0, "over", "x", "explained"),
        ([1.2, 1.4], 1.3, "range", "x", "explained"),
        ([5.5, 6.7], 2.0, "range", "x", "not explained"),
        (-15, -10.0, "at_most_drop", "%", "explained"),
        (-15, -20.0, "at_most_drop", "%", "partly explained"),
        (-90, -95.0, "more_than_drop", "%", "explained"),
        (54, None, "reported", "% higher", "not checked"),
    ],
)
def test_label(published: float, simulated: float | None, bound: str, unit: str, expected: str) -> None:
    """Catches a drop judged by its sign, a bound judged as a value, a gain of nothing that counts as half explained."""
    assert label(published, simulated, bound, unit) == expected
