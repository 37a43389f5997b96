"""The same rows whoever computes them: one process, two, a Dask cluster, and processes that are killed again and again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from simulator.experiments.studies.engines import LocalPool, outcomes
from simulator.experiments.studies.points import points
from simulator.experiments.studies.sweep import load, sweep
from tests.experiments.studies.worlds import WORKLOAD, Here, base, study

ROOT = Path(__file__).parents[3]
LINK = "cluster.kv_pool.link.bandwidth"


def long_study(**more: Any) -> dict[str, Any]:
    """32 runs of about a tenth of a second, with random numbers in requests and prefetches, and a failing point."""
    arms = {
        "statistical": {"prefetch": {"predictor": "statistical", "coverage": 0.8, "accuracy": 0.7}},
        "none": {"prefetch": {"predictor": "none"}},
    }
    workload = WORKLOAD | {"requests": 400}
    axes = {LINK: ["1 GB/s", "2 GB/s"], "kv.l1": ["256 KiB", "512 KiB", "900 GiB"]}
    values = study(name="long", base=base(workload__synthetic=workload), arms=arms, axes=axes, replications=4)
    return values | {"analyses": {"regime_map": {"x": LINK, "y": "kv.l1"}}} | more


@pytest.fixture
def truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """results.parquet of the study, computed in this process."""
    with monkeypatch.context() as patched:
        patched.setattr("simulator.experiments.studies.sweep.pool", Here)
        sweep(long_study(), tmp_path / "truth")
    return (tmp_path / "truth" / "results.parquet").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_processes(jobs: int, truth: bytes, tmp_path: Path):
    """Would catch: rows in the order of their coming, a sum whose order depends on the number of threads."""
    result = sweep(long_study(), tmp_path / "out", jobs=jobs)
    assert (tmp_path / "out" / "results.parquet").read_bytes() == truth
    assert result.simulated == 32 and result.failed == 16


@pytest.mark.slow
def test_dask_cluster(truth: bytes, tmp_path: Path):
    """Two workers of a LocalCluster, then the same through the address of a scheduler.

    Would catch: other rows on a cluster, a client that does not find a running scheduler.
    """
    distributed = pytest.importorskip("distributed")
    sweep(long_study(), tmp_path / "local", backend="dask", jobs=2)
    assert (tmp_path / "local" / "results.parquet").read_bytes() == truth
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
    ) as cluster:
        sweep(long_study(), tmp_path / "address", backend="dask", scheduler=cluster.scheduler_address)
    assert (tmp_path / "address" / "results.parquet").read_bytes() == truth


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_three_times(seed: int, truth: bytes, tmp_path: Path):
    """`kill -9` of the sweep at three random moments, then the same command once more.

    Would catch: a row lost or twice, a torn file, a lock that outlives its process, workers that live on.
    """
    file, out = tmp_path / "study.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(long_study(), sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "simulator.cli", "sweep", str(file), "--out", str(out), "--jobs", "2", "--quiet"]
    moments = random.Random(seed)
    kept = 0
    for _ in range(3):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        goal = kept + moments.randint(1, 9)
        while process.poll() is None and finished(out) < goal:
            time.sleep(0.005)
        time.sleep(moments.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert finished(out) >= kept
        kept = finished(out)
        print(f"killed with {kept} of 32 runs kept")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"{32 - kept} new runs" in done.stdout
    assert (out / "results.parquet").read_bytes() == truth
    assert not list(out.rglob(".speckvsim-*"))


def finished(out: Path) -> int:
    return len(list((out / "runs").glob("*.json"))) if (out / "runs").is_dir() else 0


def test_workers_end_with_their_parent(tmp_path: Path):
    """The parent of two workers is killed. Would catch: workers that wait for work for ever after `kill -9`."""
    program = (
        "import sys, time; from simulator.experiments.studies.engines import LocalPool; "
        "from simulator.experiments.studies.points import points; from simulator.experiments.studies.sweep import load; "
        "from tests.experiments.studies.worlds import study; pool = LocalPool(2); "
        "run = points(load(study()))[0].run(0); pool.submit(run).result(); "
        "print(*pool._executor._processes, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(each) for each in parent.stdout.readline().split()]
    assert workers
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(worker) for worker in workers)


def alive(process: int) -> bool:
    """Running, and not a zombie that nobody has waited for."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(tmp_path: Path):
    """A worker gets `kill -9` while the others work. Would catch: a sweep that hangs or ends, runs lost or doubled."""
    chosen = points(load(long_study(axes={LINK: ["1 GB/s", "2 GB/s"]}, analyses={})))
    runs = [point.run(each) for point in chosen for each in range(4)]
    workers, found = LocalPool(2), []
    try:
        for run, outcome in outcomes(workers, runs):
            found.append((run.hash, outcome["status"]))
            if len(found) in (3, 7):
                os.kill(next(iter(workers._executor._processes)), signal.SIGKILL)
    finally:
        workers.close()
    assert sorted(found) == sorted((run.hash, "finished") for run in runs)
