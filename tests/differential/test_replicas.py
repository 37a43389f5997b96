"""Several replicas behind a router against reference servers: which one gets each request, and what it does with it."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.experiments.streams import stream
from simulator.scheduler.routing import RULES
from tests.differential.routers import router
from tests.differential.served import differences, referred, simulated
from tests.differential.worlds import World, chained, drawn, in_sessions, pick

SLOWER = {"type": "a100-80gb-sxm", "memory_bandwidth": "1 TB/s"}


def world_of(rule: str, seed: int) -> World:
    rng = np.random.default_rng(seed)
    world = drawn(rng, batching=pick(rng, "continuous", "continuous", "prefill_first"))
    swaps = world.settings["scheduler.preemption"] != "recompute"
    if not swaps and (rule == "prefix_aware" or rng.integers(2)):
        world = chained(rng, world)
        world.settings["kv.sharing"] = {"kind": "prefix"}
    count = int(rng.integers(2, 4))
    if rng.integers(2):
        world.settings["cluster.groups"] = [{"name": "a", "replicas": count}, {"name": "b", "gpus": SLOWER}]
    else:
        world.settings["cluster.replicas"] = count
    world.settings["cluster.routing"] = rule
    return in_sessions(rng, world) if rule == "session_sticky" or rng.integers(3) == 0 else world


def agree(rule: str, seeds: range) -> None:
    twins, shared = 0, 0
    for seed in seeds:
        world = world_of(rule, seed)
        one, coalesced = simulated(world), simulated(world, coalesce=True)
        choose = router(rule, stream(one.scenario.seed, "routing"))
        servers, jobs = referred(world, one, choose)
        found = differences(one, servers, jobs)
        if found and any(server.blocks.twins for server in servers):
            twins += 1
            continue
        assert not found, "\n".join([f"seed {seed}: {world}", *found])
        assert [server.requests for server in one.servers] == [server.requests for server in coalesced.servers], seed
        for name in ("status", "admitted", "first_token", "finished", "preemptions", "cached_tokens"):
            ours, theirs = (getattr(run.recorder, name) for run in (coalesced, one))
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{name} of seed {seed} in runs of steps")
        shared += sum(bool(server.requests) for server in one.servers) > 1
    assert shared > len(seeds) / 2 and twins <= len(seeds) / 100


@pytest.mark.parametrize("rule", RULES)
def test_does_what_the_reference_does(rule: str) -> None:
    """Would catch: a router that sees a replica as it was or will be, a measure that leaves somebody out, ties to the last."""
    agree(rule, range(8))


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_in_many_more_worlds(rule: str) -> None:
    """The same in 150 others for each rule."""
    agree(rule, range(1000, 1150))
