"""The claims ledger: computed, fair, and moved by its inputs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.figures.style import COLUMN, PAGE
from analysis.reproduction import advice, atlas, capacity, compression, scaling, serving, world
from analysis.reproduction.claim import Claim, Finding, Regime, largest
from analysis.reproduction.ledger import ledger, write
from analysis.reproduction.text import content
from analysis.reproduction.world import Runs

CLAIM = Claim("one", "is two", 2.0, "times", "", "", Finding(2.5, ""), Finding(1.0, ""), Regime(7.0, ""))


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        (CLAIM, "holds as assumed"),
        (replace(CLAIM, measured=Finding(1.81, "")), "holds"),
        (replace(CLAIM, given=True), "taken as input"),
        (replace(CLAIM, assumed=Finding(1.7, "")), "holds only elsewhere"),
        (replace(CLAIM, assumed=Finding(1.7, ""), regime=Regime(None, "")), "not found"),
        (replace(CLAIM, larger_is_better=False), "holds"),
        (replace(CLAIM, larger_is_better=False, measured=Finding(2.3, "")), "holds only elsewhere"),
    ],
)
def test_verdicts(claim: Claim, verdict: str) -> None:
    """A rule on the numbers. Would catch: a verdict that is written by hand, or that forgets which way is better."""
    assert claim.verdict == verdict == claim.row()["verdict"]


def test_largest_finds_where_a_condition_ends() -> None:
    """Would catch: an end of the range that is passed off as a find."""
    assert largest(lambda x: x <= 3.7, 0.0, 10.0, 20) == pytest.approx(3.7, abs=1e-4)
    assert largest(lambda x: False, 0.0, 10.0, 20) is None and largest(lambda x: True, 0.0, 10.0, 20) == 10.0


def test_the_gain_is_that_of_the_batch() -> None:
    """LLaMA-2 70B as released: nothing leaves HBM at batch 64, so the pool changes no token; links and codec change nothing.

    Would catch: a baseline that is held back by more than its batch.
    """
    runs = Runs()
    assumed, alone = runs.pool(world.GROUPED, 64), runs.alone(world.GROUPED, 64)
    assert assumed["kv_access"]["l3_read_share"] == 0.0
    assert (
        world.tokens_per_s(assumed)
        == world.tokens_per_s(alone)
        == world.tokens_per_s(runs.pool(world.GROUPED, 64, *world.MEASURED))
    )
    assert world.tokens_per_s(assumed) > 1.5 * world.tokens_per_s(runs.alone(world.GROUPED, 16))


def test_what_a_step_reads_bounds_the_speed_up() -> None:
    """KV of all heads: the fewer tokens a step reads, the faster; better links and decompression on the GPU help.

    Would catch: a read budget or a link that reaches nothing.
    """
    runs = Runs()
    few, many = (serving.decode_gain(runs, serving.budget(tokens)) for tokens in (64.0, 1024.0))
    assert few > 5.0 * many
    at_gpu, slow = serving.decode_gain(runs, *serving.AT_GPU), serving.decode_gain(runs, *world.LINKS)
    as_stated = serving.decode_gain(runs)
    assert at_gpu > 2.0 * as_stated > 3.0 * slow


def test_an_input_moves_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A board of another price, a world with other prompts. Would catch: results that were typed in."""

    def of(name: str, claims: list[Claim]) -> Claim:
        return next(claim for claim in claims if claim.name == name)

    before = capacity.claims(Runs(), 4)
    known = world.scenario

    def dearer(*settings: str, file: str = world.SERVING):  # type: ignore[no-untyped-def]
        return (
            known("cluster.kv_pool.board.memory=128 GB", *settings, file=file)
            if file == world.SERVING
            else known(*settings, file=file)
        )

    for module in (world, capacity):
        monkeypatch.setattr(module, "scenario", dearer)
    after = capacity.claims(Runs(), 4)
    for name in ("capacity", "capacity_compressed", "memory_cost"):
        assert of(name, after).assumed.value > 1.2 * of(name, before).assumed.value
        assert of(name, after).measured.value > 1.1 * of(name, before).measured.value
    assert of("bandwidth", after).assumed == of("bandwidth", before).assumed  # another world


