"""The limits that the host link, interference and offloaded steps have to hold against measurements.

`speckvsim validate` prints the tables. Medians of |model / truth - 1| in percent; slowdowns in points. The offloaded steps are
predicted: no constant was fitted to them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from analysis.calibration import link
from analysis.calibration.fit import digest, samples
from analysis.validation.compare import BUILT_IN, compare
from simulator import catalog, codec_named, simulate, step_model
from simulator.errors import InputError
from simulator.experiments.host_link import Transfer, host_link
from simulator.hardware.codec import pack_rate, unpack_rate

DATA = Path(str(files("analysis.validation"))) / "data"
ENGINE = catalog.load("copy_engines", "h100-pcie-gen5")
SCENARIO = Path(__file__).parents[2] / "scenarios" / "host_offload.yaml"


@pytest.mark.parametrize("file", link.FILES)
def test_link(file: str) -> None:
    """All rows, also those of a noisy host. Catches a constant or a form that no longer describes copies or gathers."""
    (found,) = (one.summary() for one in compare(DATA / file, BUILT_IN[file]))
    assert found["n"] >= 10
    assert found["median_abs_error_pct"] <= 10.0


def test_rows_held_back_from_the_fit() -> None:
    """Copies of the other run, every second row of pages, the other run's latencies; two GPUs, of which nothing was fitted.

    The latencies of run b go through a host that its README calls slow and noisy: 10.7 %, so that limit is not met there."""
    _, held = link.halves({file: samples(DATA, file) for file in link.FILES})
    for file, rows in held.items():
        found = link.errors({}, rows, file)
        assert found["median_abs_error_pct"] <= (12.0 if file == link.LATENCY else 10.0), file


def test_interference() -> None:
    """Copies within 3 points of slowdown in every row, gather kernels within 6. Catches interference that gets worse."""
    rows = samples(DATA, link.OVERLAP)
    found = link.points({}, rows, link.OVERLAP)
    assert found["n"] == 36
    assert found["copies_worst_points"] <= 3.0
    assert found["gathers_median_points"] <= 3.0
    assert found["gathers_worst_points"] <= 6.0


def test_interference_with_steps_held_back() -> None:
    """Each half of the steps predicted from the other: copies keep their limit; gathers miss theirs (10.1), where
    batches of 8 and 32 that read the same bytes lose 31 and 20 % beside 32 blocks. Catches constants that fit one half only."""
    halves = link.steps(samples(DATA, link.OVERLAP))
    for known, apart in (halves, halves[::-1]):
        found = link.points(link.fit_costs(known, {}), apart, link.OVERLAP)
        assert found["copies_worst_points"] <= 3.0
        assert found["gathers_median_points"] <= 4.0
        assert found["gathers_worst_points"] <= 10.5


@pytest.mark.parametrize(("file", "rows"), [("offload_llama-2-7b_b8.csv", 73), ("prefix_load_offloaded_llama-2-7b.csv", 48)])
def test_offloaded_steps(file: str, rows: int) -> None:
    """Catches a composition of copies, set-ups, kernels and layers that the real runs do not follow."""
    (found,) = (one.summary() for one in compare(DATA / file, BUILT_IN[file]))
    assert (found["n"], found["not_compared"]) == (rows, 0)
    assert found["median_abs_error_pct"] <= 3.0
    assert found["p95_abs_error_pct"] <= 8.0


@pytest.mark.parametrize(("predictor", "mode"), [("none", "ondemand"), ("next_layer", "prefetch")])
@pytest.mark.parametrize("codec", ["none", "int4"])
@pytest.mark.parametrize(("l1", "pages"), [("32.62 GB", 26), ("30.94 GB", 51), ("25.77 GB", 128)])
def test_a_run_is_the_prediction(l1: str, pages: int, codec: str, predictor: str, mode: str) -> None:
    """The mean decode step of `scenarios/host_offload.yaml`, 5, 10 and 25 % offloaded, against the step that `validate`
    predicts. Tolerance 1 %: a run needs its pages when a layer starts, the prediction when its attention does.

    Catches a simulator that does not do what is compared with the measurements.
    """
    settings = [f"kv.l1={l1}", f"prefetch.predictor={predictor}"] + (["kv.codec=none"] if codec == "none" else [])
    summary = simulate(SCENARIO, set=settings).summary
    transfer = Transfer() if codec == "none" else Transfer(codec_named("int4-g64"))
    model = step_model("h100-80gb-sxm", "llama-2-7b")
    step = host_link("h100-80gb-sxm").offloaded(model, 8 * 16 * pages, mode, transfer, contexts=[8192] * 8)
    assert 8 / summary["throughput"]["decode_output_tokens_per_s"] == pytest.approx(step, rel=0.01)


def test_slowdowns_that_the_readme_quotes() -> None:
    """Measured: INT4 with next-layer prefetch is +10 %, +18 % and 2.65 x at 5, 10 and 25 % offloaded."""
    model = step_model("h100-80gb-sxm", "llama-2-7b")
    found = host_link("h100-80gb-sxm")
    resident = found.offloaded(model, 0, "none", Transfer(), contexts=[8192] * 8)
    for pages, slowdown in ((26, 1.098), (51, 1.179), (128, 2.649)):
        step = found.offloaded(model, 8 * 16 * pages, "prefetch", Transfer(codec_named("int4-g64")), contexts=[8192] * 8)
        assert step / resident == pytest.approx(slowdown, rel=0.01)


def test_codec_kernels() -> None:
    """Rates of 1 GiB in compress.csv. Catches an efficiency of another row, the ratio on the wrong side."""
    names = {
        ("8", "per_token"): "int8", ("4", "per_token"): "int4-g64", ("2", "per_token"): "int2",
        ("8", "per_channel"): "int8-channel", ("4", "per_channel"): "int4-channel", ("2", "per_channel"): "int2-channel",
    }  # fmt: skip
    gpu = step_model("h100-80gb-sxm", "llama-2-7b").gpu
    rows = (DATA / "compress.csv").read_text().splitlines()
    header = rows[0].split(",")
    checked = 0
    for line in rows[1:]:
        row = dict(zip(header, line.split(","), strict=True))
        if row["bf16_bytes"] == str(1 << 30):
            codec = codec_named(names[row["bits"], row["granularity"]])
            rate = pack_rate(codec, gpu) if row["op"] == "quantise" else unpack_rate(codec, gpu)
            assert rate == pytest.approx(float(row["bf16_gb_s"]) * 1e9, rel=0.002)
            checked += 1
    assert checked == 12


def test_catalogue_names_the_data_it_was_fitted_to() -> None:
    """Catches data changed without a new fit."""
    assert digest(DATA, link.FILES)[:16] in ENGINE.sources["read_bandwidth"]


def test_the_fit_can_be_repeated() -> None:
    """Catches constants edited by hand. 2 %; power and spare places of gather blocks are less certain: 10 %."""
    values = link.calibrate(DATA)["values"]
    for name, value in values.items():
        scale = link.UNITS.get(name.rpartition("_")[2], (1.0, ""))[0]
        rel = 0.1 if name in ("gather_power", "gather_spare") else 0.02
        assert value / scale == pytest.approx(float(str(ENGINE.values[name]).split()[0]), rel=rel), name


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("model,batch,context,fraction,mode,step_ms_median", "llama-2-7b,8,512,1.5,prefetch,9", "fraction from 0 to 1"),
        ("model,batch,context,fraction,mode,step_ms_median", "llama-2-7b,8,512,0.5,ahead,9", "mode 'ahead' is none of"),
        ("model,batch,context,fraction,mode,transfer,step_ms_median", "llama-2-7b,8,64,0.5,prefetch,int5,9", "transfer 'int5'"),
        ("model,new_tokens,past_tokens,mode,step_ms_median", "llama-2-7b,8,512,prefetch,9", "needs a fraction_in_host"),
        ("direction,bytes_per_copy,copies_in_flight,gb_s", "up,4096,8,9", "direction 'up' is none of"),
        ("step,batch,context,link_load,slowdown", "decode,8,512,gather,1.1", "not readable as a row of kind overlap"),
        ("gpu,gpu0_does,gpu1_does,bytes_per_copy,gb_s_median", "2,h2d,idle,4096,50", "gpu '2' is none of"),
    ],
)
def test_cells_that_make_no_sense(tmp_path: Path, header: str, row: str, message: str) -> None:
    """Would catch: a traceback, a row silently taken for another one."""
    file = tmp_path / "mine.csv"
    file.write_text(f"{header}\n{row}\n")
    with pytest.raises(InputError, match=re.escape(message)):
        compare(file)


def test_another_model_is_predicted(tmp_path: Path) -> None:
    """GQA and other batches, from a file of the same columns: nothing there is about Llama-2-7B. A quarter of the
    KV heads moves a quarter of the bytes.

    Would catch: bytes of another model, a fraction of all KV heads."""
    link_, seven = host_link("h100-80gb-sxm"), step_model("h100-80gb-sxm", "llama-2-7b")
    eight = step_model("h100-80gb-sxm", "llama-3.1-8b")
    stall = [
        link_.offloaded(model, 16 * 512, "ondemand", Transfer(), contexts=[2048] * 16)
        - link_.offloaded(model, 0, "none", Transfer(), contexts=[2048] * 16)
        for model in (seven, eight)
    ]
    start = 32 * link_.engine.start
    assert (stall[0] - start) / (stall[1] - start) == pytest.approx(4.0)
    file = tmp_path / "mine.csv"
    file.write_text("model,batch,context,fraction,mode,transfer,step_ms_median\nLlama-3.1-8B,16,2048,0.25,prefetch,int4,11\n")
    assert compare(file)[0].summary()["n"] == 1


def test_each_array_is_a_copy() -> None:
    """Codes, scales and minima are three copies: on demand two more set-ups a layer than one array, whatever their size.

    Would catch: INT4 as one copy of fewer bytes."""
    model, found, codec = step_model("h100-80gb-sxm", "llama-2-7b"), host_link("h100-80gb-sxm"), codec_named("int4-g64")
    three, one = (
        found.offloaded(model, 4096, "ondemand", Transfer(packed), contexts=[8192] * 8)
        for packed in (codec, replace(codec, arrays=1))
    )
    assert three - one == pytest.approx(32 * 2 * found.engine.read_setup, rel=1e-6)


def test_an_older_port_bounds_the_engine() -> None:
    """Would catch: an A100 that copies at the speed of PCIe Gen5."""
    older = host_link("a100-80gb-sxm")
    for direction, port in (("h2d", older.gpu.link.read_bandwidth), ("d2h", older.gpu.link.write_bandwidth)):
        assert older.rate(direction) == older.rate(direction, blocks=64) == port < 30e9


def test_pages_that_boards_push() -> None:
    """`push` changes nothing of how pages come, only what layers take beside them: next-layer prefetch that hides its
    transfers gets slower; on demand only the little that is written back overlaps.

    Would catch: interference only for copies that the GPU starts, set-ups for copies that nobody starts."""
    base = ["kv.codec=none", "cluster.kv_pool.copy_engine.method=push", "cluster.gpus.link.bandwidth=500 GB/s"]
    free = [*base, "cluster.kv_pool.copy_engine.write_cost=0", "cluster.kv_pool.copy_engine.read_cost=0"]
    for predictor, least, most in (("none", 1.0, 1.001), ("next_layer", 1.01, 1.2)):
        step = [
            8 / simulate(SCENARIO, set=[*sets, f"prefetch.predictor={predictor}"], check=True)
            .summary["throughput"]["decode_output_tokens_per_s"]
            for sets in (base, free)
        ]  # fmt: skip
        assert least < step[0] / step[1] < most


def test_power_of_offloaded_steps() -> None:
    """Nothing fitted; the limit of the power states, 8 %, holds at the 95th percentile, one row is 9.5 % off.

    Would catch: GPUs that draw full power while they wait for pages."""
    (found,) = (one.summary() for one in compare(DATA / "power_offload.csv", BUILT_IN["power_offload.csv"]))
    assert found["n"] == 14
    assert found["median_abs_error_pct"] <= 5.0
    assert found["p95_abs_error_pct"] <= 8.0
