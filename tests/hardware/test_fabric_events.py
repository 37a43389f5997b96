"""The fluid fabric in the event queue: how many events a flow costs, and that hash order plays no part."""

from __future__ import annotations

import subprocess
import sys
from math import inf
from pathlib import Path

import simpy

from simulator.hardware.fabric import Fabric, Stage


def test_events_per_flow() -> None:
    """A flow alone costs at most 6 events with latency, 5 without; flows that each start as another ends cost 3.

    Would catch: an alarm for every flow at every change, which grows with the number in flight.
    """

    def count(chains: int, length: int, latency: float) -> int:
        env, events = simpy.Environment(), 0
        fabric, link = Fabric(env), Stage("link", 10.0)

        def again(left: int) -> None:
            flow = fabric.move(10.0 + left % 7, {link: 1.0}, latency=latency)
            if left > 1:
                flow.done.callbacks.append(lambda _: again(left - 1))

        for chain in range(chains):
            again(length + chain)
        while env.peek() < inf:
            env.step()
            events += 1
        return events

    assert count(1, 1, 0.0) <= 5
    assert count(1, 1, 1.0) <= 6
    assert count(1, 100, 0.0) <= 3 * 100 + 2
    assert count(8, 100, 0.0) <= 3 * sum(range(100, 108)) + 2


HASH_PROGRAM = """
import simpy
from simulator.hardware.fabric import Fabric, Stage
env = simpy.Environment()
fabric = Fabric(env)
stages = [Stage(name, 3.0 + i / 7) for i, name in enumerate("abcdefgh")]
for i in range(60):
    path = {stages[(i * k) % 8]: 1 / k for k in (1, 3, 5)}
    flow = fabric.move(10 + i / 3, path, priority=i % 2, latency=i / 11, tag=f"flow {i}")
    flow.done.callbacks.append(lambda event: print(event.value.tag, env.now.hex()))
env.run()
print([stage.carried.hex() for stage in stages])
"""


def test_hash_seed_does_not_matter() -> None:
    """Two interpreters with different PYTHONHASHSEED print the same bits.

    Would catch: stages or flows iterated in hash order.
    """
    outputs = [
        subprocess.run(
            [sys.executable, "-c", HASH_PROGRAM],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "4242")
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].count("flow") == 60
