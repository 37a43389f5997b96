"""Values of the axes and how they are combined."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.experiments.studies.axes import Axis, axis, combined
from simulator.experiments.studies.fields import Refused, scenario_field

LINK, L1, COUNT, RATIO = "cluster.kv_pool.link.bandwidth", "kv.l1", "cluster.kv_pool.count", "kv.codec.ratio"


def made(path: str, spec: object, sampled: bool = False) -> Axis:
    return axis(scenario_field(path), spec, sampled)


def test_ranges():
    """Would catch: a linear range on log scale (or back), ends that are rounded, fractions of a board."""
    assert made(LINK, {"from": "16 GB/s", "to": "256 GB/s", "n": 5, "scale": "log"}).values == (
        "16 GB/s", "32 GB/s", "64 GB/s", "128 GB/s", "256 GB/s",
    )  # fmt: skip
    assert made(RATIO, {"from": 1, "to": 3, "n": 5}).values == (1, 1.5, 2.0, 2.5, 3)
    assert made(COUNT, {"from": 1, "to": 4, "n": 7}).values == (1, 2, 3, 4)
    assert made(L1, {"from": "1 GiB", "to": "3 GiB", "n": 2}).values == ("1 GiB", "3 GiB")


@pytest.mark.parametrize(
    ("path", "spec", "message"),
    [
        (LINK, {"from": "16 GB", "to": "1 GB/s", "n": 2}, "expected a rate"),
        (LINK, {"from": "16 GB/s", "n": 2}, "missing to"),
        (LINK, {"from": "16 GB/s", "to": "inf", "n": 2}, "not a finite number"),
        (LINK, {"from": "16 GB/s", "to": "32 GB/s"}, "needs n"),
        (LINK, {"from": "16 GB/s", "to": "32 GB/s", "n": 2, "step": 1}, "unknown key 'step'"),
        (LINK, {"from": "16 GB/s", "to": "32 GB/s", "n": 2, "scale": "cubic"}, "linear or log"),
        (L1, {"from": "0 B", "to": "3 GiB", "n": 2, "scale": "log"}, "above 0"),
        (LINK, [], "expected a list"),
        (LINK, "16 GB/s", "expected a list"),
        (LINK, ["16 GB/s", 5], "no unit"),
        ("model", ["llama-2-7c"], "not in the catalogue"),
    ],
)
def test_wrong_axes(path: str, spec: object, message: str):
    """Would catch: a wrong axis that is only found when its point runs."""
    with pytest.raises(Refused, match=message):
        made(path, spec)


def test_combinations():
    """Would catch: a grid in another order, or a zip that multiplies."""
    axes = [made(COUNT, [1, 2]), made(RATIO, [1.0, 2.0])]
    grid = [tuple(point.values()) for point in combined(axes, "grid", None, 0)]
    assert grid == [(1, 1.0), (1, 2.0), (2, 1.0), (2, 2.0)]
    assert [tuple(point.values()) for point in combined(axes, "zip", None, 0)] == [(1, 1.0), (2, 2.0)]
    assert list(combined([], "grid", None, 0)) == [{}]


@pytest.mark.parametrize("combine", ["random", "lhs", "sobol"])
def test_samples(combine: str):
    """Sixteen points: in range, the same for one seed, others for another; LHS and Sobol have one in each sixteenth.

    Would catch: a scale that is not applied, a seed that is, categories of unequal share, plain draws called LHS.
    """
    axes = [
        made(RATIO, {"from": 1, "to": 16, "scale": "log"}, True),
        made(COUNT, {"from": 1, "to": 4}, True),
        made(L1, ["1 GiB", "2 GiB"]),
    ]
    points = list(combined(axes, combine, 16, 3))
    assert points == list(combined(axes, combine, 16, 3)) != list(combined(axes, combine, 16, 4))
    ratios = np.array([point[RATIO] for point in points])
    assert len(points) == 16 and ratios.min() >= 1 and ratios.max() <= 16
    if combine != "random":
        assert sorted((np.log2(ratios) / 4 * 16).astype(int)) == list(range(16))
        assert {value: [point[COUNT] for point in points].count(value) for value in (1, 2, 3, 4)} == dict.fromkeys(
            (1, 2, 3, 4), 4
        )
        assert [point[L1] for point in points].count("1 GiB") == 8
