"""`speckvsim run`: the run folder, standard output, exit codes, and what is left behind when it does not end well."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

import simulator
from simulator import Scenario, simulate
from simulator.errors import InputError
from simulator.experiments import run as run_module
from simulator.experiments import store
from simulator.metrics import requests, timeseries
from simulator.metrics.invariants import InvariantError
from tests.cli.conftest import Speckvsim, files_in

ROOT = Path(__file__).parents[2]
RUN_FILES = {"scenario.resolved.yaml", "summary.json", "explain.json", "requests.parquet", "timeseries.parquet", "itl.parquet"}


def strict_json(text: str) -> dict:
    """One JSON document; NaN and Infinity are not JSON."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def only_message(err: str) -> str:
    """Standard error of a command that failed: a message, no traceback."""
    assert "Traceback" not in err
    return err


def test_run_writes_a_folder_and_says_where(scenario: Path, speckvsim: Speckvsim):
    """Would catch: a file of the run folder missing, a temporary left over, a folder that the user is not told of."""
    done = speckvsim("run", scenario, "--quiet")
    assert done.code == 0 and done.err == ""
    (folder,) = Path("results").iterdir()
    assert re.fullmatch(r"tiny-[0-9a-f]{8}", folder.name)
    assert files_in(folder) == RUN_FILES
    assert str(folder) in done.out
    summary = strict_json((folder / "summary.json").read_text())
    assert summary["requests"]["finished"] == len(pd.read_parquet(folder / "requests.parquet")) == 12
    assert summary["provenance"]["scenario_sha256"].startswith(folder.name.removeprefix("tiny-"))


def test_json_is_the_summary_and_nothing_else(scenario: Path, speckvsim: Speckvsim):
    """Would catch: progress on standard output, NaN in JSON, a folder nobody asked for."""
    done = speckvsim("run", scenario, "--json", "--check")
    assert done.code == 0
    assert {"throughput", "latency", "stall", "tiers", "bound_by"} <= strict_json(done.out).keys()
    assert files_in(Path()) == {"tiny.yaml"}


def test_json_with_out_prints_what_it_writes(scenario: Path, speckvsim: Speckvsim):
    """Would catch: `--json --out` writing nothing, or another summary than it prints."""
    done = speckvsim("run", scenario, "--json", "--out", "deep/run")
    assert done.out == Path("deep/run/summary.json").read_text()


def test_same_scenario_same_bytes(scenario: Path, speckvsim: Speckvsim):
    """Would catch: anything in the files that depends on the clock, the process or the place."""
    for name in ("a", "b"):
        assert speckvsim("run", scenario, "--out", name).code == 0
    for name in RUN_FILES - {"summary.json"}:
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()
    one, two = (strict_json(Path(name, "summary.json").read_text()) for name in ("a", "b"))
    assert one | {"simulation": 0} == two | {"simulation": 0}


def test_resolved_scenario_runs_again_to_the_same_result(scenario: Path, speckvsim: Speckvsim):
    """Would catch: a resolved scenario that leaves out an override or the seed given on the command line."""
    assert speckvsim("run", scenario, "--out", "a", "--set", "kv.l1=200 MiB", "--seed", "9").code == 0
    assert speckvsim("run", "a/scenario.resolved.yaml", "--out", "b").code == 0
    assert Path("a/requests.parquet").read_bytes() == Path("b/requests.parquet").read_bytes()
    assert strict_json(Path("b/summary.json").read_text())["provenance"]["seed"] == 9


def test_columns_say_what_they_are(scenario: Path, speckvsim: Speckvsim):
    """Would catch: tables whose columns have no description in the file itself."""
    assert speckvsim("run", scenario, "--out", "a").code == 0
    for name, columns in (("requests", requests.COLUMNS), ("timeseries", timeseries.COLUMNS), ("itl", requests.GAP_COLUMNS)):
        schema = pq.read_schema(f"a/{name}.parquet")
        assert {field.name: field.metadata[b"description"].decode() for field in schema} == columns


def test_an_earlier_run_is_replaced_whole(scenario: Path, speckvsim: Speckvsim):
    """Would catch: figures of the old run beside the numbers of the new one; an empty folder refused."""
    Path("a").mkdir()
    assert speckvsim("run", scenario, "--out", "a").code == 0
    Path("a/figures").mkdir()
    Path("a/figures/old.svg").touch()
    assert speckvsim("run", scenario, "--out", "a", "--seed", "9").code == 0
    assert files_in(Path("a")) == RUN_FILES
    assert files_in(Path()) == {"tiny.yaml", "a"} | {f"a/{name}" for name in RUN_FILES}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "<script>alert(1)</script>", "...", "a/../../b", "名" * 300, "CON:"])
