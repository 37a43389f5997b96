"""One board of the detailed model: its devices, from the same parameters as the fluid model, wired into nothing yet.

Where replicas share the board, its devices work at the share that is left to this one, and answer with the latency under
the load of the others (`hardware.pool`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

import simpy

from simulator.hardware.detailed.codec import PipelineParameters, Pipelines
from simulator.hardware.detailed.device import Device
from simulator.hardware.detailed.directory import DirectoryParameters
from simulator.hardware.detailed.dma import DmaEngine, DmaParameters
from simulator.hardware.detailed.lines import Lines
from simulator.hardware.detailed.link import LinkDirection, LinkParameters
from simulator.hardware.detailed.memory import MemoryController, MemoryParameters
from simulator.hardware.detailed.translation import Translation, TranslationParameters
from simulator.hardware.latency import loaded
from simulator.hardware.pool import left_over
from simulator.scenario.resolved import Board, ScenarioResolved


@dataclass
class BoardDevices:
    """What is on one board."""

    translation: Translation
    directory: Lines
    read_ring: DmaEngine
    write_ring: DmaEngine
    memory: MemoryController
    read_mover: Device
    write_mover: Device
    decompress: Pipelines | None
    compress: Pipelines | None
    read_links: list[LinkDirection]
    write_links: list[LinkDirection]
    placed: dict[int, float] = field(default_factory=dict)  # rank -> address of its next byte in the transfer at hand


def board_devices(env: simpy.Environment, scenario: ScenarioResolved, index: int, piece: float) -> BoardDevices:
    """Board number `index`; `piece`: raw bytes of a page on one rank."""
    pool, codec, port = scenario.pool, scenario.kv.codec, scenario.gpus.gpu.link
    assert pool is not None
    board, share, name = pool.board, left_over(pool), f"pool.{index}"
    stored = 1.0 / codec.ratio
    wires = {
        "read": stored if codec.decompress_at == "gpu" else 1.0,
        "write": stored if codec.compress_at == "gpu" else 1.0,
    }
    tlb = TranslationParameters(board.tlb_entries, board.tlb_ways, board.tlb_page, board.translation, board.tlb_walk)
    lines = DirectoryParameters(board.directory_entries, board.directory_ways, board.directory_grain, board.directory)
    dma = DmaParameters(share * board.dma_bandwidth, share * board.outstanding, board.descriptor, board.cycle, piece)
    memory = MemoryParameters(
        share * board.memory_bandwidth, loaded(board.memory_latency, board.load_factor, pool.others_load, pool.saturation),
        board.channels, board.banks, board.row, board.row_cycle, board.interleave, board.turnaround, board.write_batch,
    )  # fmt: skip
    translation, directory, around = Translation(tlb), Lines(lines), 2.0 * crossing(scenario)
    rings = {side: DmaEngine(env, f"{name}.ring.{side}", dma, translation, directory, wires[side], around) for side in wires}
    latency = loaded(pool.link.latency, pool.link.load_factor, pool.others_load, pool.saturation)
    rates = {"read": share * pool.link.read_bandwidth, "write": share * pool.link.write_bandwidth}
    rooms = {"read": inf, "write": port.credits / wires["write"]}  # raw bytes of input; the board's own devices do not fill it
    links = {
        side: [
            LinkDirection(
                env, f"{name}.link.{n}.{side}", LinkParameters(rate, latency, pool.link.credits), wires[side], rooms[side]
            )
            for n in range(pool.links_per_board)
        ]
        for side, rate in rates.items()
    }
    for reading, writing in zip(links["read"], links["write"]):
        writing.shares_with(reading, pool.link.requests)
    pipelines = pipeline_parameters(board, share)
    return BoardDevices(
        translation, directory, rings["read"], rings["write"],
        MemoryController(env, f"{name}.memory", memory, stored, board.translation + board.directory),
        Device(env, f"{name}.mover.read", dma.bandwidth, wires["read"], 0.0),
        Device(env, f"{name}.mover.write", dma.bandwidth, wires["write"], 0.0, pool.link.credits / wires["write"]),
        Pipelines(env, f"{name}.decompress", pipelines, board.engine_fill, stored) if codec.decompress_at == "fpga" else None,
        Pipelines(env, f"{name}.compress", pipelines, board.engine_fill, stored) if codec.compress_at == "fpga" else None,
        links["read"], links["write"],
    )  # fmt: skip


def crossing(scenario: ScenarioResolved) -> float:
    """Seconds from a board to a GPU, or back, without data."""
    pool, port = scenario.pool, scenario.gpus.gpu.link
    assert pool is not None
    shared = [(pool.link.latency, pool.link.load_factor)]
    shared += [(switch.latency, switch.load_factor) for switch in (pool.switch, pool.leaf) if switch]
    return port.latency + sum([loaded(seconds, a, pool.others_load, pool.saturation) for seconds, a in shared])


def pipeline_parameters(board: Board, share: float = 1.0) -> PipelineParameters:
    """One lane as wide as the stated rate at the stated clock."""
    cycle = max(board.cycle, 1e-15)
    return PipelineParameters(board.engines, 1, share * board.engine_rate * cycle, cycle, 1, round(board.engine_fill / cycle))
