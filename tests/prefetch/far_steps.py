"""Far memory with parameters a test chooses, and its steps replayed event by event."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.kvcache.geometry import geometry
from simulator.prefetch.pipeline import Carry, Outcome
from simulator.prefetch.reference import replay_by_events
from simulator.scenario import Scenario
from simulator.scenario.resolved import Prefetch, ScenarioResolved
from simulator.scheduler import far as far_module
from simulator.scheduler.far import FarMemory

SCENARIO = Path(__file__).parents[2] / "scenarios" / "dense_mha_bound.yaml"
HOST, HEAD = 1e-3, 1e-3


@cache
def base() -> ScenarioResolved:
    return Scenario.load(SCENARIO).resolved


def far_memory(
    predictor: str, staged: float = 1000.0, latency: float = 0.0, depth: int = 1, coverage: float = 0.9, accuracy: float = 0.9,
    predictor_latency: float = 0.0, seed: int = 1,
) -> FarMemory:  # fmt: skip
    """`staged`: pages (bundles of all ranks) for which L2 has room; `latency`: s of a memory access of the pool."""
    spec = Prefetch(predictor, depth, coverage, accuracy, predictor_latency)
    scenario = base()
    assert scenario.pool is not None
    board = replace(scenario.pool.board, memory_latency=latency, outstanding=float("inf"))
    scenario = replace(scenario, prefetch=spec, pool=replace(scenario.pool, board=board))
    sizes = geometry(scenario)
    sizes = replace(sizes, l2_bytes=staged * sizes.layer_bytes * (1 + 1e-9), burst=sizes.page_bytes / 100)
    return FarMemory(scenario, sizes, np.random.default_rng(seed))


class ByEvents:
    """Replays every step of `memory` a second time, by events over the real stages; `held`: most pages in staging."""

    memory: FarMemory

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.steps = self.held = 0
        streamed, on_demand = far_module.streamed, far_module.on_demand

        def streamed_twice(*args: Any, **costs: Any) -> Outcome:
            far, compute, host, head, _, latency, delay, window, right, wrong, wrap, carry, _ = args
            before: Carry = deepcopy(carry)
            outcome = streamed(*args, **costs)
            memory = self.memory
            twin = replay_by_events(
                far, compute, host, head, memory.path.read, memory.path.read_cap, memory.geometry.layer_bytes, latency, delay,
                window, right, wrong, wrap, before, **costs,
            )  # fmt: skip
            self._compare(outcome, twin.end, twin.stalls, twin.held)
            return outcome

        def on_demand_twice(*args: Any, **costs: Any) -> Outcome:
            far, compute, host, head, _, latency, wave, _ = args
            outcome = on_demand(*args, **costs)
            memory = self.memory
            twin = replay_by_events(
                far, compute, host, head, memory.path.read, memory.path.read_cap, memory.geometry.layer_bytes, latency,
                pages_per_wave=wave, **costs,
            )  # fmt: skip
            self._compare(outcome, twin.end, twin.stalls, twin.held)
            return outcome

        monkeypatch.setattr(far_module, "streamed", streamed_twice)
        monkeypatch.setattr(far_module, "on_demand", on_demand_twice)

    def _compare(self, outcome: Outcome, end: float, stalls: list[float], held: int) -> None:
        assert outcome.end == pytest.approx(end, rel=1e-9)
        assert outcome.stall == pytest.approx(sum(stalls), rel=1e-9, abs=1e-9 * end)
        self.steps += 1
        self.held = max(self.held, held)


def seconds_of(memory: FarMemory, steps: list[list[int]], layer: float) -> float:
    """Duration of these steps, one layer computing `layer` seconds; what the next step does not ask for has ended."""
    total = 0.0
    for far, following in zip(steps, [*steps[1:], steps[-1]]):
        ended = sum(max(0, now - then) for now, then in zip(far, following))
        total += memory.step(far, ended / max(1, sum(far)), HOST, layer, HEAD, 0.0).duration
    return total
