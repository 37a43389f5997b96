"""Figures of runs: what is drawn is what the results say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.figures import bars, devices, latency, over_time
from analysis.figures.draw import figures_of, write
from analysis.figures.results import Run, open_results
from analysis.figures.style import COLOURS, Drawn, house
from simulator.errors import InputError
from simulator.experiments.explain import explain
from tests.properties.small import pool, served


@pytest.fixture(scope="module")
def run(run_folder: Path) -> Run:
    found = open_results(run_folder)
    assert isinstance(found, Run)
    return found


@pytest.fixture(scope="module")
def drawn(run: Run) -> dict[str, Drawn]:
    return figures_of(run)


def lines_of(figure: Drawn) -> dict[str, np.ndarray]:
    """y values of every labelled line."""
    return {
        str(line.get_label()): np.asarray(line.get_ydata(), dtype=float)
        for axes in figure.figure.axes
        for line in axes.get_lines()
        if not str(line.get_label()).startswith("_")
    }


def test_every_figure_has_labels_data_and_a_caption(drawn: dict[str, Drawn]):
    """Would catch: a figure without units or data, a caption that does not name scenario and seed."""
    assert list(drawn) == ["latency", "attribution", "tiers", "utilisation", "cost", "roofline", "devices"]
    for name, figure in drawn.items():
        assert len(figure.table) and len(figure.spots), name
        assert "one & all" in figure.caption and "seed" in figure.caption, name
        labels = [axes.get_xlabel() + axes.get_ylabel() for axes in figure.figure.axes if axes.has_data()]
        assert any("(" in label or "USD" in label for label in labels), (name, labels)


def test_attribution_bars_sum_to_the_mean_latency(run: Run, drawn: dict[str, Drawn]):
    """Would catch: a part that is not drawn, drawn twice, or requests that did not finish among the means.

    Tolerance 1e-9: sums of means against a mean of sums.
    """
    spans = drawn["attribution"].table.groupby("span")["mean_s"].sum()
    summary = run.summary["latency"]
    assert spans["ttft"] == pytest.approx(summary["ttft_s"]["mean"], rel=1e-9)
    assert spans["ttft"] + spans["decode"] == pytest.approx(summary["e2e_s"]["mean"], rel=1e-9)
    top, bottom = drawn["attribution"].figure.axes[:2]
    sizes = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
    for axes, seconds in ((top, spans["ttft"]), (bottom, spans["decode"])):
        unit = axes.get_xlabel().rpartition("(")[2].rstrip(")")
        assert sum(patch.get_width() for patch in axes.patches) * sizes[unit] == pytest.approx(seconds, rel=1e-9)


def test_distribution_is_that_of_the_requests(run: Run):
    """Would catch: shares that do not end at 1, quantiles of another column, unfinished requests counted."""
    rows = latency.distribution_rows(run.requests, run.gaps, "x")
    for column in ("ttft_s", "tpot_s", "e2e_s"):
        mine, values = rows[rows["latency"] == column], run.requests[column].dropna().to_numpy()
        assert mine["share"].iloc[-1] == 1.0
        for _, seconds, share in mine[["latency", "seconds", "share"]].itertuples(index=False):
            assert np.mean(values <= seconds) == pytest.approx(share, abs=1e-12)
    gaps = rows[rows["latency"] == "itl_s"]
    assert gaps["share"].iloc[-1] == 1.0 and run.gaps is not None
    tokens = run.requests["output_tokens"][run.requests["status"] == "finished"]
    assert run.gaps["gaps"].sum() == (tokens - 1).sum()
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        drawn = gaps["seconds"].iloc[int(np.searchsorted(gaps["share"], share))]
        assert drawn == pytest.approx(run.summary["latency"]["itl_s"][name], rel=0.02)  # 0.5 % a bin, 400 points a curve


def test_distribution_of_one_request_is_drawn():
    """Would catch: a line of a single point, which nobody sees; a panel for a latency that no request has."""
    requests = pd.DataFrame({"ttft_s": [0.1], "tpot_s": [np.nan], "e2e_s": [0.1]})
    with house():
        figure = latency.latency_distribution(latency.distribution_rows(requests, None, "x"), {})
    assert [axes.get_xlabel() for axes in figure.figure.axes] == ["TTFT (ms)", "end to end (ms)"]
    assert list(figure.figure.axes[0].get_lines()[0].get_ydata()) == [0.0, 1.0]


def test_utilisation_over_time_sums_to_the_summary(run: Run):
    """Would catch: a wrong weight or rate of a stage, bytes of a direction left out, bins of unequal width.

    Stages that also write are left out: write-back is drawn where it was given up, and what is left at the end never moves.
    """
    shares = over_time.stage_shares(run.series, run.explained["paths"])
    width = run.series["time_s"][1] - run.series["time_s"][0]
    busy = shares.drop(columns="time_s").sum() * width / run.summary["simulation"]["simulated_s"]
    assert busy["gpu"] == pytest.approx(run.summary["utilization"]["gpu"], rel=1e-9)
    reading = [name for name in busy.index if name.endswith((".read", "staging", "decompress"))]
    assert len(reading) >= 4 and busy[reading[0]] > 0
    for name in reading:
        assert busy[name] == pytest.approx(run.summary["utilization"][name], rel=1e-9), name


@pytest.mark.parametrize("shared", [True, False])
def test_utilisation_counts_the_stages_of_all_replicas(shared: bool):
    """Three replicas: ports are three times one's, links of a shared pool count once, and so in the summary; nothing carries
    more than it can. Would catch: bytes of all replicas over the rate of one's port, or a shared link counted three times.
    """
    port = {"type": "pcie-gen4-x16", "bandwidth": "1 GB/s"}
    far = pool(l1=10, l3=300, link="3 GB/s") | {"kv.codec": "none", "cluster.gpus.link": port}
    work = {
        "requests": 40, "arrivals": {"process": "poisson", "rate": "3000 /s"},
        "input": {"dist": "uniform", "low": "10 tokens", "high": "120 tokens"},
        "output": {"dist": "fixed", "tokens": "40 tokens"},
    }  # fmt: skip
    three = {"cluster.replicas": 3, "cluster.kv_pool.shared": shared, "workload.synthetic": work}
    made = served(far | three)
    series, paths = pd.DataFrame(made.series), explain(made.scenario)["paths"]
    shares = over_time.stage_shares(series, paths).drop(columns="time_s")
    busy = shares.sum() * series["time_s"][1] / made.summary["simulation"]["simulated_s"]
    for name in ("gpu.port.read", "pool.link.read"):
        assert busy[name] == pytest.approx(made.summary["utilization"][name], rel=1e-9), name
        assert 0.1 < shares[name].max() <= 1.0 + 1e-9
    rates = {row["stage"]: (row["bytes_per_s"], row["bytes_per_s_of_all"]) for row in paths["read"]["stages"]}
    assert rates["gpu.port.read"][1] == 3 * rates["gpu.port.read"][0]
    assert rates["pool.link.read"][1] == (1 if shared else 3) * rates["pool.link.read"][0]


def test_tiers_and_hits_are_those_of_the_series(run: Run, drawn: dict[str, Drawn]):
    """Would catch: a tier drawn against another's capacity, hit rates that leave [0, 1]."""
    table, capacity = drawn["tiers"].table, run.summary["tiers"]["l1"]["capacity_bytes"]
    assert table["l1_share"].to_numpy() == pytest.approx(table["l1_bytes"] / capacity)
    for name in over_time.SHARES:
        assert table[name].dropna().between(0, 1).all()
    asked = run.summary["kv_access"]["l3_read_share"]
    assert 0 < asked < 1 and table["l1_hit_share"].notna().any()
    assert lines_of(drawn["tiers"])["read from L1"] == pytest.approx(table["l1_hit_share"] * 100, nan_ok=True)