def test_hostile_name_stays_in_the_results(name: str, scenario: Path, speckvsim: Speckvsim):
    """Would catch: a scenario's name used as a path, or one that the file system refuses."""
    done = speckvsim("run", scenario, "--set", f"name={json.dumps(name, ensure_ascii=False)}")
    assert done.code == 0, done.err
    (folder,) = Path("results").iterdir()
    assert files_in(folder) == RUN_FILES
    assert re.fullmatch(r"[\w.-]+", folder.name) and not folder.name.startswith(".")
    assert {entry.name for entry in Path("..").iterdir()} == {"here"}


def test_progress_goes_to_standard_error(scenario: Path, speckvsim: Speckvsim):
    """Would catch: progress mixed into results, or shown in spite of --quiet."""
    assert "%" in speckvsim("run", scenario, "--json").err
    assert speckvsim("run", scenario, "--json", "--quiet").err == ""


def test_arms(scenario: Path, speckvsim: Speckvsim):
    """Would catch: keys of the rows that others read, the scenario's own prefetcher missing among them."""
    done = speckvsim("run", scenario, "--arms", "none,oracle", "--json")
    rows = strict_json(done.out)["arms"]
    assert {row["arm"] for row in rows} == {"none", "oracle", "statistical"}
    for row in rows:
        assert row.keys() == {"arm", "step_time_s", "stall_s", "output_tokens_per_s", "prefetch", "gain_share"}
    assert files_in(Path()) == {"tiny.yaml"}
    assert "oracle" in speckvsim("run", scenario, "--arms", "none,oracle").out


def folder_that_is_no_run() -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")


def run_with_something_of_the_users() -> None:
    folder_that_is_no_run()
    Path("mine/summary.json").write_text("{}")


def file_in_place() -> None:
    Path("mine").write_text("years of work")


@pytest.mark.parametrize("prepare", [folder_that_is_no_run, run_with_something_of_the_users, file_in_place])
def test_what_is_not_a_run_is_never_replaced(prepare, scenario: Path, speckvsim: Speckvsim, monkeypatch):
    """Would catch: data of the user lost to a typing mistake; a refusal only after an hour of simulation."""
    monkeypatch.setattr(run_module, "run_scenario", lambda *_, **__: pytest.fail("simulated first"))
    prepare()
    before = files_in(Path())
    done = speckvsim("run", scenario, "--out", "mine")
    assert done.code == 2 and done.out == ""
    assert only_message(done.err).startswith("mine: is ")
    assert files_in(Path()) == before


@pytest.mark.parametrize("out", ["tiny.yaml/run", ".", "..", "x" * 300])
def test_out_where_no_folder_can_be(out: str, scenario: Path, speckvsim: Speckvsim):
    """Would catch: a traceback, or the current folder replaced under the user's feet."""
    done = speckvsim("run", scenario, "--out", out)
    assert done.code == 2 and done.out == ""
    assert only_message(done.err).startswith(out)
    assert files_in(Path()) == {"tiny.yaml"}


def test_disk_that_fails_while_writing(scenario: Path, speckvsim: Speckvsim, monkeypatch):
    """Would catch: half a run folder, parents made for it or a temporary folder left, an earlier run lost."""
    assert speckvsim("run", scenario, "--out", "a").code == 0
    before = files_in(Path()) | {"a"}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write_table", full)
    for out in ("a", "new/b"):
        done = speckvsim("run", scenario, "--out", out, "--quiet")
        assert done.code == 2
        assert only_message(done.err).startswith(f"{out}: cannot be written: No space left on device")
        assert files_in(Path()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny.yaml", "--set", "kv.l22=1 GiB"], "--set  kv.l22: unknown key"),
        (["tiny.yaml", "--set", "workload.synthetic.requests=none"], "--set  workload.synthetic.requests: "),
        (["nowhere.yaml"], "nowhere.yaml: no such file"),
        (["."], ".: is a folder"),
        (["tiny.yaml", "--arms", "none,orakel"], "--arms: 'orakel' is not an arm"),
        (["tiny.yaml", "--seed", "-1"], "Usage: "),
        (["tiny.yaml", "--no-such-option"], "Usage: "),
        ([], "Usage: "),
    ],
)
def test_wrong_input_is_one_message(arguments: list[str], message: str, scenario: Path, speckvsim: Speckvsim):
    """Would catch: a traceback or exit code 1 for the user's mistake; a folder of a run that never was."""
    done = speckvsim("run", *arguments)
    assert done.code == 2 and done.out == ""
    assert only_message(done.err).startswith(message)
    assert files_in(Path()) == {"tiny.yaml"}