def test_compression_on_the_board_saves_no_link() -> None:
    """Where links bound the run: nothing with decompression on the FPGA, the whole ratio with it on the GPU.

    Would catch: raw bytes that are counted as compressed on the link.
    """
    bandwidth = capacity.claims(Runs(), 4)[-1]
    assert bandwidth.assumed.value == pytest.approx(1.0, abs=1e-6) and bandwidth.regime.value == pytest.approx(4.0, rel=0.03)


def test_the_ratio_needs_values_that_repeat() -> None:
    """INT8 is all there is on keys and values. Would catch: stages multiplied without looking at data."""
    (claim,) = compression.claims(Runs(), 8)
    assert 1.9 < claim.measured.value < 2.0 and 1.9 < claim.assumed.value < 2.0
    assert claim.regime.value is not None and claim.regime.value > 0.9999
    assert all(row["run lengths"] < row["quantise"] for row in claim.tables["Ratio over fp16 by stage"])


def test_scaling_starts_at_one() -> None:
    """Would catch: an efficiency against another run than its own first."""
    (claim,) = scaling.claims(Runs(), 4)
    rows = claim.tables["Scaling"]
    for way in scaling.WAYS:
        first = next(row for row in rows if row["run"] == way)
        assert first["efficiency (%)"] == pytest.approx(100.0)


def test_atlas_of_a_small_model_and_a_large_context() -> None:
    """Where all KV fits HBM nothing is faster than GPUs alone; where not one sequence fits, they serve nothing.

    Would catch: a way that is run with another load, a winner against nothing.
    """
    small = atlas.System("7B, all heads", "llama-2-7b", "h100-80gb-sxm", 1)
    ways = [way for way in atlas.WAYS if way != "prefix"]
    wanted = [atlas.Cell(small, context, "sparse", "pcie-gen5-x16", way) for context in (2048, 131072) for way in ways]
    found = advice.advice(atlas.atlas(lambda done, text: None, wanted, jobs=1))
    short, long = (found[found["context_tokens"] == context].iloc[0] for context in (2048, 131072))
    assert (short["fastest"], short["pool_gain"], short["host_gain"]) == ("gpu_only", 1.0, 1.0)
    assert short["pool_value"] < short["host_value"] < 1.0 and short["pool_share"] == 0.0  # what is not used still costs
    assert long["pool_gain"] == float("inf") and 0.0 < long["pool_value"] < 1.0  # one GPU cannot hold it, two can
    assert long["cheapest"] == "more_gpus"


def test_the_batch_is_set_as_an_engineer_would() -> None:
    """A batch of all that far memory holds reads so much over the link that fewer at a time serve more. Would catch: a pool
    that is made to look slow by a batch that nobody would run."""
    cell = atlas.Cell(atlas.SYSTEMS[0], 32768, "sparse", "cxl-3.0-x16", "pool")
    best, all_of_it = cell.row(), cell.run(atlas.MOST)
    assert best["batch_limit"] < atlas.MOST and best["output_tokens_per_s"] > 1.2 * all_of_it["output_tokens_per_s"]


def test_more_gpus_at_equal_cost() -> None:
    """The value is tokens per dollar over the best of GPUs, and a board at the price that is said to be level is level.

    By hand: 10 and 12 tokens per dollar of GPUs alone and twice as many, 8 of the pool, of whose 125 USD per million tokens
    100 are boards of 1,000 USD; level at 83.3 USD, so boards of 583 USD. Would catch: a comparison with the dearer GPUs.
    """

    def row(way: str, rate: float, usd: float, boards: float = 0.0) -> dict[str, object]:
        same = {"model": "m", "context_tokens": 1, "reads": "dense", "link": "pcie-gen4-x16", "pool_share": 0.5}
        return same | {
            "way": way, "output_tokens_per_s": rate, "usd_per_million_output_tokens": usd, "board_usd": 1000.0 * (boards > 0),
            "boards_usd_per_million": boards,
        }  # fmt: skip

    ways = [
        row("gpu_only", 1.0, 100.0),
        row("more_gpus", 3.0, 1000 / 12),
        row("host", 0.5, 200.0),
        row("pool", 2.0, 125.0, 100.0),
    ]
    (found,) = advice.advice(pd.DataFrame(ways)).to_dict("records")
    assert (found["fastest"], found["cheapest"], found["pool_gain"]) == ("pool", "more_gpus", 2.0)
    assert found["pool_value"] == pytest.approx(8 / 12) and found["host_value"] == pytest.approx(5 / 12)
    assert found["board_worth_usd"] == pytest.approx(1000 * (1 - (125 - 1000 / 12) / 100))


