"""What is left of the pool while something is broken: shares of links, boards, paths, times. By hand."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from simulator.hardware.faults import Health, Occurrence, Schedule, degraded, health
from simulator.hardware.pool import far_path
from simulator.scenario.resolved import Fault, Pool
from tests.properties.small import pool as settings
from tests.properties.small import scenario

BREAKS = Fault("link_down", "board", 1, 1.0, 0.0, 0.0, inf, None, "recompute")
SLOWS = replace(BREAKS, what="link_degraded", factor=0.5)
LOSES = replace(BREAKS, what="board_lost", link="")
WORLD = scenario(
    settings(l1=12, l3=40) | {
        "workload.trace.path": __file__, "cluster.kv_pool.count": 4, "cluster.kv_pool.links_per_board": 2,
        "cluster.kv_pool.switch": {"type": "cxl-2.0-switch", "uplinks": 4}, "kv.codec": {"ratio": 2.0},
        "cluster.gpus.count": 4,
    }
).resolved  # fmt: skip
WHOLE = Health(4, 1.0, 1.0, 1.0, 0.0)


def pool() -> Pool:
    assert WORLD.pool is not None
    return WORLD.pool


def left(*faults: Fault) -> Health:
    return health(pool(), [Occurrence(fault, fault.at, fault.at + fault.duration) for fault in faults])


@pytest.mark.parametrize(("faults", "expected"), [
    ([], WHOLE),
    ([BREAKS], replace(WHOLE, link=0.5)),  # one of two links of a board
    ([BREAKS, BREAKS], replace(WHOLE, boards=3)),  # both for good: the board is cut off, the others are whole
    ([replace(BREAKS, duration=1.0), BREAKS], replace(WHOLE, link=0.0)),  # both, but one comes back: nobody reads until then
    ([SLOWS], replace(WHOLE, link=0.75)),
    ([replace(SLOWS, count=2)], replace(WHOLE, link=0.5)),
    ([SLOWS, BREAKS], replace(WHOLE, link=0.375)),
    ([replace(BREAKS, link="switch")], replace(WHOLE, switch=0.75)),
    ([replace(BREAKS, link="switch", count=4)], replace(WHOLE, boards=0)),
    ([replace(BREAKS, link="gpu")], replace(WHOLE, boards=0)),
    ([replace(BREAKS, link="gpu", duration=1.0)], replace(WHOLE, port=0.0)),
    ([LOSES, replace(LOSES, count=2)], replace(WHOLE, boards=1)),
    ([replace(LOSES, count=3), replace(LOSES, count=3)], replace(WHOLE, boards=0)),
    ([replace(BREAKS, what="latency_spike", link="", latency=latency) for latency in (1e-6, 2e-6)],
     replace(WHOLE, latency=3e-6)),
], ids=str)  # fmt: skip
def test_health(faults: list[Fault], expected: Health):
    """Would catch: links of one board taken for those of all, a cut-off board that still slows the others, an outage that
    passes taken for one that lasts."""
    found = left(*faults)
    assert replace(found, latency=0.0) == replace(expected, latency=0.0)
    assert found.latency == pytest.approx(expected.latency, rel=1e-12)


def test_path_of_what_is_left():
    """Each stage of both directions has its share, the others stay; a round trip is longer by what was asked. Would catch: a
    direction forgotten, a stage that is slowed twice."""
    here = far_path(WORLD)
    there = far_path(degraded(WORLD, Health(3, 0.5, 0.25, 0.2, 3e-6)))
    shares = {"pool.link": 0.375, "switch": 0.25, "switch.down": 1.0, "gpu.port": 0.2, "gpu.staging": 1.0}
    for side in ("read", "write"):
        for before, after in zip(getattr(here, side), getattr(there, side), strict=True):
            share = shares.get(before.stage.removesuffix(".read").removesuffix(".write"), 0.75)
            assert (after.stage, after.weight) == (before.stage, before.weight)
            assert after.rate == pytest.approx(before.rate * share, rel=1e-12), before.stage
        longer = getattr(there, f"{side}_latency") - getattr(here, f"{side}_latency")
        assert longer == pytest.approx(3e-6, rel=1e-9)
    assert far_path(degraded(WORLD, WHOLE)) == here


def test_times():
    """At a time, for a time, for good; ends before starts of the same instant. Would catch: a repair that is never made."""
    first = replace(LOSES, at=1.0, duration=2.0)
    schedule = Schedule(pool(), [first, replace(LOSES, at=3.0)], np.random.default_rng(0).spawn(2))
    seen = []
    while schedule.next_at < inf:
        at = schedule.next_at
        _, starts = schedule.turn()
        seen.append((at, starts, schedule.health.boards, schedule.lasting.boards))
    assert seen == [(1.0, True, 3, 4), (3.0, False, 4, 4), (3.0, True, 3, 3)]


def test_mean_time_between():
    """The time from a repair to the next fault is exponential: over 2,000 of them its mean is right to 3 standard errors (7 %),
    and an entry's draws do not depend on the others. Would catch: a rate that includes the repair, shared draws."""
    again = replace(LOSES, mean_time_between=10.0, duration=5.0)

    def starts(*faults: Fault) -> list[float]:
        schedule, found = Schedule(pool(), faults, np.random.default_rng(1).spawn(len(faults))), []
        while len(found) < 2000:
            occurrence, begins = schedule.turn()
            if begins and occurrence.fault.what == "board_lost":
                found.append(occurrence.at)
        return found

    alone = starts(again)
    assert np.diff(alone).mean() == pytest.approx(15.0, abs=3 * 10 / 2000**0.5)
    assert starts(again, replace(BREAKS, mean_time_between=3.0, duration=1.0)) == alone