def test_cost_items_sum_to_the_cost(run: Run, drawn: dict[str, Drawn]):
    """Would catch: an item that is missing or counted twice."""
    whole = run.summary["cost"]["usd_per_million_output_tokens"]
    assert drawn["cost"].table["usd_per_million_output_tokens"].sum() == pytest.approx(whole, rel=1e-9)
    assert sum(patch.get_width() for patch in drawn["cost"].figure.axes[0].patches) == pytest.approx(whole, rel=1e-9)


def test_roofline_by_hand():
    """1 TFLOP/s, 1 TB/s of HBM; a batch of 10 with 1 GFLOP and 1 MB a token and 90 MB of weights: 1e10 FLOP over 1e8 B.

    Would catch: weights counted per token, the ceiling missing, the measured rate not used.
    """
    explained = {
        "bounds": {
            "batch": 10.0, "expected": {"decode_tokens_per_s": 500.0},
            "roofline": {
                "flops_per_s": 1e12, "hbm_bytes_per_s": 1e12, "far_raw_bytes_per_s": None, "flops_per_token": 1e9,
                "kv_bytes_per_token": 1e6, "weight_bytes_per_step": 9e7,
            },
        }
    }  # fmt: skip
    summary = {"throughput": {"decode_output_tokens_per_s": 300.0}, "simulation": {"mean_batch": 10.0}}
    rows = devices.roofline_rows(explained, summary, "x")
    roof, points = rows[rows["kind"] == "roof"], rows[rows["kind"] == "point"].set_index("name")
    assert roof["flops_per_s"].max() == 1e12
    assert (roof["flops_per_s"] <= roof["flops_per_byte"] * 1e12 * (1 + 1e-12)).all()
    assert points.loc["this run", "flops_per_byte"] == pytest.approx(100.0)
    assert points.loc["this run", "flops_per_s"] == pytest.approx(3e11)
    assert points.loc["a full batch", "flops_per_s"] == pytest.approx(5e11)


