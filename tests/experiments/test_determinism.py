"""INV-DETERMINISM: the same scenario and seed give the same bytes, whatever else runs and however Python hashes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from simulator.experiments.run import run_scenario
from simulator.experiments.simulation import Simulation, stream
from simulator.scenario import Scenario
from simulator.workload.synthetic import build
from tests.properties.small import ROOT, lasting, pool, same_requests, scenario, served

MEASURED = ("wall_s", "output_tokens_per_wall_s", "peak_rss_bytes")  # of `simulation`: the machine, not the model
WORLD = pool(l1=12, l3=60, l2=4) | {
    "kv.codec": {"ratio": 2, "compress_at": "gpu", "decompress_at": "gpu"},
    "prefetch": {"predictor": "statistical", "depth": 2, "coverage": 0.8, "accuracy": 0.7},
    "workload.synthetic": {
        "requests": 40,
        "arrivals": {"process": "poisson", "rate": "2000 /s"},
        "input": {"dist": "uniform", "low": "1 token", "high": "120 tokens"},
        "output": {"dist": "uniform", "low": "1 token", "high": "50 tokens"},
    },
}
RUN = """
import json, sys
from simulator.experiments.run import run_scenario
from simulator.scenario import Scenario
result = run_scenario(Scenario.load(sys.argv[1], set=sys.argv[2:]), check=True)
print(json.dumps(result.summary))
print(result.requests.to_csv())
"""


def test_twice_in_one_process():
    """Would catch: a random stream shared between runs, a cache that changes results, state kept in a module."""
    one, two = served(WORLD), served(WORLD)
    same_requests(one, two)
    assert lasting(one.summary) == lasting(two.summary)
    for name, value in one.summary["simulation"].items():
        assert name in MEASURED or two.summary["simulation"][name] == value


def test_hash_seed_changes_nothing():
    """Quickstart, 40 requests at once, under PYTHONHASHSEED 0 and 1.

    Would catch: a set or a hash whose order reaches the results.
    """
    outputs = []
    for seed in ("0", "1"):
        command = [sys.executable, "-c", RUN, str(ROOT / "scenarios" / "quickstart.yaml")]
        command += ["workload.trace.limit=40", "workload.trace.rate_scale=2"]
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        summary, _, table = printed.partition("\n")
        values = json.loads(summary)
        for name in MEASURED:
            del values["simulation"][name]
        outputs.append((json.dumps(values), table))
    assert outputs[0] == outputs[1]


def test_interleaved_simulations_do_not_touch_each_other():
    """Two simulations, stepped in turn, give what each gives alone.

    Would catch: an environment, a recorder, a counter or a random stream that is shared.
    """
    worlds = [scenario(WORLD | {"seed": seed}).resolved for seed in (1, 2)]

    def made(index: int) -> Simulation:
        world = worlds[index]
        requests = build(world.workload, stream(world.seed, "arrivals"), stream(world.seed, "lengths"))
        return Simulation(world, requests)

    together = [made(0), made(1)]
    for simulation in together:
        simulation.env.process(simulation.engine.run())
    while any(simulation.env.peek() < np.inf for simulation in together):
        for simulation in together:
            if simulation.env.peek() < np.inf:
                simulation.env.step()
    for index, simulation in enumerate(together):
        alone = made(index)
        alone.run()
        assert list(alone.recorder.finished) == list(simulation.recorder.finished)
        assert list(alone.recorder.first_token) == list(simulation.recorder.first_token)
        for name, column in alone.recorder.runs.arrays().items():
            assert column.tobytes() == simulation.recorder.runs.arrays()[name].tobytes(), name


def test_seed_counts():
    """Would catch: a seed that is read and ignored."""
    assert served(WORLD).columns["arrival_s"][5] != served(WORLD | {"seed": 1}).columns["arrival_s"][5]


@pytest.mark.parametrize("predictor", ["none", "next_layer", "oracle"])
def test_arms_share_their_random_numbers(predictor: str):
    """Would catch: a policy that draws more numbers and thereby moves arrivals or lengths (no paired comparison then)."""
    one, other = served(WORLD), served(WORLD | {"prefetch": {"predictor": predictor}})
    for name in ("arrival_s", "input_tokens", "output_tokens"):
        np.testing.assert_array_equal(one.columns[name], other.columns[name])


def test_progress_changes_no_number():
    """Would catch: a run that is stepped for its progress display and ends differently."""
    told: list[Any] = []
    quiet = served(WORLD)
    shown = run_scenario(scenario(WORLD), check=True, progress=lambda *what: told.append(what))
    same_requests(quiet, shown)
    assert lasting(quiet.summary) == lasting(shown.summary)
    assert told


def test_events_of_quickstart():
    """At most 1.05 events a step, and every step of a busy pool is one; no request is lost.

    Would catch: an event per layer, transfer or request, idle periods stepped through.
    """
    quickstart = Scenario.load(ROOT / "scenarios" / "quickstart.yaml", set=["workload.trace.limit=150"])
    summary = run_scenario(quickstart, check=True).summary
    assert summary["simulation"]["events"] <= 1.05 * summary["simulation"]["steps"]
    assert summary["requests"]["finished"] == 150
    assert summary["prefetch"]["asked"] > 0
