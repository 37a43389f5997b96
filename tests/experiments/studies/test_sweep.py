"""A sweep from its points to its rows; what is kept, what is refused, what goes on."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from simulator import simulate
from simulator.errors import InputError
from simulator.experiments.studies import engines, journal
from simulator.experiments.studies.points import Run
from simulator.experiments.studies.statistics import t_interval
from simulator.experiments.studies.sweep import estimate, load, sweep
from tests.experiments.studies.worlds import Here, base, study

LINK = "cluster.kv_pool.link.bandwidth"


def test_rows(tmp_path: Path, here: Here):
    """Would catch: a missing column, a row lost or doubled, rows in the order of their coming, wall times in the table."""
    result = sweep(study(), tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert list(table)[:7] == ["point_id", "replication", "seed", "arm", "status", "error", LINK]
    assert len(table) == 12 and not table.duplicated(["point_id", "replication"]).any()
    assert table[LINK].tolist() == [1e9] * 6 + [4e9] * 6 and set(table["status"]) == {"finished"}
    assert not [name for name in table if "wall" in name or "rss" in name]
    assert result.table.equals(table) and len(here.runs) == 12
    assert {path.stem for path in (tmp_path / "out" / "points").iterdir()} == set(table["point_id"])


def test_identical_points_are_run_once(tmp_path: Path, here: Here):
    """GPUs alone do not know the axis of the link. Would catch: the same run twice, a row or a point's file left out."""
    alone = {"cluster.kv_pool": "none", "kv": {}, "prefetch": {}}
    result = sweep(study(arms={"pool": {}, "gpu_only": alone}), tmp_path)
    assert result.simulated == len(here.runs) == len(list((tmp_path / "runs").iterdir())) == 9
    assert len(result.table) == 12 and len(list((tmp_path / "points").iterdir())) == 4


def test_a_point_runs_by_itself(tmp_path: Path, here: Here):
    """Would catch: a point's file that is not what was run, a metric in the wrong column."""
    table = sweep(study(), tmp_path).table
    row = table[(table["arm"] == "none") & (table["replication"] == 0)].iloc[-1]
    summary = simulate(tmp_path / "points" / f"{row['point_id']}.yaml").summary
    assert summary["latency"]["ttft_s"]["p99"] == row["latency.ttft_s.p99"]
    assert summary["throughput"]["output_tokens_per_s"] == row["throughput.output_tokens_per_s"]


def test_an_axis_with_the_name_of_a_result(tmp_path: Path, here: Here):
    """`prefetch.coverage` is asked for and measured. Would catch: one of the two overwriting the other."""
    statistical = {"predictor": "statistical", "coverage": 0.5, "accuracy": 0.9}
    table = sweep(study(arms={}, axes={"prefetch.coverage": [0.25, 0.75]}, base=base(prefetch=statistical)), tmp_path).table
    assert sorted(set(table["prefetch.coverage"])) == [0.25, 0.75]
    assert not table["measured.prefetch.coverage"].isin([0.25, 0.75]).any()


def test_it_goes_on_where_it_was(tmp_path: Path, here: Here):
    """The journal loses two files and has one torn. Would catch: all run again, a torn file believed, other rows."""
    sweep(study(), tmp_path)
    before = (tmp_path / "results.parquet").read_bytes()
    files = sorted((tmp_path / "runs").iterdir())
    files[0].unlink()
    files[1].unlink()
    files[2].write_text(files[2].read_text()[:100])
    (tmp_path / "runs" / ".speckvsim-left").touch()
    here.runs.clear()
    assert sweep(study(), tmp_path).simulated == len(here.runs) == 3
    assert (tmp_path / "results.parquet").read_bytes() == before
    assert not (tmp_path / "runs" / ".speckvsim-left").exists()


def test_interrupted_it_keeps_what_it_has(tmp_path: Path, here: Here):
    """Would catch: rows so far that are not written when Ctrl-C comes."""

    def interrupt(run: Run) -> None:
        if len(here.runs) == 5:
            raise KeyboardInterrupt

    here.also = interrupt
    with pytest.raises(KeyboardInterrupt):
        sweep(study(), tmp_path)
    kept = len(pd.read_parquet(tmp_path / "results.parquet"))
    assert 0 < kept < 12 and kept == len(list((tmp_path / "runs").iterdir()))
    here.also = None
    assert sweep(study(), tmp_path).simulated == 12 - kept


