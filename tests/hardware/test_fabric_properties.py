"""The fluid fabric on random transfers, with INV-RATES and INV-BYTES asserted at every change."""

from __future__ import annotations

from math import inf

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from simulator.hardware.fabric import Fabric, Flow, Stage

TRANSFERS = st.lists(
    st.tuples(
        st.floats(0.0, 20.0),  # when
        st.sampled_from([0.0, 1.0, 50.0]) | st.floats(0.0, 100.0),  # raw bytes
        st.dictionaries(st.integers(0, 3), st.sampled_from([1.0, 0.5, 0.25]) | st.floats(0.05, 4.0), max_size=4),
        st.integers(0, 2),  # class
        st.just(inf) | st.floats(0.1, 20.0),  # cap
        st.sampled_from([0.0, 0.0, 1.5]),  # latency
        st.sampled_from(["leave", "leave", "raise", "cancel"]),
        st.floats(0.0, 10.0),  # when to do that, after the start
    ),
    min_size=1,
    max_size=12,
)
RATES = st.lists(st.sampled_from([1.0, 10.0, inf]) | st.floats(0.5, 50.0), min_size=4, max_size=4)


def run(transfers: list[tuple], rates: list[float], checked: bool = True) -> tuple[list[Stage], list[Flow], list[float]]:  # type: ignore[type-arg]
    env = simpy.Environment()
    fabric, stages = Fabric(env, checked), [Stage(f"s{i}", rate) for i, rate in enumerate(rates)]
    flows: list[Flow] = []
    ends: list[float] = []

    def one(when, size, path, priority, cap, latency, act, after):  # type: ignore[no-untyped-def]
        yield env.timeout(when)
        flow = fabric.move(size, {stages[i]: w for i, w in path.items()}, priority, cap, latency)
        flow.done.callbacks.append(lambda _: ends.append(env.now))
        flows.append(flow)
        yield env.timeout(after)
        if act == "raise":
            fabric.raise_priority(flow, 0)
        elif act == "cancel":
            fabric.cancel(flow)

    for transfer in transfers:
        env.process(one(*transfer))
    env.run()
    fabric.check()
    return stages, flows, ends


@given(TRANSFERS, RATES)
def test_bytes_and_ends(transfers: list[tuple], rates: list[float]) -> None:  # type: ignore[type-arg]
    """All flows end or were cancelled; each stage carried the sum of moved x weight (1e-9); nothing stays behind.

    Would catch: a lost flow, a stale alarm, bytes of a cancelled flow lost, a rate over capacity at any instant.
    """
    stages, flows, _ = run(transfers, rates)
    for flow in flows:
        assert flow.done.processed != flow.cancelled
        assert flow.cancelled or flow.moved == flow.size
    for stage in stages:
        assert not stage.flows
        expected = sum(flow.moved * weight for flow in flows for s, weight in flow.path if s is stage)
        assert stage.carried == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(TRANSFERS, RATES)
def test_checking_changes_nothing(transfers: list[tuple], rates: list[float]) -> None:  # type: ignore[type-arg]
    """A checked fabric gives the same bits as one that is not.

    Would catch: a check that shares or settles at a moment when nothing else would.
    """
    assert run(transfers, rates)[2] == run(transfers, rates, checked=False)[2]


@given(
    st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(0.1, 50.0), st.sampled_from([1.0, 0.5, 0.25])), min_size=1),
    st.floats(0.5, 20.0),
)
def test_single_bottleneck_is_work_conserving(transfers: list[tuple[float, float, float]], rate: float) -> None:
    """On one stage the last flow ends when a server that never idles with work in hand is done; busy = work / rate.

    Formula: Lindley's recursion over arrivals, d = max(d, arrival) + size x weight / rate, for any order of service.
    Tolerance 1e-9: sums of some hundred terms. Would catch: capacity left unused at a change, bytes served twice.
    """
    full = [(when, size, {0: w}, i % 3, inf, 0.0, "leave", 0.0) for i, (when, size, w) in enumerate(transfers)]
    stages, _, ends = run(full, [rate, 1.0, 1.0, 1.0])
    free = 0.0
    for when, size, weight in sorted(transfers):
        free = max(free, when) + size * weight / rate
    assert max(ends) == pytest.approx(free, rel=1e-9)
    assert stages[0].busy == pytest.approx(sum(size * weight for _, size, weight in transfers) / rate, rel=1e-9)


@given(
    st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(0.1, 50.0), st.integers(0, 2)), min_size=1, max_size=10),
    st.floats(0.5, 20.0),
    st.floats(1.0, 3.0),
)
def test_single_bottleneck_is_monotone_in_its_rate(
    transfers: list[tuple[float, float, int]], rate: float, factor: float
) -> None:
    """A faster single stage ends no flow later (with several stages this is not a theorem).

    Would catch: an alarm kept from before a change, a class resumed late.
    """

    def ends(rate: float) -> list[float]:
        env = simpy.Environment()
        fabric, link, seen = Fabric(env, checked=True), Stage("link", rate), [0.0] * len(transfers)
        for i, (when, size, priority) in enumerate(transfers):
            flow = fabric.move(size, {link: 1.0}, priority, latency=when, tag=str(i))
            flow.done.callbacks.append(lambda event: seen.__setitem__(int(event.value.tag), env.now))
        env.run()
        return seen

    assert all(fast <= slow * (1 + 1e-9) for slow, fast in zip(ends(rate), ends(rate * factor)))
