"""Whether the fluid model is valid for a scenario: a predicate of its parameters, said before anything runs (design 3.7).

The fluid model moves bytes at the rate of the scarcest stage, limited by what is outstanding. It does not know what a
descriptor costs. Each rule compares the path's rate with what descriptors, walks or recalls could sustain:

    outstanding   one descriptor at a time waits out its round trip: flagged where that, and nothing else, sets the rate
    tiny bursts   burst / time between two descriptors, per board, below the rate of the path
    TLB thrash    page / walk, per board, below the rate of the path while the far KV exceeds the reach
    placement     random placement loads one board more than the others
    credits       a link's receive buffer sustains less than its bandwidth
    rows          opening rows takes longer than reading them
"""

from __future__ import annotations

from math import inf

from simulator.hardware.detailed.memory import MemoryParameters
from simulator.hardware.pool import far_path, left_over
from simulator.scenario.resolved import ScenarioResolved

SLACK = 1.03  # a limit this far above the rate of the path does not touch it
WASTED = 0.9  # one outstanding descriptor matters where its round trips keep the path from this part of its rate


def reasons(scenario: ScenarioResolved) -> list[str]:
    """Why the fluid model does not hold here; empty where it does."""
    pool, burst = scenario.pool, scenario.kv.burst
    assert pool is not None
    path, board, boards = far_path(scenario), pool.board, pool.boards
    rate, share = path.read_rate, left_over(pool)
    others = min(crossing.rate / crossing.weight for crossing in path.read)
    found: list[str] = []
    held = share * board.outstanding * (scenario.kv.codec.ratio if scenario.kv.codec.decompress_at == "gpu" else 1.0)
    if held < 2.0 * burst and path.read_cap < WASTED * others:
        found.append(
            f"one outstanding descriptor: {_size(board.outstanding)} hold one burst of {_size(burst)} a board, so every "
            "burst waits out a round trip"
        )
    taking = boards * burst / board.descriptor if board.descriptor else inf
    if taking < SLACK * rate:
        found.append(
            f"tiny bursts: the boards take up {_rate(taking)} in descriptors of {_size(burst)}; the path carries {_rate(rate)}"
        )
    walking = boards * board.tlb_page / board.tlb_walk if board.tlb_walk else inf
    reach = boards * board.tlb_entries * board.tlb_page
    if walking < SLACK * rate:
        found.append(
            f"TLB thrash: beyond {_size(reach)} every page of {_size(board.tlb_page)} is walked, which sustains "
            f"{_rate(walking)}; the path carries {_rate(rate)}"
        )
    spec = MemoryParameters(
        board.memory_bandwidth, 0.0, board.channels, board.banks, board.row, board.row_cycle, board.interleave, 0.0, 0.0
    )
    streaming = share * boards * spec.streaming * scenario.kv.codec.ratio
    if streaming < SLACK * rate and spec.streaming < board.memory_bandwidth:
        found.append(f"rows: opening them leaves the memories {_rate(streaming)} of {_rate(rate)}")
    for name, link in (("cluster.kv_pool.link", pool.link), ("cluster.gpus.link", scenario.gpus.gpu.link)):
        loop = 2.0 * link.latency
        if loop > 0.0 and link.credits / loop < link.read_bandwidth:
            found.append(f"credits of {name}: {_size(link.credits)} a round trip sustain {_rate(link.credits / loop)}")
    if pool.placement == "hash" and boards > 1:
        found.append(f"random placement: a layer is read when the fullest of {boards} boards is done")
    return found


def unmodelled(scenario: ScenarioResolved) -> list[str]:
    """Warnings about a scenario that the fluid model is to serve; none where the GPUs' copy engines read what is stored."""
    pool = scenario.pool
    if pool is None or scenario.devices == "detailed" or (pool.mover is not None and pool.mover.method != "push"):
        return []
    return [f"outside the validity of the fluid model (`devices: detailed` has it): {reason}" for reason in reasons(scenario)]


def _size(value: float) -> str:
    for factor, unit in ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")):
        if value >= factor:
            return f"{value / factor:.4g} {unit}"
    return f"{value:.4g} B"


def _rate(value: float) -> str:
    return f"{value / 1e9:.4g} GB/s"