def test_a_changed_study_is_refused(tmp_path: Path, here: Here):
    """Would catch: rows of two studies in one folder, a difference that is not shown; analyses may change."""
    sweep(study(), tmp_path)
    with pytest.raises(InputError, match="holds another study") as error:
        sweep(study(replications=4), tmp_path)
    assert "-replications: 3" in str(error.value) and "+replications: 4" in str(error.value)
    with pytest.raises(InputError, match=r"\+.*max_batch: 9"):
        sweep(study(base=base(scheduler__max_batch=9)), tmp_path)
    assert sweep(study(metrics=["latency.ttft_s.p50"]), tmp_path).simulated == 0


def test_the_folder_of_the_study_runs_as_it_is(tmp_path: Path, here: Here):
    """Would catch: a study.yaml that lacks the base, or whose points are others."""
    one = sweep(study(), tmp_path / "one").table
    two = sweep(tmp_path / "one" / "study.yaml", tmp_path / "two").table
    assert one.equals(two)


@pytest.mark.parametrize("content", ["notes.txt", "runs"])
def test_a_foreign_folder_is_left_alone(content: str, tmp_path: Path, here: Here):
    """Would catch: a sweep that writes between somebody's files."""
    (tmp_path / content).mkdir()
    with pytest.raises(InputError, match="is not a sweep"):
        sweep(study(), tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [content]


def test_two_sweeps_in_one_folder(tmp_path: Path, here: Here):
    """Would catch: two processes that write to one journal."""
    first = journal.Journal(tmp_path, load(study()))
    first.open()
    with pytest.raises(InputError, match="another sweep is running"):
        sweep(study(), tmp_path)
    first.close()
    assert sweep(study(), tmp_path).simulated == 12


def test_a_failing_point_does_not_stop_the_others(tmp_path: Path, here: Here):
    """L1 does not fit at half of the points. Would catch: a sweep that ends there, an error that is not recorded."""
    sizes = {"kv.l1": ["8 blocks", "900 GiB"]}
    with pytest.raises(InputError, match="unknown unit"):
        sweep(study(axes=sizes), tmp_path)
    sizes["kv.l1"][0] = "1 MiB"
    result = sweep(study(axes=sizes), tmp_path / "out")
    table = result.table
    assert (table["status"] == "failed").sum() == 6 and result.failed == 6
    assert table[table["status"] == "failed"]["error"].str.contains("do not fit").all()
    assert table[table["status"] == "finished"]["throughput.output_tokens_per_s"].notna().all()


def test_an_error_inside_a_run_is_a_row(tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch):
    """Would catch: a bug in one scenario that ends the sweep, or is run again and again."""
    from simulator.experiments import run as module

    true_run = module.run_scenario

    def sometimes(scenario: Any, **more: Any) -> Any:
        if scenario.resolved.prefetch.predictor == "none":
            raise ZeroDivisionError("on\npurpose")
        return true_run(scenario, **more)

    monkeypatch.setattr(module, "run_scenario", sometimes)
    table = sweep(study(), tmp_path).table
    assert set(table[table["arm"] == "none"]["error"]) == {"ZeroDivisionError: on purpose"}
    assert (table["status"] == "finished").sum() == 6
    assert sweep(study(), tmp_path).simulated == 0


def test_a_full_disk(tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch):
    """The sixth file of the journal finds no space. Would catch: a traceback, a torn file, rows so far that are lost."""
    true_write, written = Path.write_text, 0

    def full(path: Path, *more: Any, **settings: Any) -> int:
        nonlocal written
        if path.parent.name == "runs":
            written += 1
            if written > 5:
                raise OSError(errno.ENOSPC, "No space left on device")
        return true_write(path, *more, **settings)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(journal.Halted, match="no space left on device; 5 finished runs are kept"):
        sweep(study(), tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr("simulator.experiments.studies.sweep.pool", lambda *_: here)
    assert len(pd.read_parquet(tmp_path / "results.parquet")) >= 5
    assert all(json.loads(path.read_text()) for path in (tmp_path / "runs").iterdir())
    assert sweep(study(), tmp_path).simulated == 7


def test_until(tmp_path: Path, here: Here):
    """Would catch: a rule that stops at once, never, or at a number that depends on what ran before."""
    until = {"precision": "12 %", "metric": "latency.e2e_s.mean", "most": 40}
    loads = study(until=until, replications=1, arms={}, axes={"workload.synthetic.arrivals.rate": ["100 /s", "6000 /s"]})
    result = sweep(loads, tmp_path / "one")
    counts = {}
    for point_id, rows in result.table.groupby("point_id"):
        found = t_interval(rows["latency.e2e_s.mean"])
        counts[point_id] = found.n
        assert found.relative <= 0.12 or found.n == 40
    assert len(set(counts.values())) > 1 and min(counts.values()) >= 5
    again = sweep(loads, tmp_path / "one")
    assert again.simulated == 0 and again.table.equals(result.table)


def test_unknown_metrics_are_refused(tmp_path: Path, here: Here):
    """Would catch: a table of blanks for a metric that is spelled wrong."""
    with pytest.raises(InputError, match=r"did you mean 'latency.ttft_s.p99'\?"):
        sweep(study(metrics=["latency.ttft.p99"]), tmp_path)


def test_a_study_none_of_whose_points_can_run(tmp_path: Path, here: Here):
    """Would catch: a folder full of failures for a mistake in the study."""
    with pytest.raises(InputError, match="do not fit"):
        sweep(study(axes={"kv.l1": ["900 GiB"]}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_estimate(here: Here):
    """Would catch: replications or arms left out of the number of runs, identical points counted twice."""
    found = estimate(load(study()), 2)
    assert (found["points"], found["runs"], found["refused"]) == (4, 12, 0)
    assert found["seconds"] == pytest.approx(found["seconds_per_run"] * 6) and found["seconds"] > 0
    alone = {"cluster.kv_pool": "none", "kv": {}, "prefetch": {}}
    assert estimate(load(study(arms={"pool": {}, "gpu_only": alone})), 2)["runs"] == 9


class Dying(Here):
    """Workers that die at some runs."""

    workers = 2

    def __init__(self, dies: dict[int, int]):
        super().__init__(also=self.die)
        self.dies = dies  # seed -> how many times its worker dies

    def die(self, run: Run) -> None:
        if self.dies.get(run.seed, 0) > 0:
            self.dies[run.seed] -= 1
            raise type("TerminatedWorkerError", (Exception,), {})("killed")


@pytest.mark.parametrize(("deaths", "lost"), [(1, 0), (2, 0), (3, 1), (9, 1)])
def test_a_lost_worker_is_replaced(deaths: int, lost: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Would catch: runs of a dead worker forgotten or doubled, endless attempts, a death written to the journal."""
    workers = Dying({5: deaths})
    monkeypatch.setattr("simulator.experiments.studies.sweep.pool", lambda *_: workers)
    only = study(axes={LINK: ["1 GB/s"]}, arms={}, replications=8)
    table = sweep(only, tmp_path).table
    assert len(table) == 8 and (table["status"] == "failed").sum() == lost
    assert len(list((tmp_path / "runs").iterdir())) == 8 - lost
    workers.dies.clear()
    assert sweep(only, tmp_path).simulated == lost
    assert (pd.read_parquet(tmp_path / "results.parquet")["status"] == "finished").all()


def test_a_bug_in_the_engine_is_not_retried(tmp_path: Path, here: Here):
    """Would catch: any exception of the pool taken for a lost worker."""

    def bug(run: Run) -> None:
        raise AttributeError("bug")

    here.also = bug
    with pytest.raises(AttributeError, match="bug"):
        list(engines.outcomes(here, [load_first().run(0)]))


def load_first() -> Any:
    from simulator.experiments.studies.points import points

    return points(load(study()))[0]


def test_seeds_reach_the_simulation(tmp_path: Path, here: Here):
    """Would catch: replications that are copies of each other; arms on other requests."""
    table = sweep(study(), tmp_path).table
    by_arm = table[table[LINK] == 1e9].pivot(index="replication", columns="arm", values="requests.arrived")
    assert (by_arm == 30).all().all()
    times = table[table[LINK] == 1e9].groupby("arm")["latency.e2e_s.mean"].nunique()
    assert (times == 3).all()
    means = table[table[LINK] == 1e9].pivot(index="replication", columns="arm", values="latency.e2e_s.mean")
    assert np.corrcoef(means["none"], means["next_layer"])[0, 1] > 0.5
