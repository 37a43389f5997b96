"""`--help`, `--version`, `explain`, `schema`, `catalog`, `trace stats`."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import simulator
from tests.cli.conftest import Speckvsim

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "traces" / "sample.csv"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["run", "--sed", "3"]])
def test_help_imports_nothing_heavy(arguments: list[str]):
    """Would catch: help that takes seconds because a command's imports moved to the top of the module.

    Typer itself loads pydantic as soon as a command has options.
    """
    program = """
import sys
from simulator.cli import main
try:
    main()
finally:
    print("loaded", *{name.partition(".")[0] for name in sys.modules})
"""
    command = [sys.executable, "-c", program, *arguments]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    loaded = set(out.splitlines()[-1].split())
    heavy = {"matplotlib", "numpy", "pandas", "pyarrow", "rich", "scipy", "simpy", "yaml"}
    heavy |= {"pydantic"} if len(arguments) == 1 else set()
    assert "typer" in loaded
    assert loaded & heavy == set()


def test_version_is_the_projects(speckvsim: Speckvsim):
    """Would catch: a release whose command, package and results state different versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert simulator.__version__ == project["version"]
    done = speckvsim("--version")
    assert (done.code, done.out) == (0, f"speckvsim {project['version']}\n")


def test_help_lists_the_commands(speckvsim: Speckvsim):
    """Would catch: a command that nobody finds, or help written to standard error."""
    done = speckvsim("--help")
    assert done.code == 0 and done.err == ""
    for command in ("run", "explain", "schema", "catalog", "trace"):
        assert f"\n  {command} " in done.out


def test_explain(scenario: Path, speckvsim: Speckvsim):
    """Would catch: overrides ignored by explain, infinity in its JSON, its text and JSON apart."""
    done = speckvsim("explain", scenario, "--set", "kv.l1=200 MiB", "--json")
    found = json.loads(done.out, parse_constant=lambda name: pytest.fail(name))
    values = {row["field"]: row["value"] for row in found["values"]}
    assert done.code == 0 and values["kv.l1"] == "200 MiB"
    text = speckvsim("explain", scenario).out
    assert "Capacity" in text and "kv.l1" in text


def test_schema(speckvsim: Speckvsim):
    """Would catch: a schema that editors cannot read."""
    document = json.loads(speckvsim("schema").out)
    assert {"workload", "model", "cluster", "kv"} <= document["properties"].keys()


def test_catalog(speckvsim: Speckvsim):
    """Would catch: rows of the table and of the JSON document apart, values without their sources."""
    kinds = {row["kind"]: row["entries"] for row in json.loads(speckvsim("catalog", "--json").out)["rows"]}
    gpus = json.loads(speckvsim("catalog", "gpus", "--json").out)["rows"]
    assert len(gpus) == kinds["gpus"]
    table = speckvsim("catalog", "gpus").out
    assert all(row["name"] in table and row["title"] in table for row in gpus)
    fields = json.loads(speckvsim("catalog", "gpus", gpus[0]["name"], "--json").out)["rows"]
    table = speckvsim("catalog", "gpus", gpus[0]["name"]).out
    assert all(row["field"] in table and row["source"] in table for row in fields)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["catalog", "gpu"], "did you mean 'gpus'?"),
        (["catalog", "gpus", "a100-80gb-sxn"], "did you mean 'a100-80gb-sxm'?"),
        (["catalog", "../catalog", "x"], "is not a kind"),
        (["explain", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["trace", "stats", "nowhere.csv"], "nowhere.csv: no such file"),
        (["trace", "stats", str(SAMPLE), "--format", "azur"], "did you mean 'azure'?"),
        (["trace", "stats", str(ROOT / "pyproject.toml")], "format not recognised"),
        (["trace", "stat"], "No such command"),
    ],
)
def test_wrong_input(arguments: list[str], message: str, speckvsim: Speckvsim):
    """Would catch: a traceback, or exit code 1, for the user's mistake."""
    done = speckvsim(*arguments)
    assert done.code == 2 and done.out == ""
    assert message in done.err and "Traceback" not in done.err


def test_trace_stats(speckvsim: Speckvsim):
    """Would catch: figures of the table and of the JSON document apart."""
    found = json.loads(speckvsim("trace", "stats", SAMPLE, "--json").out, parse_constant=lambda name: pytest.fail(name))
    lines = dict(line.split(maxsplit=1) for line in speckvsim("trace", "stats", SAMPLE).out.splitlines())
    assert int(lines["rows"].replace(",", "")) == found["rows"] == found["arrivals"]["n"]
    assert float(lines["prompt_tokens.mean"]) == found["prompt_tokens"]["mean"]
    assert found["prefix_reuse"] == lines["prefix_reuse"] == "not in trace"  # which is not the same as none
