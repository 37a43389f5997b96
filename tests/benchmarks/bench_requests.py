"""Time and memory by the number of requests: `scenarios/million_requests.yaml` at 10^4, 10^5 and 10^6 requests.

Each in a process of its own, so that its peak memory is its own. Beside each, in the same call, what no simulator can do
without: a bare SimPy loop with as many events, which counts. Prints; asserts nothing. Processor time, not wall time, is what
grows with the requests where a machine is shared.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCENARIO = Path(__file__).parents[2] / "scenarios" / "million_requests.yaml"
ONE = """
import json, sys, time
import simpy
from simulator import Scenario, simulate

scenario = Scenario.load(sys.argv[1], [f"workload.synthetic.requests={sys.argv[2]}"])
began = time.process_time()
summary = simulate(scenario).summary
took = time.process_time() - began
env, counted = simpy.Environment(), [0, 0]


def loop(steps):
    for _ in range(steps):
        yield env.timeout(0.01)
        counted[0] += 1
        counted[1] += 1


env.process(loop(summary["simulation"]["events"]))
began = time.process_time()
env.run()
bare = time.process_time() - began
print(json.dumps(summary["simulation"] | {"cpu_s": took, "bare_s": bare} | summary["stability"]))
"""


@pytest.mark.parametrize("requests", [10_000, 100_000, 1_000_000])
def test_requests(requests: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Not a check: one line a size."""
    done = subprocess.run([sys.executable, "-c", ONE, str(SCENARIO), str(requests)], capture_output=True, text=True, check=True)
    run = json.loads(done.stdout)
    with capsys.disabled():
        print(
            f"\n{requests:9,} requests: {run['cpu_s']:6.1f} s of processor time ({1e6 * run['cpu_s'] / requests:.0f} us each), "
            f"{run['wall_s']:.1f} s wall, {run['peak_rss_bytes'] / 1e9:.2f} GB, {run['events'] / requests:.2f} events each, "
            f"bare SimPy loop {run['bare_s']:.1f} s; mean batch {run['mean_batch']:.0f}, load {run['utilization']:.2f}, "
            f"{run['verdict']}"
        )
