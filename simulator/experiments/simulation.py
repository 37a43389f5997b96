"""One simulation: it owns the SimPy environment, the random streams and the recorder; nothing outlives it.

Random streams are independent per purpose and derived from (seed, name), never from the order in which they are made, so
that a policy that draws more numbers does not move the arrivals (common random numbers for paired comparisons).
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2s
from math import inf
from time import monotonic

import numpy as np
import simpy

from simulator.kvcache.geometry import geometry
from simulator.metrics.recorder import Recorder
from simulator.metrics.steps import WORK, StepLaw, StepTimes, shapes
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.engine import Engine
from simulator.scheduler.far import FarMemory
from simulator.workload.requests import Requests

EVENTS_BETWEEN_LOOKS = 200


def stream(seed: int, name: str) -> np.random.Generator:
    """The random stream of one purpose."""
    return np.random.default_rng([seed, *blake2s(name.encode()).digest()])


class Simulation:
    """One replica serving `requests` under a resolved scenario."""

    def __init__(self, scenario: ScenarioResolved, requests: Requests, coalesce: bool = True, check: bool = False):
        self.scenario, self.requests = scenario, requests
        self.notes: tuple[str, ...] = requests.notes
        self.env = simpy.Environment()
        self.geometry = geometry(scenario)
        self.recorder = Recorder(len(requests))
        pool = scenario.pool
        draws = stream(scenario.seed, "prefetch")
        self.far = FarMemory(scenario, self.geometry, draws, check) if pool else None
        self.engine = Engine(
            self.env, scenario, self.geometry, requests.arrival.tolist(), requests.input_tokens.tolist(),
            requests.output_tokens.tolist(), self.recorder, self.far, coalesce,
        )  # fmt: skip

    def run(self, progress: Callable[[float, str], None] | None = None) -> None:
        self.env.process(self.engine.run())
        if progress is None:
            self.env.run()
        else:
            self._run_telling(progress)
        if self.far is not None:
            self.far.cancel()

    def _run_telling(self, progress: Callable[[float, str], None]) -> None:
        """Run, and tell how many requests have ended about five times a second."""
        total, told = len(self.requests), monotonic()
        while self.env.peek() < inf:
            for _ in range(EVENTS_BETWEEN_LOOKS):
                if self.env.peek() == inf:
                    break
                self.env.step()
            if monotonic() - told > 0.2:
                told = monotonic()
                ended = total - self.engine.open_requests
                progress(ended / total, f"{ended} of {total} requests, {self.engine.clock:.0f} s simulated")

    def law(self) -> StepLaw:
        """The step model's times for every shape of step that occurred."""
        model, runs = self.engine.model, self.recorder.runs.arrays()
        times = {}
        for tokens, rows, kernels in shapes(runs)[0]:
            layer, head = model.layer(tokens, kernels), model.head(rows)
            compute, hbm, collective, launch = (model.layers * getattr(layer, part) + getattr(head, part) for part in WORK)
            times[tokens, rows, kernels] = StepTimes(model.base(tokens, rows, kernels), compute, hbm, collective, launch)
        return StepLaw(
            model.host, model.layers * model.attention_per_token, model.attention_is_compute, model.load(),
            times, self.far.path.bound_kind if self.far else "link",
        )  # fmt: skip
