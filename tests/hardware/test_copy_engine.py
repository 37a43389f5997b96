"""Copy engines and gather kernels: closed forms, with constants that are easy to follow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.experiments.host_link import copy_engine_named
from simulator.hardware.copy_engine import READ, WRITE, batched, block_read, copies, gather_rate, lone, moving
from simulator.scenario.resolved import Mover

ENGINE = replace(
    copy_engine_named("h100-pcie-gen5"), read_bandwidth=100.0, write_bandwidth=50.0, duplex=0.75, read_setup=3.0,
    write_setup=2.0, batch_setup=1.0, issue=4.0, start=7.0, block_latency=0.5, block_bandwidth=10.0, gather_outstanding=20.0,
    gather_read_bandwidth=60.0, gather_write_bandwidth=40.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("direction", "size", "seconds"),
    [(READ, 50.0, 4.0), (READ, 200.0, 5.0), (WRITE, 50.0, 4.0), (WRITE, 200.0, 6.0)],
)
def test_copies_in_a_row(direction: str, size: float, seconds: float) -> None:
    """The slower of the thread that issues (4 s) and the engine (3 + size / 100 to the GPU, 2 + size / 50 from it).

    Would catch: issue and set-up added up, one direction's constants for the other.
    """
    assert copies(ENGINE, direction, size) == seconds


def test_both_directions_share() -> None:
    """Each keeps 3/4 of its bandwidth; one thread issues for both.

    Would catch: a duplex link without loss, each direction with a thread of its own."""
    assert copies(ENGINE, READ, 750.0, both=True) == pytest.approx(3.0 + 750.0 / 75.0)
    assert copies(ENGINE, READ, 1.0, both=True) == 8.0


def test_lone_and_batched_copies() -> None:
    """A lone copy waits for the way to the engine once; three arrays pay two more set-ups; a batch has its own set-up.

    Would catch: the start paid per array, the set-up counted beside the start."""
    assert lone(ENGINE, READ, 300.0) == pytest.approx(10.0)
    assert lone(ENGINE, READ, 300.0, arrays=3) == pytest.approx(16.0)
    assert batched(ENGINE, WRITE, 100.0) == pytest.approx(3.0)


def test_gather_is_littles_law() -> None:
    """A block has 20 bytes in flight and waits 1 + 0.5 + 20 / 10 s for them: 5.71 bytes/s; small pages fill less of it; no
    more than the kernel's bandwidth; writes do not wait.

    Would catch: bytes in flight beyond a page, a rate that grows with blocks for ever."""
    assert block_read(ENGINE, 1.0, 20.0) == 3.5
    assert gather_rate(ENGINE, READ, 4, 100.0, 1.0) == pytest.approx(4 * 20.0 / 3.5)
    assert gather_rate(ENGINE, READ, 4, 5.0, 1.0) == pytest.approx(4 * 5.0 / 2.0)
    assert gather_rate(ENGINE, READ, 40, 100.0, 1.0) == 60.0
    assert gather_rate(ENGINE, WRITE, 1, 5.0, 1.0) == 40.0


def test_ways_to_move_a_layer() -> None:
    """One copy an array; a call a page; all pages in a call; a kernel. Pages of 300 bytes in three arrays.

    Would catch: a set-up per page where there is one copy, none where there are many."""
    one = moving(Mover(ENGINE, "copy", 0), 300.0, 3, 1.0, 0.25)
    assert one == (100.0, 50.0, 9.0, 13.0)
    pages = moving(Mover(ENGINE, "pages", 0), 300.0, 3, 1.0, 0.25)
    assert pages == (pytest.approx(100.0 / 4.0), pytest.approx(100.0 / 4.0), 0.0, 7.0)
    together = moving(Mover(ENGINE, "batch", 0), 300.0, 3, 1.0, 0.25)
    assert together[:2] == (pytest.approx(100.0 / 2.0), pytest.approx(100.0 / 3.0))
    assert moving(Mover(ENGINE, "gather", 40), 300.0, 1, 1.0, 0.25) == (60.0, 40.0, 0.25, 1.25)