def test_message_is_that_of_the_error(scenario: Path, speckvsim: Speckvsim):
    """Would catch: the command line rewording, cutting or colouring what the scenario says is wrong."""
    scenario.write_text(scenario.read_text().replace("seed: 3", "sed: 3").replace("tiny", "[red]tiny[/]"))
    with pytest.raises(InputError) as error:
        Scenario.load("tiny.yaml")
    assert speckvsim("run", "tiny.yaml").err == f"{error.value}\n"


def test_missing_trace(scenario: Path, speckvsim: Speckvsim):
    """Would catch: a trace that is not there found only by a traceback."""
    text = scenario.read_text()
    start, end = text.index("  synthetic:"), text.index("model:")
    scenario.write_text(f"{text[:start]}  trace: {{path: gone.csv}}\n{text[end:]}")
    done = speckvsim("run", scenario)
    assert done.code == 2
    assert "gone.csv" in only_message(done.err)
    assert files_in(Path()) == {"tiny.yaml"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InvariantError("INV-BYTES: 3 pages asked for, 2 read"), "INV-BYTES: 3 pages asked for, 2 read\n"),
        (ZeroDivisionError("division\nby zero"), "bug: ZeroDivisionError: division by zero; run again with SPECKVSIM_DEBUG=1"),
    ],
)
def test_bugs_and_broken_invariants(error: Exception, message: str, scenario: Path, speckvsim: Speckvsim, monkeypatch):
    """Would catch: a bug that looks like the user's mistake; a traceback without being asked for, none when asked."""

    def broken(*_, **__):
        raise error

    monkeypatch.setattr(run_module, "run_scenario", broken)
    monkeypatch.delenv("SPECKVSIM_DEBUG", raising=False)
    done = speckvsim("run", scenario)
    assert done.code == 1 and only_message(done.err).startswith(message)
    monkeypatch.setenv("SPECKVSIM_DEBUG", "1")
    done = speckvsim("run", scenario)
    assert done.code == 1 and "Traceback" in done.err and done.err.splitlines()[-1].startswith(message.strip())
    assert files_in(Path()) == {"tiny.yaml"}


@pytest.mark.parametrize("where", ["simulator.scenario.scenario", "pandas", "pyarrow.parquet"])
def test_interrupt_while_importing(where: str, scenario: Path):
    """Would catch: a traceback for Ctrl-C in the second that imports take."""
    program = f"""
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {where!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
sys.path.insert(0, {str(ROOT)!r})
sys.argv = ["speckvsim", "run", "tiny.yaml", "--quiet"]
from simulator.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted; nothing was written\n")
    assert files_in(Path()) == {"tiny.yaml"}


def test_interrupt_that_a_module_swallows(scenario: Path, speckvsim: Speckvsim, monkeypatch):
    """Would catch: Ctrl-C without effect because it came while numpy.random was imported, whose C code ignores it."""
    run_scenario = run_module.run_scenario

    def swallowing(*arguments, **options):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return run_scenario(*arguments, **options)

    monkeypatch.setattr(run_module, "run_scenario", swallowing)
    for quiet in ([], ["--quiet"]):
        done = speckvsim("run", scenario, *quiet)
        assert (done.code, done.out, done.err) == (130, "", "interrupted; nothing was written\n")
    assert files_in(Path()) == {"tiny.yaml"}


def test_interrupt_while_running(scenario: Path):
    """Would catch: a traceback, a wrong exit code, or remains of a run that Ctrl-C ended."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from simulator.cli import main; main()"
    large = ["--set", "workload.synthetic.requests=500000"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, "run", "tiny.yaml", *large],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a CI job in the background ignores it
    )
    assert process.stderr is not None
    first = process.stderr.readline()  # progress: it runs now
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert "%" in first
    assert (process.returncode, out) == (130, "")
    assert err.endswith("interrupted; nothing was written\n") and "Traceback" not in err
    assert files_in(Path()) == {"tiny.yaml"}


def test_reader_that_has_seen_enough(scenario: Path):
    """Would catch: `speckvsim ... | head` ending in a traceback about a broken pipe."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from simulator.cli import main; main()"
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", program, "schema"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_simulate_from_python(scenario: Path):
    """Would catch: the Python way giving other results than the command line, or overrides lost on the way."""
    result = simulate("tiny.yaml", set=["seed=9"], check=True)
    assert list(result.requests.columns) == list(requests.COLUMNS)
    again = simulate(Scenario.load("tiny.yaml"), set=["seed=9"])
    assert again.summary["provenance"] == result.summary["provenance"]
    pd.testing.assert_frame_equal(again.requests, result.requests)
    assert isinstance(result, simulator.RunResult)
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        _ = simulator.simulat
