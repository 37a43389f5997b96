"""Small studies for tests: four-layer scenarios that run in milliseconds, and workers in this process."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from simulator.experiments.studies.points import Run
from simulator.experiments.studies.worker import Outcome, evaluate
from tests.properties.small import BASE, pool, put

WORKLOAD = {
    "requests": 30,
    "arrivals": {"process": "poisson", "rate": "2000 /s"},
    "input": {"dist": "uniform", "low": "1 token", "high": "120 tokens"},
    "output": {"dist": "uniform", "low": "1 token", "high": "40 tokens"},
}


def base(**settings: Any) -> dict[str, Any]:
    """The scenario of every study here: a pool behind a slow link; settings with `__` for dots."""
    values = copy.deepcopy(BASE)
    put(values, "workload.synthetic", WORKLOAD)
    for path, value in (pool(l1=12, l3=600, l2=4) | {path.replace("__", "."): each for path, each in settings.items()}).items():
        put(values, path, value)
    return values


def study(**more: Any) -> dict[str, Any]:
    """A study of two links and two arms, three replications."""
    return {
        "name": "small",
        "base": base(),
        "axes": {"cluster.kv_pool.link.bandwidth": ["1 GB/s", "4 GB/s"]},
        "arms": {
            "next_layer": {"prefetch": {"predictor": "next_layer", "depth": 1}},
            "none": {"prefetch": {"predictor": "none"}},
        },
        "replications": 3,
        "seed": 5,
    } | more


class Here:
    """A pool that runs everything in this process, at once; `also` sees each run before."""

    workers = 1

    def __init__(self, *_: Any, also: Callable[[Run], None] | None = None):
        self.also, self.runs = also, list[Run]()

    def submit(self, run: Run) -> Future[Outcome]:
        self.runs.append(run)
        future: Future[Outcome] = Future()
        try:
            if self.also:
                self.also(run)
            future.set_result(evaluate(run.scenario()))
        except Exception as error:
            future.set_exception(error)
        return future

    def renew(self) -> None:
        pass

    def close(self) -> None:
        pass