def test_latency_bandwidth_by_hand():
    """L0 = 1 us, 10 GB/s, 5 kB outstanding at most: 5 GB/s is all that Little's law gives, and latency never rises.

    Would catch: the cap forgotten, queueing before a stage is full, raw and wire bytes mixed up.
    """
    path = {"stages": [{"raw_bytes_per_s": 1e10}], "latency_s": 1e-6, "raw_bytes_per_s": 5e9}
    path |= {"outstanding_raw_bytes_per_s": 5e9}
    rows = devices.curve_rows({"paths": {"read": path}})
    assert rows["bytes_per_s"].max() == pytest.approx(5e9) and (rows["seconds"] == 1e-6).all()
    free = devices.curve_rows({"paths": {"read": path | {"outstanding_raw_bytes_per_s": None}}})
    assert free["bytes_per_s"].max() == pytest.approx(1e10) and free["seconds"].max() == pytest.approx(2e-6)


def test_curves_of_devices_are_those_of_explain():
    """Would catch: a device left out, alike devices drawn over each other, the mark of the run at another load."""
    points = [{"load": load, "seconds": 1e-6 * (1 + load), "bytes_per_s": load * 1e10} for load in (0.0, 0.5, 1.0)]
    device = {"latency_s": 1e-6, "load_factor": 1.0, "bytes_per_s": 1e10, "curve": points}
    curves = [{"device": f"pool.link.{way}"} | device for way in ("read", "write")]
    curves.append({"device": "switch"} | device | {"bytes_per_s": 2e10})
    rows = devices.curve_rows({"devices": {"curves": curves}})
    assert list(dict.fromkeys(rows["device"])) == ["pool.link", "switch"] and len(rows) == 6
    with house():
        figure = devices.latency_bandwidth(rows, 0.75)
    marks = [line for line in figure.figure.axes[0].get_lines() if len(line.get_xdata()) == 1]
    assert [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in marks] == [pytest.approx((7.5, 1.75))] * 2


