"""`speckvsim steptime` and `speckvsim validate` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simulator.cli import app

CLI = CliRunner()


def call(*arguments: str) -> tuple[int, str, str]:
    result = CLI.invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_steptime_json() -> None:
    """Catches a change of the keys that others rely on, and a default that is no decode step."""
    code, out, _ = call("steptime", "--gpu", "h100-80gb-sxm", "--model", "llama-2-7b", "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {"step_s", "bound", "operators"}
    assert all(set(row) == {"name", "time_s", "flops", "bytes", "bound"} for row in found["operators"])
    assert {"qkv", "decode_attention", "lm_head", "launch"} <= {row["name"] for row in found["operators"]}
    assert 5e-3 < found["step_s"] < 7e-3


def test_a_part_without_measurements_says_how_far_off_it_may_be() -> None:
    """As text and as a key. Catches numbers of a default that look like those of a measured part."""
    part = ("steptime", "--gpu", "b200-180gb", "--model", "llama-2-7b")
    assert json.loads(call(*part, "--json")[1])["uncalibrated"] == {"median_pct": 6.0, "p95_pct": 15.0}
    assert "may be off by 6 % (median), 15 % (p95)" in call(*part)[1]
    assert "may be off" not in call("steptime", "--gpu", "h100-80gb-sxm", "--model", "llama-2-7b")[1]


@pytest.mark.parametrize("name", ["Llama-70B", "meta-llama/Llama-2-70b-hf", "LLAMA_2_70B"])
def test_models_by_other_names(name: str) -> None:
    """Catches a model that is only found by its file name."""
    known = call("steptime", "--gpu", "H100-80GB-SXM", "--model", "llama-2-70b", "--tp", "4", "--json")
    assert call("steptime", "--gpu", "h100-80gb-sxm", "--model", name, "--tp", "4", "--json") == known
    assert known[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu", "h100-80gb-sxn", "--model", "llama-2-7b"], "did you mean 'h100-80gb-sxm'?"),
        (["--gpu", "h100-80gb-sxm", "--model", "lama-2-7b"], "did you mean 'llama-2-7b'?"),
        (["--gpu", "h100-80gb-sxm", "--model", "llama-2-7b", "--tp", "3"], "cannot be split over 3 GPUs"),
        (["--gpu", "h100-80gb-sxm", "--model", "llama-2-7b", "--batch", "0"], "there is no step"),
    ],
)
def test_wrong_steps(arguments: list[str], said: str) -> None:
    """Catches a traceback, or a time for a step that cannot be."""
    code, out, err = call("steptime", *arguments)
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize(
    "more",
    [
        ["--model", "Qwen/Qwen3-30B-A3B-Instruct-2507", "--ep", "2"],
        ["--model", "deepseek-v3", "--tp", "8", "--weights", "fp8", "--kv", "fp8"],
        ["--model", "llama-70b", "--tp", "2", "--pp", "4", "--prefill", "512", "--past", "1024"],
        ["--model", str(Path(__file__).parents[1] / "scenario" / "configs" / "small-mixtral.json")],
    ],
)
def test_steptime_of_every_kind(more: list[str]) -> None:
    """Operators sum to the step. Catches a kind of model or parallelism that the command does not take."""
    code, out, err = call("steptime", "--gpu", "h200-141gb-sxm", "--batch", "8", *more, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["step_s"] == pytest.approx(sum(row["time_s"] for row in found["operators"]))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--model", "llama-2-7b", "--pp", "33"], "not enough for 33 stages"),
        (["--model", "llama-2-7b", "--ep", "2"], "cannot be dealt out over 2 GPUs"),
        (["--model", "llama-2-7b", "--weights", "fp7"], "did you mean 'fp8'?"),
        (["--model", "absent.json"], "absent.json: cannot be read: no such file"),
    ],
)
def test_wrong_models(more: list[str], said: str) -> None:
    """Catches a traceback, and layers or experts that are rounded."""
    code, out, err = call("steptime", "--gpu", "h100-80gb-sxm", *more)
    assert (code, out) == (2, "") and said in err


def test_validate_takes_a_config(tmp_path: Path) -> None:
    """Rows of a model that the catalogue lacks are predicted from its config.json; without one their name is refused."""
    rows = "model,batch,context,step_ms_median\nmine,4,1000,1.0\nllama-2-7b,4,1000,6.0\n"
    (tmp_path / "decode.csv").write_text(rows, encoding="utf-8")
    config = str(Path(__file__).parents[1] / "scenario" / "configs" / "small-llama.json")
    data = ["validate", "--data", str(tmp_path / "decode.csv"), "--json"]
    code, out, _ = call(*data, "--model-config", config)
    assert code == 0 and json.loads(out)["rows"][0]["n"] == 2
    code, out, err = call(*data)
    assert (code, out) == (2, "") and "decode.csv:2" in err and "'mine' is not a known model" in err
    assert call("validate", "--model-config", config)[0] == 2


def test_validate_own_mixed_steps(tmp_path: Path) -> None:
    """A user's file: a slice of layers without head, another case of the name. Catches layers taken for the whole model."""
    file = tmp_path / "mine.csv"
    header = "model,tp,layers,prefill_tokens,past_context,decode_seqs,decode_context,step_ms_median\n"
    file.write_text(header + "LLAMA-70b,8,32,512,4096,32,2048,12.0\nllama-70b,8,32,0,0,32,2048,4.01\n")
    code, out, _ = call("validate", "--data", str(file), "--json")
    row = json.loads(out)["rows"][0]
    assert code == 0
    assert (row["data_set"], row["metric"], row["n"]) == ("mine", "step_ms_median", 2)
    assert row["worst_abs_error_pct"] < 10


def test_validate_unknown_kind(tmp_path: Path) -> None:
    """Exit code 2 and all kinds with their columns. Catches an empty table for a file that nobody understood."""
    file = tmp_path / "mine.csv"
    file.write_text("a,b\n1,2\n")
    code, out, err = call("validate", "--data", str(file))
    assert (code, out) == (2, "")
    assert all(kind in err for kind in ("decode:", "mixed:", "gemm:", "power:"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model,batch,context,step_ms_median\nllama-2-7b,8,1024,\n", ":2  step_ms_median: expected a number above 0"),
        ("model,batch,context,step_ms_median\nllama-2-7b,many,1024,3\n", ":2: not readable as a row of kind decode"),
        ("model,batch,context,step_ms_median\nnone-such,8,1024,3\n", ":2: 'none-such' is not a known model"),
        ("", "no rows"),
    ],
)
def test_validate_bad_files(tmp_path: Path, text: str, said: str) -> None:
    """Catches a traceback for a cell that is no number, and errors without their line."""
    file = tmp_path / "mine.csv"
    file.write_text(text)
    code, out, err = call("validate", "--data", str(file))
    assert (code, out) == (2, "")
    assert said in err
