"""Figures of sweeps: means, intervals, ratios and maps against the table of the sweep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.figures import bars, latency, maps, studies
from analysis.figures.draw import figures_of
from analysis.figures.quantities import axis_unit, interval
from analysis.figures.results import Sweep, open_results
from analysis.figures.style import Drawn, house

LINK, RATIO, RATE = "cluster.kv_pool.link.bandwidth", "kv.codec.ratio", "throughput.output_tokens_per_s"


@pytest.fixture(scope="module")
def sweep(sweep_folder: Path) -> Sweep:
    found = open_results(sweep_folder)
    assert isinstance(found, Sweep)
    return found


@pytest.fixture(scope="module")
def drawn(sweep: Sweep) -> dict[str, Drawn]:
    return figures_of(sweep)


def test_figures_of_a_sweep(drawn: dict[str, Drawn]):
    """Would catch: an analysis of the study without its figure; a caption without replications."""
    assert {"regime_map", "axis_throughput_output_tokens_per_s", "axis_latency_tpot_s_mean", "speedup"} <= drawn.keys()
    assert {"pareto", "attribution", "cost"} <= drawn.keys() and any(name.startswith("tornado") for name in drawn)
    assert all("3 replications" in figure.caption for figure in drawn.values())


def test_points_are_means_with_t_intervals(sweep: Sweep, drawn: dict[str, Drawn]):
    """Would catch: medians, intervals of the wrong width (n - 1 and n confused), an axis in SI where its unit is shown."""
    figure = drawn["axis_throughput_output_tokens_per_s"]
    row = figure.table.iloc[0]
    arm, _, ratio = str(row["series"]).partition(", ratio ")  # none where all ratios give the same line
    table = sweep.table
    mine = table[(table["arm"] == arm) & (table[RATIO] == float(ratio or 2)) & (table[LINK] == row["x"])][RATE]
    assert len(mine) == row["n"] == 3
    assert row["mean"] == pytest.approx(mine.mean())
    assert row["high"] - row["mean"] == pytest.approx(4.302653 * mine.std(ddof=1) / np.sqrt(3), rel=1e-6)
    assert figure.figure.axes[0].get_xlabel() == "bandwidth of a board's link (GB/s)" and LINK in figure.caption
    drawn_x = sorted({float(x) for line in figure.figure.axes[0].get_lines() for x in np.ravel(line.get_xdata())})
    assert drawn_x == pytest.approx([1.0, 2.0, 4.0])


def test_lines_that_an_axis_does_not_move_are_one(sweep: Sweep):
    """Would catch: lines over each other that look like one arm; lines that differ drawn as one."""
    rows = pd.DataFrame(
        {"arm": list("aaaabbbb"), "series": ["a, 1", "a, 1", "a, 2", "a, 2", "b, 1", "b, 1", "b, 2", "b, 2"], "x": [1, 2] * 4,
         "mean": [5, 6, 5, 6, 1, 2, 1, 3], "low": np.nan, "high": np.nan}
    )  # fmt: skip
    found = studies._alike(rows, ["b", "a"])
    assert found["series"].tolist() == ["b, 1", "b, 1", "b, 2", "b, 2", "a", "a"]


def test_speedup_pairs_replications(sweep: Sweep, drawn: dict[str, Drawn]):
    """Would catch: ratios of means in place of paired ratios, the baseline among the bars."""
    table = drawn["speedup"].table
    assert table["label"].tolist() == ["none"] and table["against"].tolist() == ["next_layer"]
    wide = sweep.table.pivot_table(index=[LINK, RATIO, "replication"], columns="arm", values=RATE)
    each = np.exp(np.log(wide["none"] / wide["next_layer"]).groupby("replication").mean())
    assert table["ratio"].iloc[0] == pytest.approx(each.mean())
    assert table["low"].iloc[0] == pytest.approx(interval(each)[1])


def test_speedup_turns_over_where_lower_is_better():
    """Would catch: a slower arm shown as a speed-up."""
    table = pd.DataFrame({"arm": ["a", "b"], "replication": [0, 0], "latency.e2e_s.mean": [1.0, 2.0]})
    rows = bars.speedup_rows(table, ["a", "b"], [], "latency.e2e_s.mean", lower_is_better=True)
    assert rows["ratio"].tolist() == [0.5]


def test_regime_map_is_the_insight(sweep: Sweep, drawn: dict[str, Drawn]):
    """Would catch: fields of the map in another order than the axes, winners swapped."""
    rows = {(row["x"], row["y"]): row["winner"] for row in sweep.insight["analyses"]["regime_map"]}
    axes = drawn["regime_map"].figure.axes[0]
    marks = [[tick.get_text() for tick in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis)]
    assert marks == [["1", "2", "4"], ["1", "2"]]
    xs, ys = sorted({x for x, _ in rows}), sorted({y for _, y in rows})
    spots = {(xs[int(spot.x)], ys[int(spot.y)]): spot.text.partition(" ")[0] for spot in drawn["regime_map"].spots}
    assert spots == rows


def test_break_even_lies_between_the_columns():
    """Would catch: the line drawn on a linear scale over columns that are logarithmic."""
    assert maps._between(2.0, [1.0, 4.0, 16.0]) == pytest.approx(1.0)
    assert maps._between(4.0, [1.0, 4.0, 16.0]) == pytest.approx(1.5)


def test_front_by_brute_force():
    """Would catch: points on the front that another beats, equal points both thrown out."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame(rng.integers(0, 6, (40, 2)), columns=["cost", "gain"])
    found = maps.front_of(table, "cost", "gain")
    for at, row in table.iterrows():
        beaten = ((table["cost"] <= row["cost"]) & (table["gain"] >= row["gain"])
                  & ((table["cost"] < row["cost"]) | (table["gain"] > row["gain"]))).any()  # fmt: skip
        assert found[at] == (not beaten)


