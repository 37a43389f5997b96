"""One replica with far memory against the reference server: who runs, in the time that the simulator's own steps take.

Blocks in the pool count for admission and growth as those in L1 do, whatever moves between them, and however long that takes.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.differential.cluster import serve
from tests.differential.served import jobs_of, replaying, simulated, steps_differ
from tests.differential.worlds import World, drawn, in_sessions, pick
from tests.properties.small import pool


def world_of(seed: int) -> World:
    rng = np.random.default_rng(seed)
    world = drawn(rng, preemption=pick(rng, "recompute", "recompute", "swap_host", "swap_pool"))
    size = world.block / 16
    near, far = int(rng.integers(2, 7)), int(rng.integers(1, 9))
    world.settings |= pool(l1=size * near, l3=size * far, l2=2, link=pick(rng, "0.2 GB/s", "5 GB/s"))
    world.settings["kv.burst"] = "1 KiB"
    if world.settings["scheduler.preemption"] != "swap_pool":
        world.settings["kv.placement.eviction"] = pick(rng, "split", "lru")
        world.settings["prefetch.predictor"] = pick(rng, "none", "next_layer")
    return in_sessions(rng, world) if rng.integers(3) == 0 else world


def agree(seeds: range) -> None:
    preempted = 0
    for seed in seeds:
        world = world_of(seed)
        simulation = simulated(world)
        server, jobs = replaying(simulation), jobs_of(world)
        serve(jobs, [server], None, world.after, world.delay)
        found = steps_differ(simulation, [server], 1e-9)
        assert not found, "\n".join([f"seed {seed}: {world}", *found])
        assert list(simulation.recorder.preemptions) == [job.preempted for job in jobs], seed
        preempted += sum(job.preempted for job in jobs)
    assert preempted > len(seeds) / 10


def test_does_what_the_reference_does() -> None:
    """Would catch: blocks of one tier that do not count, a batch that grows beyond all tiers, preemption of another. 1e-9:
    starts are sums of reported durations."""
    agree(range(30))


@pytest.mark.slow
def test_in_many_more_worlds() -> None:
    """The same in 400 others."""
    agree(range(1000, 1400))