def test_same_folder_same_bytes_elsewhere(run: Run, tmp_path: Path):
    """Would catch: dates, random ids or paths in the files; a figure that needs more than the folder."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(run.folder, copy)
    names = ("attribution", "tiers")
    for place, results in (("a", run), ("b", Run(copy))):
        figures = figures_of(results)
        write({name: figures[name] for name in names}, tmp_path / place)
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert files == sorted(f"{name}.{kind}" for name in names for kind in ("pdf", "svg", "png", "csv", "txt"))
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    svg = (tmp_path / "a" / "tiers.svg").read_text(encoding="utf-8")
    ids = re.findall(r' id="([^"]*)"', svg)
    assert len(ids) == len(set(ids)) and "series:" not in svg
    pdf = (tmp_path / "a" / "tiers.pdf").read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf  # TrueType, embedded
    table = pd.read_csv(tmp_path / "a" / "attribution.csv")
    assert table["mean_s"].sum() == pytest.approx(run.summary["latency"]["e2e_s"]["mean"])


def test_fault_is_drawn_with_its_level():
    """Would catch: the dip outside of the drawn span, the level before the fault missing."""
    time = np.arange(100.0)
    series = pd.DataFrame({"time_s": time, "output_tokens_per_s": np.where((time > 40) & (time < 60), 20.0, 100.0)})
    with house():
        fault = {"at_s": 40.0, "what": "link_down", "tokens_per_s_before": 100.0, "during": 20.0, "after": 90.0}
        known = over_time.fault_rows([fault], {"faults": [{"what": "link_down", "at_s": 40.0, "duration_s": 20.0}]})
        figure = over_time.fault_recovery(series, known)
    assert figure.table["output_tokens_per_s"].min() == 20.0
    assert figure.table["from_fault_s"].min() < 0 < figure.table["from_fault_s"].max()
    drawn = [line.get_xydata().tolist() for line in figure.figure.axes[0].get_lines() if line.get_linestyle() == "--"]
    assert drawn == [[[0.0, 100.0], [40.0, 100.0]], [[40.0, 20.0], [60.0, 20.0]], [[60.0, 90.0], [99.0, 90.0]]]


def test_scatter_draws_every_pair():
    """Would catch: points of a data set lost, axes that cut points off."""
    rows = pd.DataFrame(
        {"data_set": ["a", "a", "b"], "metric": "step (ms)", "measured": [1.0, 10.0, 5.0], "model": [1.1, 9.0, 50.0]}
    )
    with house():
        figure = devices.measured_scatter(rows)
    axes = figure.figure.axes[0]
    points = np.concatenate([np.asarray(found.get_offsets()) for found in axes.collections if len(found.get_offsets()) > 0])
    assert {tuple(point) for point in points.tolist()} >= {(1.0, 1.1), (10.0, 9.0), (5.0, 50.0)}
    low, high = axes.get_xlim()
    assert low < 1.0 and high > 50.0


def test_comparison_pairs_the_runs(run_folder: Path, hostile_folder: Path):
    """Would catch: ratios upside down, runs of one name drawn over each other."""
    runs = [Run(run_folder), Run(hostile_folder)]
    figures = figures_of(runs)
    rates = [run.summary["throughput"]["output_tokens_per_s"] for run in runs]
    assert figures["speedup"].table["ratio"].tolist() == pytest.approx([rates[1] / rates[0]])
    assert figures["attribution"].table["run"].nunique() == 2
    twice = figures_of([Run(run_folder), Run(run_folder)])
    assert twice["attribution"].table["run"].nunique() == 2


def test_wrong_folders_are_all_named_at_once(tmp_path: Path, run_folder: Path):
    """Would catch: a traceback for a folder that is none, that is empty, or whose files are broken."""
    from analysis.figures.results import open_all

    broken = tmp_path / "broken"
    shutil.copytree(run_folder, broken)
    (broken / "summary.json").write_text("{", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as found:
        open_all([tmp_path / "none", tmp_path / "empty", broken, run_folder])
    assert len(found.value.problems) == 3
    assert all(name in str(found.value) for name in ("none", "empty", "summary.json"))


def test_tables_of_something_else_are_refused(tmp_path: Path, run_folder: Path):
    """Would catch: a KeyError, or figures of half a run, where a file is readable but not ours."""
    from analysis.figures.results import open_all

    for name, wrong in (("requests.parquet", pd.DataFrame({"a": [1]})), ("itl.parquet", pd.DataFrame({"itl_s": [1.0]}))):
        shutil.copytree(run_folder, tmp_path / name)
        wrong.to_parquet(tmp_path / name / name)
        with pytest.raises(InputError, match=f"{name}: has no (status|gaps)"):
            open_all([tmp_path / name])
    shutil.copytree(run_folder, tmp_path / "summary")
    (tmp_path / "summary" / "summary.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="has no throughput"):
        open_all([tmp_path / "summary"])


def test_colours_are_told_apart_in_greyscale():
    """Would catch: neighbours in the cycle that a greyscale print shows alike, without dashes or hatches to tell them apart."""
    from analysis.figures.style import DASHES, HATCHES, MARKERS

    def grey(colour: str) -> float:
        red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    looks = {(round(grey(colour), 1), str(DASHES[at]), MARKERS[at], HATCHES[at]) for at, colour in enumerate(COLOURS)}
    assert len(looks) == len(COLOURS) == len(set(DASHES)) == len(set(MARKERS))
    assert len(set(HATCHES)) == len(HATCHES)


def test_cost_without_items_is_still_the_cost():
    """Would catch: money that no item explains being left out."""
    rows = bars.cost_rows("x", {"usd_per_million_output_tokens": 10.0, "usd_per_hour": 4.0, "gpus_usd_per_hour": 1.0})
    assert {row["item"]: row["usd_per_million_output_tokens"] for row in rows} == {"gpus": 2.5, "other": 7.5}


def test_timeline_of_the_folder_is_json(run_folder: Path):
    """Would catch: a document that only Python can read."""
    import gzip

    text = gzip.decompress((run_folder / "timeline.json.gz").read_bytes())
    assert json.loads(text, parse_constant=pytest.fail)["traceEvents"]
