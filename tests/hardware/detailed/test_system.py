"""The wired devices of a scenario: unloaded latency part by part, peak bandwidth, symmetry, promotion, load curves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import simpy

from simulator.hardware.detailed.system import FarSystem, slices
from simulator.hardware.fabric import DEMAND, PREFETCH
from simulator.hardware.pool import far_path
from simulator.scenario import Scenario
from tests.properties.small import ROOT

POOL = "cluster.kv_pool"
BURST = 65536.0
TOPOLOGIES: dict[str, list[str]] = {
    "direct": [],
    "one GPU": ["cluster.gpus={type: h200-141gb-sxm, count: 2}", "kv.l1=1 GiB"],
    "switch": [f"{POOL}.switch=cxl-2.0-switch"],
    "slow switch, two links a board": [f"{POOL}.switch=cxl-2.0-switch-slow", f"{POOL}.links_per_board=2"],
    "tree": [f"{POOL}.switch=cxl-2.0-switch", f"{POOL}.leaf=pcie-gen4-switch", f"{POOL}.leaves=2"],
    "pairs": [f"{POOL}.gpus_per_port=2", f"{POOL}.count=2"],
    "decompressed on the GPU": ["kv.codec={type: int8, compress_at: gpu, decompress_at: gpu}"],
    "raw": ["kv.codec=none"],
    "under load": [
        f"{POOL}.switch={{type: cxl-2.0-switch, load_factor: 0.32}}", f"{POOL}.shared_by=2", f"{POOL}.others_load=0.4",
    ],
}  # fmt: skip


def load(*settings: str) -> Any:
    base = [f"{POOL}.board=agilex-7-buildable", "kv.burst=64 KiB", f"{POOL}.board.tlb_walk=0 s"]
    return Scenario.load(ROOT / "scenarios" / "quickstart.yaml", set=[*base, *settings]).resolved


def system(scenario: Any, train: int = 1) -> FarSystem:
    return FarSystem(simpy.Environment(), scenario, 8192.0, np.random.default_rng(1), train)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_unloaded_latency_is_the_sum_of_its_parts(name: str) -> None:
    """One burst to one GPU: latency of the path, part by part, and the burst at its slowest device. To the nanosecond.

    Would catch: a device left out of a topology, a crossing counted once, a burst stored and forwarded.
    """
    scenario = load(*TOPOLOGIES[name])
    path, devices = far_path(scenario), system(scenario)
    devices.ranks = 1  # ask for one rank only
    transfer = devices.read(BURST, PREFETCH, 0.0)
    devices.env.run(until=transfer.done)
    slowest = path.burst_rate
    if scenario.pool.shared_by > 1:
        slowest *= 0.6
    parts = sum(seconds for _, seconds in path.read_parts)
    assert devices.env.now == pytest.approx(parts + BURST / slowest, abs=1e-9)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_peak_bandwidth_is_the_bottleneck(name: str) -> None:
    """40 MB per slice at once, in class order: the rate of the path's scarcest stage.

    Tolerance 3 %: latency, and ranks that end one burst apart. Would catch: two bursts at once in a stage, an idle stage.
    """
    scenario = load(*TOPOLOGIES[name], f"{POOL}.board.outstanding=16 MiB")
    path, devices = far_path(scenario), system(scenario)
    size = 40e6
    transfer = devices.read(size, PREFETCH, 0.0)
    devices.env.run(until=transfer.done)
    assert devices.slices * size / (devices.env.now - path.read_latency) == pytest.approx(path.read_rate, rel=0.03)


def test_a_slice_stands_for_the_whole() -> None:
    """Four boards and eight GPUs as one of four slices, and whole: the same time to within a burst at the port.

    Would catch: bytes of a slice that are not 1/n, an uneven spread over boards and ranks.
    """
    scenario = load()
    sliced, whole = system(scenario), system(load(f"{POOL}.placement=hash"))
    assert slices(scenario) == 4 and (sliced.count, sliced.ranks) == (1, 2)
    assert (whole.count, whole.ranks) == (4, 8)
    even = system(scenario)
    times = []
    for devices in (sliced, even):
        transfer = devices.read(16e6 / devices.slices, DEMAND, 0.0)
        devices.env.run(until=transfer.done)
        times.append(devices.env.now)
    assert times[0] == times[1]
    for devices in (sliced, whole):
        transfer = devices.read(64e6 / devices.slices, DEMAND, 0.0)
        begin = devices.env.now
        devices.env.run(until=transfer.done)
        times.append(devices.env.now - begin)
    assert times[2] < times[3] < 1.25 * times[2]  # random placement: the fullest board is last


def test_least_loaded_and_round_robin_are_even() -> None:
    """Would catch: a placement that leaves a board idle."""
    for placement in ("round_robin", "least_loaded"):
        devices = system(load(f"{POOL}.placement={placement}", f"{POOL}.count=3"))
        transfer = devices.read(48 * BURST, DEMAND, 0.0)
        devices.env.run(until=transfer.done)
        assert [board.read_ring.bursts for board in devices.boards] == [16, 16, 16]


def test_demand_overtakes_and_promotion_raises() -> None:
    """A demand behind a long prefetch is back long before it; a promoted prefetch before an earlier one.

    Would catch: one queue for all, promotion that only changes a label.
    """
    devices = system(load())
    first, second = (devices.read(20e6, PREFETCH, number * 1e9) for number in range(2))
    demand = devices.read(1e6, DEMAND, 5e9)
    devices.env.run(until=demand.done)
    assert not first.done.triggered and devices.env.now < 0.1 * 20e6 / 25e9 + 20e-6
    devices.promote(second)
    devices.env.run(until=second.done)
    assert not first.done.triggered
    devices.env.run(until=first.done)


def test_a_cancelled_prefetch_is_not_moved() -> None:
    """Would catch: bursts that cross for nobody, a ring that stays full."""
    devices = system(load())
    gone, wanted = devices.read(20e6, PREFETCH, 0.0), devices.read(1e6, PREFETCH, 1e9)
    devices.env.run(until=20e-6)
    devices.cancel(gone)
    devices.env.run(until=wanted.done)
    assert devices.env.now < 0.2 * 20e6 / 25e9
    assert not gone.done.triggered


def test_compressed_sizes_may_vary() -> None:
    """Uniform within 0.9 of the mean: the mean stays what it is, but for what would grow and is stored raw.

    Would catch: a spread that changes the ratio, stored bytes above raw ones.
    """
    scenario = load("kv.codec.spread=0.9")
    devices = system(scenario)
    transfer = devices.read(2000 * BURST, PREFETCH, 0.0)
    devices.env.run(until=transfer.done)
    stored, ratio = sum(board.memory.carried for board in devices.boards), scenario.kv.codec.ratio
    draws = np.random.default_rng(2).uniform(0.1, 1.9, 100_000) / ratio
    assert stored / (2000 * BURST) == pytest.approx(float(np.minimum(draws, 1.0).mean()), rel=0.03)
    assert devices.boards[0].decompress.bypassed > 0


def test_writes_beside_reads() -> None:
    """Write-back arrives in the end, and reads do not notice it much.

    Tolerance 5 %: a write in service is not interrupted. Would catch: reads behind writes in the memory.
    """
    devices = system(load())
    alone = system(load())
    read = alone.read(20e6, DEMAND, 0.0)
    alone.env.run(until=read.done)
    written = devices.write(20e6, 1e12)
    read = devices.read(20e6, DEMAND, 0.0)
    devices.env.run(until=read.done)
    assert devices.env.now == pytest.approx(alone.env.now, rel=0.05)
    devices.env.run(until=written.done)


def sojourns(devices: FarSystem, gaps: Any) -> list[float]:
    """Seconds from asking to delivery of single bursts that are asked for at these distances."""
    env, times = devices.env, []

    def source() -> Any:
        for number, gap in enumerate(gaps):
            yield env.timeout(gap)
            began, transfer = env.now, devices.read(BURST, PREFETCH, number * BURST)
            transfer.done.callbacks.append(lambda _, began=began: times.append(env.now - began))

    env.process(source())
    env.run()
    return times


def test_latency_grows_with_the_load_of_a_device() -> None:
    """Latency-bandwidth curve: bursts at random times, mean time in the system at loads from 0.1 to 0.9 of the link.

    M/D/1: L0 + s + s u / (2 (1 - u)); tolerance 15 % of the queueing, 3,000 bursts a point. Would catch: a curve that falls,
    a queue that does not form.
    """
    scenario = load(f"{POOL}.board.outstanding=1 GiB")
    path, service = far_path(scenario), BURST / scenario.pool.link.read_bandwidth
    means = []
    for use in (0.1, 0.3, 0.5, 0.7, 0.9):
        devices = system(scenario)
        devices.ranks = 1
        gaps = np.random.default_rng(7).exponential(service / use, 3000)
        means.append(float(np.mean(sojourns(devices, gaps))))
        queueing = service * use / (2 * (1 - use))
        assert means[-1] == pytest.approx(path.read_latency + service + queueing, abs=0.15 * queueing + 0.02 * service)
    assert means == sorted(means)


@pytest.mark.parametrize("boards, gpus, count", [(3, 2, 100), (5, 2, 25), (7, 2, 152), (3, 8, 57), (5, 8, 19)])
def test_trains_load_boards_as_their_descriptors_do(boards: int, gpus: int, count: int) -> None:
    """`count` descriptors to each rank, singly and in trains: the same number, and boards get the same but for one descriptor a
    rank.

    Would catch: seven trains on two boards, which take as long as eight.
    """
    scenario = load(f"cluster.gpus={{type: h200-141gb-sxm, count: {gpus}}}", "kv.l1=1 GiB", f"{POOL}.count={boards}")
    carried = []
    for train in (1, 8):
        devices = system(scenario, train)
        move = devices.read(count * BURST * devices.ranks, PREFETCH, 0.0)
        devices.env.run()
        assert sum(burst.descriptors for burst in move.bursts) == count * devices.ranks
        carried.append([board.read_mover.carried for board in devices.boards])
    assert carried[1] == pytest.approx(carried[0], abs=BURST * gpus)
