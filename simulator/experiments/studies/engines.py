"""Where runs are simulated: processes of this machine (loky, the pool of joblib) or a Dask cluster.

Both take the same function and give the same bits. A worker has one thread for linear algebra, everywhere: the order of
a threaded sum depends on how many there are. A worker that dies (killed, out of memory) is replaced; what was under way
is run again, one run at a time until all of it is back, so that the run that kills its worker is known and an innocent
one is not blamed. Such a run is given up after `ATTEMPTS` and is tried anew when the study is resumed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Protocol

from simulator.errors import InputError, Problem, did_you_mean
from simulator.experiments.studies.points import Run
from simulator.experiments.studies.worker import Outcome, begin, evaluate, failed

ATTEMPTS = 3
LOST = "lost"  # status of a run whose worker died ATTEMPTS times; never written to the journal
BACKENDS = ("local", "dask")
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB")}
_CONNECT = 10  # s


class Pool(Protocol):
    """Workers that run one function."""

    workers: int

    def submit(self, run: Run) -> Future[Outcome]: ...

    def renew(self) -> None:
        """After a worker died: be ready for the next `submit`."""

    def close(self) -> None: ...


class LocalPool:
    """Processes of this machine; started at the first run."""

    def __init__(self, jobs: int | None):
        self.workers = jobs or available_cpus()
        self._executor: Any = None

    def submit(self, run: Run) -> Future[Outcome]:
        from joblib.externals.loky import get_reusable_executor

        if self._executor is None:
            self._executor = get_reusable_executor(
                max_workers=self.workers, timeout=60, initializer=begin, initargs=(os.getpid(),), env=_ONE_THREAD
            )
        future: Future[Outcome] = self._executor.submit(evaluate, run.scenario())
        return future

    def renew(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, kill_workers=True)
        self._executor = None

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, kill_workers=True)
        self._executor = None


class DaskPool:
    """A Dask cluster: that of `scheduler`, or `jobs` local workers."""

    def __init__(self, jobs: int | None, scheduler: str | None):
        try:
            import dask
            import distributed
        except ImportError:
            message = "needs the extra `cluster` (dask); install it with: pip install 'speckvsim[cluster]'"
            raise InputError(Problem("--backend", "dask", message)) from None
        dask.config.set({"distributed.nanny.pre-spawn-environ": _ONE_THREAD, "distributed.admin.low-level-log-length": 0})
        cluster: Any = distributed  # its functions are not typed
        self._cluster: Any = None
        try:
            if scheduler is None:
                self._cluster = cluster.LocalCluster(
                    n_workers=jobs or available_cpus(), threads_per_worker=1, processes=True, host="127.0.0.1",
                    dashboard_address=None, silence_logs=50,
                )  # fmt: skip
            self._client: Any = cluster.Client(self._cluster or scheduler, timeout=_CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            self._close_cluster()
            raise InputError(Problem("--scheduler", scheduler or "", f"no Dask scheduler answers there: {error}")) from None
        self.workers = max(1, sum(self._client.nthreads().values()))
        self._executor = self._client.get_executor(pure=False)

    def submit(self, run: Run) -> Future[Outcome]:
        future: Future[Outcome] = self._executor.submit(evaluate, run.scenario())
        return future

    def renew(self) -> None:
        """Dask starts workers again by itself."""

    def close(self) -> None:
        self._client.close()
        self._close_cluster()

    def _close_cluster(self) -> None:
        if self._cluster is not None:
            self._cluster.close()


def pool(backend: str = "local", jobs: int | None = None, scheduler: str | None = None) -> Pool:
    """InputError for an unknown backend, or a scheduler without dask."""
    if backend not in BACKENDS:
        message = f"'{backend}' is not a backend; expected {' or '.join(BACKENDS)}"
        raise InputError(Problem("--backend", "", message, did_you_mean(backend, BACKENDS)))
    if backend == "local":
        if scheduler is not None:
            raise InputError(Problem("--scheduler", scheduler, "is for --backend dask"))
        return LocalPool(jobs)
    return DaskPool(jobs, scheduler)


def outcomes(workers: Pool, runs: Iterable[Run]) -> Iterator[tuple[Run, Outcome]]:
    """Every run with its outcome, as they come; a worker's death is not the end. `runs` is read while workers work."""
    waiting, suspects = iter(runs), list[Run]()
    deaths: dict[str, int] = {}
    under_way: dict[Future[Outcome], Run] = {}
    while True:
        alone = bool(suspects) or any(run.hash in deaths for run in under_way.values())
        while len(under_way) < (1 if alone else 2 * workers.workers):
            run = suspects.pop() if suspects else next(waiting, None)
            if run is None:
                break
            try:
                under_way[workers.submit(run)] = run
            except Exception as broken:  # the pool broke between two looks at it
                _require_death(broken)
                deaths[run.hash] = deaths.get(run.hash, 0) + 1
                if deaths[run.hash] > ATTEMPTS:
                    raise
                suspects.append(run)
                workers.renew()
        if not under_way:
            return
        died = False
        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
            run = under_way.pop(future)
            error = future.exception()
            if error is None:
                yield run, future.result()
                continue
            _require_death(error)
            died = True
            deaths[run.hash] = deaths.get(run.hash, 0) + 1
            if deaths[run.hash] < ATTEMPTS:
                suspects.append(run)
            else:
                reason = "ended its worker process each time (out of memory, killed?)"
                yield run, failed(f"{reason}; tried {ATTEMPTS} times") | {"status": LOST}
        if died:
            workers.renew()


def _require_death(error: BaseException) -> None:
    """Only the loss of a worker is retried; everything else is a bug and is raised."""
    if type(error).__name__ not in ("TerminatedWorkerError", "BrokenProcessPool", "KilledWorker", "ShutdownExecutorError"):
        raise error


def available_cpus() -> int:
    """CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def ignore_interrupts() -> Any:
    """SIGINT ignored from here; returns what it was (workers that start now inherit it)."""
    return signal.signal(signal.SIGINT, signal.SIG_IGN)
