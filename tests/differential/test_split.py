"""Prefill and decode on different replicas against the reference: when each prompt's KV is there, and every step."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.experiments.streams import stream
from simulator.hardware.gpu import StepModel
from simulator.scheduler.disaggregation import Disaggregated
from tests.differential.reference import Server
from tests.differential.routers import router
from tests.differential.served import jobs_of, reference_of, simulated, steps_differ
from tests.differential.split import Split, Times
from tests.differential.worlds import TENANTS, World, chained, drawn, pick


def world_of(seed: int) -> World:
    rng = np.random.default_rng(seed)
    world = drawn(rng, batching=pick(rng, "continuous", "prefill_first"), preemption=pick(rng, "recompute", "swap_host"))
    if world.settings["scheduler.preemption"] == "recompute" and rng.integers(2):
        world = chained(rng, world)
        world.settings["kv.sharing"] = {"kind": "prefix"}
    kinds = [{"role": "prefill", "replicas": int(rng.integers(1, 3))}, {"role": "decode", "replicas": int(rng.integers(1, 3))}]
    bandwidth, latency = pick(rng, "20 MB/s", "100 MB/s", "1 GB/s"), pick(rng, "0 s", "30 us")
    world.settings |= {"cluster.groups": kinds, "cluster.routing": pick(rng, "round_robin", "least_outstanding", "least_kv")}
    world.settings["cluster.transfer"] = {
        "link": {"type": "ideal", "bandwidth": bandwidth, "latency": latency}, "threshold": pick(rng, "1 token", "9 tokens"),
    }  # fmt: skip
    world.settings["cluster.gpus"] = {"type": "a100-80gb-sxm", "link": "ideal"}
    return world


def times_of(model: StepModel) -> Times:
    """Of a step of prompts alone: s to its first layer, of a layer, of what comes after the last one."""

    def times(server: Server) -> tuple[float, float, float]:
        pieces = [(take, job.cached) for job, take in server.work]
        rows, tokens = sum(job.cached + take == job.goal for job, take in server.work), sum(take for take, _ in pieces)
        layer = model.layer_time(tokens, 1, 0, model.prefill_attention(pieces, contexts=()).time)
        return model.host_time(rows), layer, model.head(rows).total

    return times


def agree(seeds: range) -> None:
    crossed = 0
    for seed in seeds:
        world = world_of(seed)
        one = simulated(world)
        way, model = one.scenario.cluster.transfer, one.engine.model
        assert isinstance(one.frontend, Disaggregated) and way is not None
        names = ("routing prompts", "routing")
        rule = one.scenario.cluster.routing
        prompts, tokens = (router(rule, stream(one.scenario.seed, name)) for name in names)
        servers = [reference_of(server.engine) for server in one.servers]
        prefill = [server for server, other in zip(servers, one.servers, strict=True) if other.role == "prefill"]
        decode = servers[len(prefill) :]
        for server in decode:
            server.keeps_prefixes = False

        jobs = jobs_of(world)
        weights = [float(tenant.get("weight", 1)) for tenant in TENANTS]
        token, layers = one.scenario.model.kv_bytes_per_token, one.geometry.layers
        split = Split(
            jobs, prefill, decode, (prompts, tokens), times_of(model), way.link.read_bandwidth, way.link.latency, token,
            layers, way.threshold, weights,
        )  # fmt: skip
        split.run()
        found = steps_differ(one, servers, 1e-9)
        assert not found, "\n".join([f"seed {seed}: {world}", *found])
        assert set(one.frontend.remote) == set(split.there)
        for request, at in one.frontend.remote.items():
            assert at == pytest.approx(split.there[request], rel=1e-9)
        crossed += len(split.there)
    assert crossed > 2 * len(seeds)


def test_does_what_the_reference_does() -> None:
    """Would catch: bytes that wait for too much or too little, a link shared otherwise than by weight, KV that comes early,
    a prompt that decodes where it was computed. 1e-9: the link's clock is summed in another order."""
    agree(range(30))


@pytest.mark.slow
def test_in_many_more_worlds() -> None:
    """The same in 500 others."""
    agree(range(1000, 1500))
