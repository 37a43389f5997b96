"""Swaps beside other things that move: far reads of a pool, other replicas of a shared one, replicas in lock step.

A swap alone is in `test_batching_rules.py`. Blocks have 16 tokens, 32 KiB.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.experiments.measured import part_of, tiers_of
from simulator.experiments.simulation import Simulation
from simulator.hardware.pool import far_path
from simulator.kvcache.geometry import geometry
from simulator.metrics.recorder import FINISHED
from simulator.scheduler import lockstep, routing
from simulator.scheduler.swap import Copy, swap_of
from tests.properties.small import BLOCK, Rows, ToTheFirst, blocks, draw, pool, requests, scenario, served
from tests.scheduler.test_batching_rules import NO_WATERMARK, ONE
from tests.scheduler.test_lockstep import MOE

FAR = pool(l1=10, l3=24, link="0.5 GB/s") | NO_WATERMARK | {"kv.codec": "none"}
HOST = FAR | {"scheduler.preemption": "swap_host", "cluster.gpus.link": {"type": "pcie-gen4-x16", "bandwidth": "2 GB/s"}}
POOL = pool(l1=4, l3=40, l2=0, link="0.5 GB/s") | NO_WATERMARK | {"scheduler.preemption": "swap_pool"}
TWO = {"cluster.replicas": 2}
PAIR: Rows = [
    (0.0, 20, 14),
    (0.0, 20, 14),
]  # in 4 blocks: the second is out after 12 decodes, two blocks, back at the first's end


def carried(run: Any, stage: str, rate: float) -> float:
    return float(run.summary["utilization"][stage] * run.summary["simulation"]["simulated_s"] * rate)


def test_what_a_swap_beside_a_pool_takes() -> None:
    """10 blocks of which 4 are in L3: they come over the pool's way (0.5 GB/s) while all leave over the port (2 GB/s).

    By hand: out = max(1 us + 10 b / 2e9, latency of a read + 4 b / 0.5e9); near ones alone 1 us + 10 b / 2e9; back 2 us and
    10 b / 2e9. Would catch: far blocks that are free, or that wait until the near ones have gone.
    """
    world = scenario(HOST | {"workload.synthetic": ONE}).resolved
    swap, path = swap_of(world, geometry(world)), far_path(world)
    assert swap is not None
    latency, port = world.gpus.gpu.link.latency, 10 * BLOCK / 2e9
    both = swap.seconds([Copy(0, True, 10 * BLOCK, 4 * BLOCK)], path)
    assert both == pytest.approx(max(latency + port, path.read_latency + 4 * BLOCK / 0.5e9), rel=1e-12)
    assert both > swap.seconds([Copy(0, True, 10 * BLOCK, 0.0)], path) == pytest.approx(latency + port, rel=1e-12)
    assert swap.seconds([Copy(0, False, 10 * BLOCK, 0.0)], path) == pytest.approx(2 * latency + port, rel=1e-12)


@pytest.mark.parametrize("eviction", ["split", "lru"])
@pytest.mark.parametrize("replicas", [{}, TWO, TWO | {"cluster.kv_pool.shared": False}], ids=["one", "shared", "private"])
@pytest.mark.parametrize("predictor", ["none", "next_layer"])
def test_swaps_to_the_host_beside_far_reads(eviction: str, replicas: dict[str, Any], predictor: str) -> None:
    """All invariants hold; what went out came back; every byte of it crossed the ports, on top of what the pool moved.

    Would catch: sequences whose far blocks are lost, or stay in the pool for ever; copies that no stage carries.
    """
    settings = HOST | replicas | {"kv.placement.eviction": eviction, "prefetch": {"predictor": predictor}}
    run = served(settings, draw(3, 60, rate=3000.0))
    assert run.summary["requests"]["finished"] == 60 and run.summary["requests"]["preemptions"] > 0
    assert run.summary["tiers"]["host"]["peak_bytes"] > 0 and run.summary["prefetch"]["asked"] > 1000
    several = 1 if not replicas else 2
    pools = several if "cluster.kv_pool.shared" in replicas else 1
    through = carried(run, "gpu.port.write", several * 2e9) - carried(run, "pool.link.write", pools * 0.5e9)
    back = carried(run, "gpu.port.read", several * 2e9) - carried(run, "pool.link.read", pools * 0.5e9)
    assert through == pytest.approx(back, rel=1e-6) and round(through / BLOCK, 3) == round(through / BLOCK) > 0


def test_alone_on_a_shared_pool_copies_take_what_they_take_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows that nobody else is in the way of, to the host and to the pool; 1e-9: rounding. L2 has room for all write-back:
    that waits for a copy on a private pool and goes on beside it on a shared one.

    Would catch: flows over other stages than the ports, a copy counted twice, far blocks that wait for the near ones.
    """
    monkeypatch.setitem(routing.RULES, "round_robin", ToTheFirst)
    rows = draw(3, 40, rate=3000.0)
    swapped, together = served(POOL, rows), served(POOL | TWO, rows)
    np.testing.assert_allclose(together.columns["finished_s"], swapped.columns["finished_s"], rtol=1e-9)
    alone, shared = (served(HOST | more | {"kv.l2": blocks(200)}, rows) for more in ({}, TWO))
    np.testing.assert_allclose(shared.columns["finished_s"], alone.columns["finished_s"], rtol=1e-9)
    assert alone.summary["requests"]["preemptions"] > 0


