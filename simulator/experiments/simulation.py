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

from simulator.hardware.faults import Schedule
from simulator.kvcache.geometry import geometry
from simulator.kvcache.identity import needs_table, paged
from simulator.kvcache.prefix import block_ids
from simulator.metrics.recorder import Recorder
from simulator.metrics.steps import StepLaw, StepTimes, shapes
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.detailed import DetailedFar
from simulator.scheduler.engine import Engine
from simulator.scheduler.far import FarMemory
from simulator.scheduler.faults import Faults
from simulator.scheduler.lockstep import Lockstep
from simulator.scheduler.paged import PagedFar
from simulator.scheduler.replica import Work
from simulator.workload.requests import Requests

EVENTS_BETWEEN_LOOKS = 200


def stream(seed: int, name: str) -> np.random.Generator:
    """The random stream of one purpose."""
    return np.random.default_rng([seed, *blake2s(name.encode()).digest()])


def work_of(requests: Requests, block_tokens: int) -> Work:
    """The requests as the scheduler takes them; ids of blocks where the trace has them and its blocks are whole ones."""
    ids, outputs, size = requests.hash_ids, requests.output_ids, requests.block_tokens
    prompt, output = requests.input_tokens.tolist(), requests.output_tokens.tolist()

    def of(request: int) -> list[int]:
        assert ids is not None
        found: list[int] = ids[request].tolist()
        if outputs is not None:
            return block_ids(found + outputs[request].tolist(), size, block_tokens, prompt[request] + output[request])
        return block_ids(found, size, block_tokens, prompt[request])

    whole = ids is not None and size % block_tokens == 0
    return Work(requests.arrival.tolist(), prompt, output, of if whole else None)


class Simulation:
    """One replica serving `requests` under a resolved scenario; `far_memory`: in place of what `devices` says."""

    def __init__(
        self, scenario: ScenarioResolved, requests: Requests, coalesce: bool = True, check: bool = False,
        far_memory: type[FarMemory] | None = None,
    ):  # fmt: skip
        self.scenario, self.requests = scenario, requests
        self.notes: tuple[str, ...] = requests.notes
        self.env = simpy.Environment()
        self.geometry = geometry(scenario)
        self.recorder = Recorder(len(requests))
        pool = scenario.pool
        draws = stream(scenario.seed, "prefetch")
        kv, pages = scenario.kv, None
        self.far: FarMemory | None = None
        if pool and needs_table(kv.selection, kv.placement, scenario.prefetch.predictor):
            self.far = PagedFar(scenario, self.geometry, draws, check)
            pages = paged(scenario, self.geometry, self.far.refetch_seconds, stream(scenario.seed, "selection"))
            self.far.attach(pages)
        elif pool and scenario.devices == "detailed" and far_memory is None:
            placing = stream(scenario.seed, "placement")
            self.far = DetailedFar(scenario, self.geometry, draws, placing, lambda: self.engine.clock)
        elif pool:
            self.far = (far_memory or FarMemory)(scenario, self.geometry, draws, check)
        work = work_of(requests, self.geometry.block_tokens)
        self.engine: Engine | Lockstep
        if scenario.gpus.data_parallel > 1:
            self.engine = Lockstep(self.env, scenario, self.geometry, work, self.recorder)
        else:
            self.engine = Engine(self.env, scenario, self.geometry, work, self.recorder, self.far, coalesce, pages)
            if scenario.faults and pool and self.far:
                schedule = Schedule(pool, scenario.faults, stream(scenario.seed, "faults"))
                self.engine.faults = Faults(scenario, schedule, self.engine, self.far)

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
        between = 1 if self.scenario.devices == "detailed" else EVENTS_BETWEEN_LOOKS  # such a step takes long
        while self.env.peek() < inf:
            for _ in range(between):
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
            parts = model.parts(tokens, rows, kernels)
            base, streaming_computing = model.base(tokens, rows, kernels), model.load(tokens, rows)
            times[tokens, rows, kernels] = StepTimes(
                base, parts.compute, parts.hbm, parts.collective, parts.launch, model.unit_time(tokens), *streaming_computing
            )
        kind = self.far.nominal.bound_kind if self.far else "link"
        return StepLaw(model.host, model.host_per_sequence, model.attention_is_compute, model.unit_load(), times, kind)
