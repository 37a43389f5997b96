"""Published headlines against the simulator: rows are computed, labels follow the rule."""

from __future__ import annotations

from collections import Counter

import pytest

from simulator import catalog
from simulator.experiments.headlines import CHECKS, label, rows, serving

LABELS = {"explained", "partly explained", "not explained", "not checked"}


def test_every_headline_is_checked_or_says_why_not() -> None:
    """Of all systems, each headline once. Catches one that is forgotten, one that is checked and given up at the same time."""
    checked = Counter((one.system, one.metric, one.number) for check in CHECKS for one in check() if one.part == 0)
    for name in catalog.names("kv_systems"):
        seen: Counter[str] = Counter()
        for one in catalog.load("kv_systems", name).about["headlines"]:
            key = (name, one["metric"], seen[one["metric"]])
            seen[one["metric"]] += 1
            assert checked.pop(key, 0) + ("not_checked" in one) == 1, key
    assert not checked


def test_rows_are_published_headlines_with_a_reason() -> None:
    """Every row quotes the catalogue, has a label and a sentence. Catches a headline invented or quoted wrongly."""
    found = rows()
    assert len(found) >= 80 and {row["label"] for row in found} == LABELS
    for row in found:
        known = catalog.load("kv_systems", row["system"]).about["headlines"]
        values = [one["value"] for one in known if one["metric"] == row["metric"]]
        assert any(row["published"] == value or (isinstance(value, list) and row["published"] in value) for value in values)
        assert len(row["why"]) > 10 and (row["simulated"] is None) == (row["label"] == "not checked")


def test_hydragen_moves_with_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the batch has half of the prefix FLOPs, and less to gain. Catches a result that is typed in."""
    before = [one.simulated for one in serving.hydragen()]
    monkeypatch.setattr(serving, "BATCH", 256)
    after = [one.simulated for one in serving.hydragen()]
    assert all(isinstance(one, float) for one in (*before, *after))
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
        (0.2, 0.19, "reported", "s/token", "explained"),
        (0.2, 0.02, "reported", "s/token", "not explained"),
        (1.5, (1.4, 1.6), "reported", "x", "explained"),
        (1.5, (1.0, 3.0), "reported", "x", "partly explained"),
        (1.5, (1.0, 1.4), "reported", "x", "partly explained"),
        (1.5, (1.0, 1.1), "reported", "x", "not explained"),
    ],
)
def test_label(published: float, simulated: float | tuple[float, float], bound: str, unit: str, expected: str) -> None:
    """Catches a drop judged by its sign, a bound judged as a value, a gain of nothing that counts as half explained."""
    assert label(published, simulated, bound, unit) == expected


def test_remote_prefill_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Throughput rises with what the remote pool adds, at most by all of the local prompt work: with endless outputs nothing
    is left to move. Catches a pool whose size or speed does not matter, a gain beyond the prompts that there are."""
    usual = serving.prfaas()[0].simulated
    monkeypatch.setattr(serving, "OUTPUTS", (1_000_000, 2_000_000))
    none = serving.prfaas()[0].simulated
    assert isinstance(usual, tuple) and isinstance(none, tuple)
    assert usual[0] > 10.0 and none[1] < 2.0


def test_flash_inside_the_drives_moves_instinfer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention bound by flash: half the bandwidth, nearly half the gain. Catches drives whose bandwidth reaches nothing."""
    (before,) = serving.instinfer()
    monkeypatch.setattr(serving, "FLASH", tuple(0.5 * one for one in serving.FLASH))
    (after,) = serving.instinfer()
    assert isinstance(before.simulated, tuple) and isinstance(after.simulated, tuple)
    assert after.simulated[0] == pytest.approx(0.5 * before.simulated[0], rel=0.05)
