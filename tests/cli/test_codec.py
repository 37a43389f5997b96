"""`speckvsim codec`, and `ratio: measured` in a scenario."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.scenario import Scenario
from tests.cli.conftest import SCENARIO, Speckvsim

RAW, FIXED = 2 * 16384, 24 + 8 * 4 + 256 * 2  # bytes of the tensor below; of its stream header, block headers, scales
MEASURED = "codec: {ratio: measured, measure: {tensors: kv.npy, bits: 4}}, l1: 256 MiB"


@pytest.fixture
def tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of normal values, in the current folder."""
    monkeypatch.chdir(tmp_path)
    np.save("kv.npy", np.random.default_rng(0).standard_normal((2, 64, 128)).astype(np.float32))
    return tmp_path / "kv.npy"


def test_ratio_by_stage(speckvsim: Speckvsim, tensor: Path) -> None:
    """The table and the JSON document hold the same stages; catches a key that others rely on being renamed."""
    found = json.loads(speckvsim("codec", tensor, "--json").out)
    assert [row["stage"] for row in found["stages"]][:2] == ["raw fp16", "quantise"]
    assert found["ratio"] == RAW / (FIXED + 16384)
    table = speckvsim("codec", tensor)
    assert table.code == 0 and all(row["stage"] in table.out for row in found["stages"])
    assert json.loads(speckvsim("codec", "--synthetic", "ar1:0.9999", "--bits", "4", "--json").out)["ratio"] > 9.0


def test_what_a_wrong_file_is_told(speckvsim: Speckvsim, tmp_path: Path) -> None:
    """Exit 2 with one message. Catches a traceback, and above all a pickled file that is executed."""
    bad = tmp_path / "bad.npy"

    def told(*arguments: str | Path) -> str:
        outcome = speckvsim("codec", *arguments)
        assert (outcome.code, outcome.out) == (2, "")
        return outcome.err

    assert "No such file" in told(bad)
    bad.write_bytes(b"not numbers")
    assert "not a .npy file" in told(bad)
    bad.write_bytes(pickle.dumps({"a": 1}))
    assert "not a .npy file" in told(bad)
    np.save(bad, np.array([{"a": 1}], object), allow_pickle=True)
    assert "not a .npy file of plain numbers" in told(bad)
    np.save(bad, np.arange(6).reshape(2, 3))
    assert "holds int64; expected float16" in told(bad)
    np.save(bad, np.zeros(5, np.float32))
    assert "has shape (5,)" in told(bad)
    np.save(bad, np.full((2, 2), np.inf))
    assert "[0, 0]: inf is not finite" in told(bad)
    np.save(bad, np.full((2, 2), 1e6))
    assert "1000000.0 is not finite as a 16-bit float" in told(bad)
    both = told("--bits", "3", "--axis", "tokens")
    assert "give either FILE.npy or --synthetic" in both and "3 is not one of" in both and "did you mean 'token'?" in both
    assert "expected normal or ar1:RHO" in told("--synthetic", "ar1:1.0")
    assert "did you mean 'normal'?" in told("--synthetic", "nomal")


def test_a_scenario_takes_its_ratio_from_a_tensor(tensor: Path) -> None:
    """The number is that of the command, its source names file and hash, and the resolved scenario runs without the file.
    Catches a path relative to the wrong folder and a ratio that is measured with another block size."""
    folder = tensor.parent / "scenarios"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(SCENARIO.replace("l1: 256 MiB", MEASURED.replace("kv.npy", "../kv.npy")))
    scenario = Scenario.load(folder / "tiny.yaml")
    assert scenario.resolved.kv.codec.ratio == RAW / (FIXED + 8192)
    assert "../kv.npy, sha256 " in scenario.resolved.sources["kv.codec.ratio"]
    tensor.unlink()
    again = Scenario.from_dict(scenario.resolved.document, base_dir=folder)
    assert again.resolved.kv.codec == scenario.resolved.kv.codec
    larger = SCENARIO.replace(
        "l1: 256 MiB", 'block: "64 tokens", codec: {ratio: measured, measure: {synthetic: normal}}, l1: 256 MiB'
    )
    (folder / "tiny.yaml").write_text(larger)
    fewer_headers = Scenario.load(folder / "tiny.yaml").resolved.kv.codec.ratio
    (folder / "tiny.yaml").write_text(larger.replace("64 tokens", "16 tokens"))
    assert Scenario.load(folder / "tiny.yaml").resolved.kv.codec.ratio < fewer_headers


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        ("{ratio: measured}", "kv.codec.ratio: measured needs measure"),
        ("{ratio: 2, measure: {synthetic: normal}}", "kv.codec.measure: is used only with ratio: measured"),
        ("{ratio: measured, measure: {}}", "kv.codec.measure: give either tensors"),
        ("{ratio: measured, measure: {tensors: a.npy, synthetic: normal}}", "kv.codec.measure: give either tensors"),
        ("{ratio: measured, measure: {tensors: none.npy}}", "kv.codec.measure.tensors: "),
        ("{ratio: measured, measure: {synthetic: normal, bits: 3}}", "bits: 3 is not accepted; expected one of: 8, 4, 2"),
        ("{ratio: measured, measure: {synthetic: ar2}}", "kv.codec.measure.synthetic: 'ar2': expected normal or ar1:RHO"),
    ],
)  # fmt: skip
def test_a_wrong_measure_is_one_message(tmp_path: Path, codec: str, message: str) -> None:
    """Each mistake is one problem with its field. Catches the word `measured` reaching the schema as a bad number too."""
    (tmp_path / "tiny.yaml").write_text(SCENARIO.replace("l1: 256 MiB", f"codec: {codec}, l1: 256 MiB"))
    with pytest.raises(InputError) as caught:
        Scenario.load(tmp_path / "tiny.yaml")
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1
