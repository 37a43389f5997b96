"""The way between pool and GPUs: which stages, with which weights, what bounds it, and what writes get beside reads."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import InputError
from simulator.experiments.explain import explain
from simulator.hardware.pool import FarPath, far_path
from simulator.scenario import Scenario
from simulator.scenario.resolved import Board, Codec, Link, ScenarioResolved, Switch

QUICKSTART = Path(__file__).parents[2] / "scenarios" / "quickstart.yaml"
RATIO = 4.0


@cache
def base() -> ScenarioResolved:
    return Scenario.load(QUICKSTART).resolved


def wire(name: str, read: float, write: float, latency: float, requests: float = 0.0, load_factor: float = 0.0) -> Link:
    return Link(name, read, write, latency, requests, inf, load_factor, 0.0, 0.0)


def path(
    compress_at: str = "fpga", decompress_at: str = "fpga", switch: Switch | None = None, boards: int = 2, ranks: int = 4,
    board: dict[str, Any] | None = None, link: Link | None = None, port: Link | None = None, staging: float = 500.0,
    links_per_board: int = 3, ratio: float = RATIO, burst: float = 1e-9, **topology: Any,
) -> FarPath:  # fmt: skip
    """Two boards with three links each, four GPUs; bytes/s and seconds in numbers that are easy to follow."""
    scenario = base()
    assert scenario.pool is not None
    spec = {
        "memory_bandwidth": 100.0, "engines": 5, "engine_rate": 40.0, "dma_bandwidth": 150.0, "outstanding": inf,
        "memory_latency": 3.0, "translation": 0.5, "directory": 0.25, "engine_fill": 2.0,
    } | (board or {})  # fmt: skip
    device: Board = replace(scenario.pool.board, **spec)
    gpu = replace(scenario.gpus.gpu, staging_bandwidth=staging, link=port or wire("port", 80.0, 70.0, 0.125))
    link = link or wire("link", 60.0, 50.0, 1.0)
    return far_path(
        replace(
            scenario,
            pool=replace(
                scenario.pool, board=device, boards=boards, links_per_board=links_per_board, link=link, switch=switch,
                **topology,
            ),
            gpus=replace(scenario.gpus, gpu=gpu, count=ranks, tensor_parallel=ranks),
            kv=replace(scenario.kv, codec=Codec(ratio, compress_at, decompress_at), burst=burst),
        )
    )  # fmt: skip


def stages(way: tuple[tuple[str, float, float], ...]) -> dict[str, tuple[float, float]]:
    assert len({name for name, _, _ in way}) == len(way)
    return {name: (rate, weight) for name, rate, weight in way}


def test_reads_decompressed_on_the_board() -> None:
    """Compressed out of memory, raw from the engines on. 2 boards, 6 links, 4 ports.

    Would catch: a link that profits from a ratio it never sees, one board instead of two, a link a board.
    """
    assert stages(path().read) == {
        "pool.memory": (200.0, 0.25),
        "pool.decompress": (2 * 5 * 40.0, 1.0),
        "pool.dma.read": (300.0, 1.0),
        "pool.link.read": (6 * 60.0, 1.0),
        "gpu.port.read": (4 * 80.0, 1.0),
        "gpu.staging": (4 * 500.0, 1.0),
    }


def test_reads_decompressed_on_the_gpu() -> None:
    """Compressed all the way, no engines.

    Would catch: raw bytes on the link, a board that decompresses as well.
    """
    way = stages(path(decompress_at="gpu").read)
    assert "pool.decompress" not in way
    assert {weight for _, weight in way.values()} == {0.25}


def test_writes() -> None:
    """The other direction of links and ports; the engines of the way in; compressed where the compressor has passed.

    Would catch: read bandwidth for writes, engines that reads use, a direction of the ratio turned round.
    """
    assert stages(path().write) == {
        "gpu.port.write": (4 * 70.0, 1.0),
        "pool.link.write": (6 * 50.0, 1.0),
        "pool.dma.write": (300.0, 1.0),
        "pool.compress": (400.0, 1.0),
        "pool.memory": (200.0, 0.25),
    }
    on_gpu = stages(path(compress_at="gpu").write)
    assert "pool.compress" not in on_gpu and {weight for _, weight in on_gpu.values()} == {0.25}


def test_compress_and_decompress_are_placed_independently() -> None:
    """Would catch: one switch for both directions."""
    mixed = path(compress_at="gpu", decompress_at="fpga")
    assert "pool.decompress" in stages(mixed.read) and "pool.compress" not in stages(mixed.write)
    assert stages(mixed.read)["pool.link.read"][1] == 1.0 and stages(mixed.write)["pool.link.write"][1] == 0.25


def test_a_switch_adds_its_ports_and_its_latency() -> None:
    """Uplinks x port rate each way; its latency once for the request and once for the data.

    Would catch: a switch that is free, ports shared by both directions.
    """
    switch = Switch("switch", 3, 16, 90.0, 0.5, 0.0, inf, "round_robin", 10.0, 1000.0)
    with_switch, without = path(switch=switch), path()
    assert stages(with_switch.read)["switch.read"] == stages(with_switch.write)["switch.write"] == (270.0, 1.0)
    assert with_switch.read_latency == pytest.approx(without.read_latency + 2 * 0.5)
    assert with_switch.read_rate == 270.0 and with_switch.bound == "switch.read" and with_switch.bound_kind == "link"


def test_latency_of_a_read() -> None:
    """Link and port there and back (2 x 1.125), translation, directory, memory (3.75), the engine's fill (2).

    Would catch: one way only, a fill that is paid although the GPU decompresses.
    """
    assert path().read_latency == pytest.approx(2.25 + 3.75 + 2.0)
    assert path(decompress_at="gpu").read_latency == pytest.approx(2.25 + 3.75)


@pytest.mark.parametrize(
    ("slow", "bound", "kind", "rate"),
    [
        ({"board": {"memory_bandwidth": 10.0}}, "pool.memory", "pool_memory", 2 * 10.0 * RATIO),
        ({"board": {"engine_rate": 1.0}}, "pool.decompress", "decompress", 2 * 5 * 1.0),
        ({"board": {"dma_bandwidth": 20.0}}, "pool.dma.read", "dma", 2 * 20.0),
        ({"link": wire("slow", 5.0, 50.0, 1.0)}, "pool.link.read", "link", 6 * 5.0),
        ({"port": wire("slow", 5.0, 50.0, 0.125)}, "gpu.port.read", "link", 4 * 5.0),
        ({"staging": 3.0}, "gpu.staging", "staging", 4 * 3.0),
        ({"board": {"outstanding": 64.0}}, "outstanding", "dma", 2 * 64.0 / 8.0),
    ],
)
def test_the_scarcest_stage_bounds_the_reads(slow: dict[str, Any], bound: str, kind: str, rate: float) -> None:
    """In raw bytes: memory counts its ratio. Outstanding: 2 boards x 64 bytes in 8 s.

    Would catch: wire bytes compared with raw bytes, a bottleneck with another one's name.
    """
    way = path(**slow)
    assert (way.bound, way.bound_kind) == (bound, kind)
    assert way.read_rate == pytest.approx(rate)


def test_littles_law_counts_wire_bytes() -> None:
    """2 x 60 bytes outstanding over 8 s: 15 raw bytes/s; compressed 4:1 and 6 s: 80.

    Would catch: a ratio that does not help compressed requests, one board's descriptors for all.
    """
    assert path(board={"outstanding": 60.0}).read_cap == pytest.approx(120 / 8.0)
    assert path(board={"outstanding": 60.0}, decompress_at="gpu").read_cap == pytest.approx(120 * RATIO / 6.0)
    assert path().read_cap == inf


def test_without_limits_everything_is_free() -> None:
    """`inf` everywhere is a valid pool.

    Would catch: inf / inf, a finite number that stayed in.
    """
    free = wire("free", inf, inf, 0.0)
    board = {
        "memory_bandwidth": inf, "engine_rate": inf, "dma_bandwidth": inf, "memory_latency": 0.0, "translation": 0.0,
        "directory": 0.0, "engine_fill": 0.0,
    }  # fmt: skip
    way = path(board=board, link=free, port=free, staging=inf)
    assert way.read_rate == way.write_rate == way.write_rate_reading == way.burst_rate == inf
    assert way.read_latency == way.write_latency == 0.0
    assert way.rates() == []


def test_writes_beside_reads_share_the_memory_channels() -> None:
    """Channels of 200 wire bytes/s. Reads run at 280 raw (the ports), 70 wire; writes alone at 280, beside them at

    min(280, (200 - 70) x 4 = 520). With channels of 100: reads take 70, writes get 30 x 4 = 120.
    Would catch: links taken for half duplex, reads that yield to writes, raw bytes in the memory.
    """
    port = wire("port", 70.0, 70.0, 0.125)
    wide = path(port=port)
    assert (wide.read_rate, wide.write_rate, wide.write_rate_reading) == (280.0, 280.0, 280.0)
    narrow = path(port=port, board={"memory_bandwidth": 50.0})
    assert narrow.read_rate == 280.0 and narrow.write_rate == 280.0
    assert narrow.write_rate_reading == pytest.approx(120.0)
    assert {stage: rate for stage, rate, _ in narrow.rates()}["pool.memory"] == pytest.approx(100.0)


def test_reads_that_fill_the_memory_leave_nothing() -> None:
    """Would catch: a minimum share for write-back."""
    assert path(board={"memory_bandwidth": 10.0}).write_rate_reading == 0.0


def test_a_lone_burst_crosses_one_device_of_each_kind() -> None:
    """min over single devices: engine 40, link 60, port 80, memory 100 x 4.

    Would catch: a single burst striped over all boards.
    """
    assert path().burst_rate == 40.0
    assert path(decompress_at="gpu").burst_rate == min(100.0, 150.0, 60.0, 80.0, 500.0) * RATIO


def test_a_round_trip_includes_the_burst_itself() -> None:
    """2 x 64 B outstanding, bursts of 64 B, 8 s of latency and 64 / 40 s at the engine: 128 / 9.6 raw bytes/s.

    Would catch: one outstanding descriptor that moves faster than one after the other can.
    """
    way = path(board={"outstanding": 64.0}, burst=64.0)
    assert way.read_cap == pytest.approx(128.0 / 9.6) and way.bound == "outstanding"


def switch_of(uplinks: int, rate: float = 90.0, latency: float = 0.5, downlinks: int = 16, load_factor: float = 0.0) -> Switch:
    return Switch("switch", uplinks, downlinks, rate, latency, load_factor, inf, "round_robin", 10.0, 1000.0)


def test_a_switch_is_bounded_by_its_ports() -> None:
    """n up, m down: 2 uplinks carry 180, one downlink 90; with 8 uplinks only the four of the GPUs' ports count.

    Would catch: uplinks that no GPU is behind, downlinks without a limit.
    """
    assert path(switch=switch_of(2)).read_rate == 180.0
    narrow = path(switch=switch_of(2, downlinks=1))
    assert narrow.read_rate == 90.0 and narrow.bound == "switch.down.read"
    assert stages(path(switch=switch_of(8)).read)["switch.read"] == (4 * 90.0, 1.0)


def test_a_tree_of_two_levels() -> None:
    """Two leaves of two uplinks of 30 below a root: 120; the latency of both switches each way.

    Would catch: a leaf level that is free, one leaf instead of two.
    """
    tree = path(switch=switch_of(4), leaf=switch_of(2, rate=30.0, latency=0.25), leaves=2)
    assert tree.read_rate == 120.0 and tree.bound == "leaf.read"
    assert tree.read_latency == pytest.approx(path().read_latency + 2 * (0.5 + 0.25))
    assert [stage for stage, *_ in tree.write][:4] == ["gpu.port.write", "switch.write", "leaf.write", "leaf.down.write"]


def test_gpu_pairs_behind_one_port() -> None:
    """Four GPUs behind two ports of 80.

    Would catch: a port for each GPU all the same, staging that is halved as well.
    """
    pairs = stages(path(gpus_per_port=2).read)
    assert pairs["gpu.port.read"] == (160.0, 1.0) and pairs["gpu.staging"] == (2000.0, 1.0)


def test_replicas_that_share_the_pool() -> None:
    """Others at 0.3 leave 0.7 of boards and links, those at 0.9 a fair half; the GPU's own port is not shared.

    Would catch: load on private stages, a replica that is squeezed out.
    """
    some, many = (stages(path(shared_by=2, others_load=load).read) for load in (0.3, 0.9))
    assert some["pool.link.read"] == (pytest.approx(0.7 * 360.0), 1.0) and some["gpu.port.read"] == (320.0, 1.0)
    assert many["pool.link.read"] == (pytest.approx(0.5 * 360.0), 1.0)


def test_weight_of_a_replica_that_shares() -> None:
    """Weight 3 beside two others of 1 holds 3/5 of what is shared however loaded they are, and more where they leave it.

    Would catch: a weight that is no guarantee, or a cap.
    """
    some, many = (stages(path(shared_by=3, weight=3.0, others_load=load).read) for load in (0.3, 0.9))
    assert some["pool.link.read"] == (pytest.approx(0.7 * 360.0), 1.0)
    assert many["pool.link.read"] == (pytest.approx(3 / 5 * 360.0), 1.0)


def test_reads_take_requests_from_the_write_direction() -> None:
    """Writes alone 150 (links); beside reads that fill the links (360) with requests of 0.5: 300 - 180 = 120 of 300.

    Would catch: both directions independent where a measurement says that they are not.
    """
    busy = path(link=wire("link", 60.0, 50.0, 1.0, requests=0.5), port=wire("port", inf, inf, 0.0), board={"engines": 50})
    assert stages(busy.read)["pool.link.write"] == (300.0, 0.5)
    assert busy.read_rate == 300.0 and busy.write_rate == 300.0  # the movers
    assert busy.write_rate_reading == pytest.approx(300.0 - 0.5 * 300.0)


def test_latency_is_the_sum_of_its_parts() -> None:
    """Would catch: a device in the latency that `explain` does not list, or the other way round."""
    tree = path(switch=switch_of(4), leaf=switch_of(2, latency=0.25), leaves=2)
    names = [name for name, _ in tree.read_parts]
    assert names == [
        "gpu.port", "switch", "leaf", "pool.link", "pool.translation", "pool.directory", "pool.memory", "pool.engine",
        "pool.link", "leaf", "switch", "gpu.port",
    ]  # fmt: skip
    assert tree.read_latency == pytest.approx(sum(seconds for _, seconds in tree.read_parts), abs=1e-9)


def test_latency_under_the_load_of_others() -> None:
    """a = 0.32: 1 + 0.32 x 0.5 / 0.5 on the switch at half load, at most the saturation; the GPU's port is private.

    Would catch: load that shows at a = 0, or on what is not shared.
    """
    loaded, most = (
        path(switch=switch_of(4, load_factor=0.32), shared_by=4, others_load=load, saturation=7.1) for load in (0.5, 0.99)
    )
    calm = path(switch=switch_of(4))
    assert loaded.read_latency == pytest.approx(calm.read_latency + 2 * 0.5 * 0.32)
    assert most.read_latency == pytest.approx(calm.read_latency + 2 * 0.5 * 6.1)
    assert path(switch=switch_of(4), shared_by=4, others_load=0.5).read_latency == calm.read_latency


def test_weights_are_explained_and_checked() -> None:
    """`explain` names an arbiter that is not round robin and the share of a weighted replica; weights without their arbiter,
    more of them than boards, and a weight of nobody who shares are refused in one pass.

    Would catch: fields that are accepted and shown nowhere.
    """
    world = ["cluster.kv_pool.switch={type: cxl-2.0-switch, arbitration: weighted, weights: [3, 1]}"]
    shared = ["cluster.kv_pool.shared_by=2", "cluster.kv_pool.weight=3", "cluster.kv_pool.others_load=0.9"]
    found = explain(Scenario.load(QUICKSTART, set=world + shared))
    assert "switch weighted 3:1; 0.75 of what 2 replicas share" in json.dumps(found)
    with pytest.raises(InputError) as error:
        wrong = ["cluster.kv_pool.switch={type: cxl-2.0-switch, weights: [3, 1, 1, 1, 1]}", "cluster.kv_pool.weight=3"]
        Scenario.load(QUICKSTART, set=wrong)
    for message in ("a round_robin arbiter has no weights", "5 weights for 4 boards", "the pool is not shared"):
        assert message in str(error.value)