def test_the_tensors_move_ledger_and_atlas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values that repeat compress further: the ratio, what follows from it, and a cell of the atlas that is short of
    pool all rise. Would catch: a ratio that is typed in.
    """
    sparse = atlas.Cell(atlas.SYSTEMS[0], 131072, "sparse", "cxl-3.0-x16", "pool")
    usual, held = sparse.run(atlas.MOST)["mean_batch"], capacity.claims(Runs(), 4)[1].measured.value
    ratio = compression.claims(Runs(), 1)[0].measured.value
    tensor = np.load(world.TENSOR)
    tensor[..., : tensor.shape[-2] // 2, :] = 0  # of the tokens
    changed = tmp_path / world.TENSOR.name
    np.save(changed, tensor)
    known = world.scenario

    def other(*settings: str, file: str = world.SERVING):  # type: ignore[no-untyped-def]
        return known(*(one.replace(str(world.TENSOR), str(changed)) for one in settings), file=file)

    for module in (world, capacity):
        monkeypatch.setattr(module, "scenario", other)
    monkeypatch.setattr(compression, "TENSORS", tmp_path)
    monkeypatch.setattr(atlas, "TENSOR", changed)
    assert compression.claims(Runs(), 1)[0].measured.value > 1.2 * ratio
    assert capacity.claims(Runs(), 4)[1].measured.value > 1.1 * held
    assert sparse.run(atlas.MOST)["mean_batch"] > 1.1 * usual


@pytest.mark.slow
def test_the_whole_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All claims of the paper with a number, figures that show the rows, a page without open ends. The atlas in part.

    Would catch: a claim that is left out, a figure of other data, a run that is not deterministic.
    """
    monkeypatch.setattr(atlas, "SYSTEMS", atlas.SYSTEMS[2:4])
    monkeypatch.setattr(atlas, "CONTEXTS", atlas.CONTEXTS[1:3])
    found = ledger(rounds=6)
    names = [claim.name for claim in found.claims]
    assert len(names) == len(set(names)) == 16
    table = found.figures["against_reported"].table
    assert list(table["claim"].unique()) == names
    for claim in found.claims:
        drawn = table[table["claim"] == claim.name].set_index("how")["simulated"]
        assert (drawn["as assumed"], drawn["as measured"]) == (claim.assumed.value, claim.measured.value)
        assert claim.source and claim.trust and claim.assumed.text and claim.measured.text and claim.regime.text
    assert found.figures["against_reported"].figure.get_figwidth() == PAGE
    assert found.figures["read_budgets"].figure.get_figwidth() == COLUMN
    files = write(found, tmp_path / "out")
    assert all(file.exists() for file in files)
    assert json.loads((tmp_path / "out" / "ledger.json").read_text())["rows"] == found.rows
    page = (tmp_path / "out" / "ledger.html").read_text()
    assert all(claim.verdict in page for claim in found.claims) and "http" not in page.split("</style>")[1].replace(
        "http://www.w3.org", ""
    )
    again = ledger(rounds=6)
    assert again.rows == found.rows and content(again.claims, again.advice) == content(found.claims, found.advice)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One part of the ledger by the command. Would catch: JSON and files apart, other output on standard output, a
    folder that turns out to be no place to write after minutes of work."""
    from typer.testing import CliRunner

    from analysis.reproduction import ledger as module
    from simulator.cli import app
    from simulator.cli.app import Interrupt

    aside = tmp_path / "a-file"
    aside.write_text("")
    refused = CliRunner().invoke(app, ["reproduce", "--quiet", "--out", str(aside / "out")], obj=Interrupt(""))
    assert refused.exit_code == 2 and "cannot be written" in refused.output  # before anything is simulated

    monkeypatch.setattr(module, "PARTS", (capacity,))
    monkeypatch.setattr(module, "POINTS", [2048])
    monkeypatch.setattr(atlas, "SYSTEMS", atlas.SYSTEMS[:1])
    monkeypatch.setattr(atlas, "CONTEXTS", atlas.CONTEXTS[:1])
    done = CliRunner().invoke(app, ["reproduce", "--json", "--quiet", "--out", str(tmp_path / "out")], obj=Interrupt(""))
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["rows"] == json.loads((tmp_path / "out" / "ledger.json").read_text())["rows"]
    assert [row["name"] for row in found["rows"]] == ["capacity", "capacity_compressed", "memory_cost", "bandwidth"]
