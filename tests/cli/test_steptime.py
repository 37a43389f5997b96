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


def test_validate_json() -> None:
    """Catches a change of the keys that others rely on."""
    code, out, _ = call("validate", "--json")
    rows = json.loads(out)["rows"]
    assert code == 0
    assert len(rows) >= 10
    keys = {"data_set", "metric", "n", "median_abs_error_pct", "p95_abs_error_pct", "worst_abs_error_pct", "bias_pct"}
    assert all(keys <= set(row) for row in rows)


def test_validate_own_mixed_steps(tmp_path: Path) -> None:
    """A user's file: a slice of layers without head, another case of the name. Catches layers taken for the whole model."""
    file = tmp_path / "mine.csv"
    header = "model,tp,layers,prefill_tokens,past_context,decode_seqs,decode_context,step_ms_median\n"
    file.write_text(header + "LLAMA-70b,8,32,512,4096,32,2048,10.2\nllama-70b,8,32,0,0,32,2048,4.01\n")
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
