"""Speed: simulated output tokens per wall second, with all per-request metrics on, beside a bare SimPy loop.

Prints medians of five runs; asserts nothing about time (machines differ and are shared). The bare loop does what no
simulator can do without: one event a step and three additions; it is timed in the same call, between the runs.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from statistics import median
from time import perf_counter

import pytest
import simpy

from simulator import Scenario, simulate

SCENARIOS = Path(__file__).parents[2] / "scenarios"
RUNS = 5
CASES = {
    "gpu_busy": ("gpu_busy.yaml", ()),
    "quickstart": ("quickstart.yaml", ()),
    "quickstart, all at once": ("quickstart.yaml", ("workload.trace.arrivals=at_once",)),
    "cxl_next_layer, all at once": ("cxl_next_layer.yaml", ("workload.trace.arrivals=at_once",)),
}


def bare_loop(steps: int, batch: float) -> float:
    """Tokens per second of a SimPy loop that only counts."""
    env, state = simpy.Environment(), [0.0, 0.0]

    def engine() -> Generator[simpy.Event, None, None]:
        for _ in range(steps):
            yield env.timeout(0.01 + 1e-9 * state[0])
            state[0] += batch
            state[1] += batch

    env.process(engine())
    began = perf_counter()
    env.run()
    return state[1] / (perf_counter() - began)


@pytest.mark.parametrize("name", CASES)
def test_speed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Not a check: one line a scenario."""
    file, settings = CASES[name]
    scenario = Scenario.load(SCENARIOS / file, settings)
    rates, bare = [], []
    for _ in range(RUNS):
        run = simulate(scenario).summary["simulation"]
        rates.append(run["output_tokens_per_wall_s"])
        bare.append(bare_loop(run["steps"], run["mean_batch"]))
    with capsys.disabled():
        print(
            f"\n{name:28} {median(rates) / 1e6:7.3f} M tokens/s   mean batch {run['mean_batch']:5.1f}   "
            f"{run['events'] / run['steps']:.2f} events/step   bare SimPy loop {median(bare) / 1e6:.1f} M tokens/s "
            f"({median(rates) / median(bare):.2f} of it)"
        )