def test_two_replicas_swap_to_one_pool_at_one_moment() -> None:
    """Both send two blocks at the same time, and fetch them at the same time: each at half of the link, so twice the bytes'
    time of one alone, and the same latencies. 1e-9: rounding.

    Would catch: a pool's way that each replica has to itself, latencies that are shared as well.
    """
    alone, both = served(POOL, PAIR), served(POOL | TWO, [row for row in PAIR for _ in range(2)])
    path = far_path(alone.scenario.resolved)
    longer = 2 * BLOCK / path.write_rate + 2 * BLOCK / path.read_rate
    one, two = (run.summary["simulation"]["simulated_s"] for run in (alone, both))
    assert two - one == pytest.approx(longer, rel=1e-9)
    assert both.summary["tiers"]["l3"]["peak_bytes"] == pytest.approx(2 * alone.summary["tiers"]["l3"]["peak_bytes"])
    assert served(POOL | TWO | {"cluster.kv_pool.shared": False}, [row for row in PAIR for _ in range(2)]).summary[
        "simulation"
    ]["simulated_s"] == pytest.approx(one, rel=1e-12)


def test_the_room_in_a_shared_pool_is_one() -> None:
    """Room for three raw blocks: the first replica's two are in, the second one's do not fit and are computed again; in pools
    of their own both would fit. Would catch: a capacity that each replica has."""
    small = POOL | {"cluster.kv_pool.board.memory": blocks(3), "kv.codec": "none"}
    rows = [row for row in PAIR for _ in range(2)]
    found = [served(small | TWO | {"cluster.kv_pool.shared": shared}, rows) for shared in (True, False)]
    again = [sum(row["prompt_tokens"] for row in run.summary["replicas"]) for run in found]
    assert again == [4 * 20 + 33, 4 * 20]
    assert found[0].summary["tiers"]["l3"]["peak_bytes"] == 2 * BLOCK


def test_groups_agree_on_what_a_shared_pool_holds() -> None:
    """Would catch: sequences that are read from a pool in place beside those that are swapped to all of it."""
    groups = [{"name": "a"}, {"name": "b", "scheduler": {"preemption": "recompute"}}]
    with pytest.raises(InputError, match="other groups read from it in place"):
        scenario(POOL | {"kv.l2": blocks(8), "cluster.groups": groups, "workload.synthetic": ONE})


def test_lost_pages_are_not_swapped() -> None:
    """Four sequences decode, with 8 far blocks, when the pool is lost for good: all are computed again, with what they had
    given out, though the host has room. Would catch: a sequence that comes back from the host with pages that nobody had.
    """
    rows: Rows = [(0.0, 60, 100)] * 4
    fault = {"what": "board_lost", "at": "3 ms"}
    world = scenario(HOST | {"kv.l1": blocks(12), "faults": [fault], "workload.synthetic": ONE}).resolved
    run = Simulation(world, requests(rows), check=True)
    run.run()
    (struck,) = run.recorder.faults
    computed = int(run.recorder.runs.arrays()["prefill"].sum())
    assert struck.recomputed == 4 and set(run.recorder.status) == {FINISHED}
    assert computed > 2 * sum(prompt for _, prompt, _ in rows)


LOCKSTEP = MOE | {"kv.l1": blocks(4), "scheduler.preemption": "swap_host"} | NO_WATERMARK


def test_a_step_of_several_waits_for_the_slowest_copy() -> None:
    """Replica 0 swaps as alone, replica 1 decodes one sequence beside it: the run is longer by the copies of replica 0, once.

    By hand: 2 blocks out and back over a port of 1 GB/s. Would catch: copies of one replica that the others do not wait for,
    a port of all GPUs for one replica.
    """
    rows: Rows = [(0.0, 20, 14), (0.0, 20, 27), (0.0, 20, 14)]  # to replicas 0, 1, 0
    link = {"type": "pcie-gen4-x16", "bandwidth": "1 GB/s", "latency": "2 us"}
    gpus = MOE["cluster.gpus"]
    slow, ideal = (served(LOCKSTEP | {"cluster.gpus": gpus | {"link": one}}, rows) for one in (link, {"type": "ideal"}))
    longer = slow.summary["simulation"]["simulated_s"] - ideal.summary["simulation"]["simulated_s"]
    assert slow.summary["requests"]["preemptions"] == 1
    assert longer == pytest.approx(2 * (2 * BLOCK / 1e9) + 3 * 2e-6, rel=1e-9)
    assert slow.columns["link_s"][1] == pytest.approx(longer, rel=1e-9)  # of the one that only waits


@pytest.mark.parametrize("batching", ["continuous", "prefill_first", "static"])
def test_blocks_in_use_are_those_of_the_replicas(batching: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tables say of L1 in each step is what the replicas had then, with sequences that wait while others' prompts run.

    Would catch: steps of one replica in which sequences are held that count for another.
    """
    settings = MOE | {"kv.l1": blocks(16), "scheduler.batching": batching, "scheduler.preemption": "swap_host"} | NO_WATERMARK
    seen: list[int] = []
    priced = lockstep.shared_step

    def noting(replicas: Any, plans: Any) -> Any:
        seen.append(sum(replica.residency.l1_used for replica in replicas))
        return priced(replicas, plans)

    monkeypatch.setattr(lockstep, "shared_step", noting)
    rows = draw(5, 60, 3000.0)
    world = scenario(settings | {"workload.synthetic": ONE}).resolved
    run = Simulation(world, requests(rows))
    run.run()
    held = tiers_of(part_of(run.servers[0], run.requests))
    np.testing.assert_array_equal(held["l1"][1], np.array(seen) * BLOCK)
    assert sum(run.recorder.preemptions) > 0