def test_attribution_of_arms_sums_to_their_latency(sweep: Sweep, drawn: dict[str, Drawn]):
    """Would catch: a part that the sweep's table has and the figure leaves out. 1e-9: sums in another order."""
    table = drawn["attribution"].table
    bar = str(table["run"].iloc[0])
    means = sweep.table.groupby(["arm", LINK, RATIO], sort=False)["latency.e2e_s.mean"].mean()
    assert table[table["run"] == bar]["mean_s"].sum() == pytest.approx(means.iloc[0], rel=1e-9)


def test_arms_of_which_nothing_finished_have_no_bar(sweep: Sweep):
    """Would catch: a bar of length 0 for an arm that has no latency and no cost."""
    empty = sweep.table[sweep.table["arm"] == "none"].assign(arm="nothing")
    empty = empty.assign(**{name: np.nan for name in empty if name.startswith(("stall.", "cost.usd_per_million"))})
    more = Sweep(sweep.folder)
    more.__dict__["everything"] = pd.concat([sweep.table, empty], ignore_index=True)
    figures = figures_of(more)
    assert not figures["attribution"].table["run"].str.contains("nothing").any()
    assert not figures["cost"].table["label"].str.contains("nothing").any()


def test_load_curve_has_the_slo():
    """Would catch: the SLO line at another value or in another unit than the curve."""
    rows = pd.DataFrame(
        {"arm": "a", "load": [1.0, 2.0], "throughput": [100.0, 200.0], "throughput_low": np.nan, "throughput_high": np.nan,
         "seconds": [0.01, 0.05], "seconds_low": [0.009, 0.04], "seconds_high": [0.011, 0.06]}
    )  # fmt: skip
    with house():
        figure = latency.throughput_latency(rows, "ttft_s", "p95", 0.03)
    axes = figure.figure.axes[0]
    assert axes.get_ylabel() == "TTFT, 90th pct (ms)".replace("90", "95")
    assert 30.0 in [line.get_ydata()[0] for line in axes.get_lines() if list(line.get_xdata()) == [0, 1]]


def test_axes_are_written_in_the_unit_of_the_study():
    """Would catch: SI numbers on an axis, a unit that does not fit them, text axes taken for numbers."""
    ends = {"from": "16 GB/s", "to": "1024 GB/s", "n": 7}
    study = {"axes": {"a": ["256 MiB", "512 MiB"], "b": ends, "c": [1, 2], "d": ["1 s", "5 ms"]}}
    assert axis_unit(study, "a", [2.0**28, 2.0**29]) == (2.0**20, "MiB")
    assert axis_unit(study, "b", [16e9, 1024e9]) == (1e9, "GB/s")
    assert axis_unit(study, "c", [1, 2]) == (1.0, "")
    assert axis_unit(study, "d", [1.0, 0.005]) == (1.0, "")


def test_too_many_lines_hold_an_axis_and_say_so(sweep: Sweep):
    """Would catch: thirty lines in a panel; an axis averaged over in silence."""
    table = pd.concat([sweep.table.assign(**{RATIO: float(value)}) for value in range(1, 8)], ignore_index=True)
    wide = Sweep(sweep.folder)
    wide.__dict__["everything"] = table
    found, note = studies.series_of(wide, LINK)
    assert found["series"].nunique() <= studies.SERIES and note == f"Held: {RATIO} = 4."
