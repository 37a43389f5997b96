"""Pages by fate: what INV-PREFETCH and INV-BYTES are made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.prefetch.pipeline import Carry, Counts, on_demand, streamed


@st.composite
def sequences(draw: st.DrawFn) -> tuple[bool, int, list[tuple[list[int], list[int], list[int], float]]]:
    """(wrap, window, [(far, right, wrong, lost share)])."""
    layers, pages = draw(st.integers(1, 8)), st.integers(0, 30)
    window = draw(st.integers(1, layers))
    size = {"min_size": layers + window, "max_size": layers + window}
    steps = []
    for _ in range(draw(st.integers(1, 4))):
        far = draw(st.lists(pages, min_size=layers, max_size=layers))
        right = [draw(st.integers(0, ask)) for ask in far]  # of a step it knows a prefetcher proposes no page twice,
        right += draw(st.lists(pages, min_size=window, max_size=window))  # of the next one perhaps too many
        steps.append((far, right, draw(st.lists(pages, **size)), draw(st.sampled_from([0.0, 0.3, 1.0]))))
    return draw(st.booleans()), window, steps


@given(sequences(), st.floats(0.0, 2.0), st.floats(0.0, 5.0))
def test_every_page_has_one_fate(
    case: tuple[bool, int, list[tuple[list[int], list[int], list[int], float]]], page_time: float, latency: float
) -> None:
    """asked = demand + in time + late; issued = in time + late + useless + under way; moved = demand + issued.

    Would catch: pages of ended sequences counted twice or never, surplus of a forecast that was too high, pages of the next
    step counted in both steps, cancelled pages that stay moved.
    """
    wrap, window, steps = case
    carry, counts = Carry(), Counts()
    issued = moved = asked = 0
    for far, right, wrong, lost in steps:
        first, last = max(1, len(carry.right)), len(far) + (window if wrap else 0)
        issued += sum(right[first:last]) + sum(wrong[first:last])
        asked += sum(far)
        compute = [1.0] * len(far)
        moved += streamed(
            far, compute, 0.1, 0.1, page_time, latency, 0.0, window, right, wrong, wrap, carry, counts
        ).moved  # fmt: skip
        assert counts.asked == asked == counts.demand + counts.in_time + counts.late
        assert min(counts.demand, counts.in_time, counts.late, counts.useless) >= 0
        under_way = sum(carry.right) + sum(carry.wrong)
        assert issued == counts.in_time + counts.late + counts.useless + under_way
        assert moved == counts.demand + issued
        if carry.right:
            carry.lose(lost, counts)
            under_way = sum(carry.right) + sum(carry.wrong)
            assert issued == counts.in_time + counts.late + counts.useless + under_way
    pending = sum(carry.left) / page_time if page_time else 0.0
    unmoved = carry.cancel(page_time, counts)
    assert issued == counts.in_time + counts.late + counts.useless
    assert unmoved == pytest.approx(pending, abs=0.5 + 1e-6)


def test_on_demand_asks_for_everything() -> None:
    """Would catch: pages on demand that count as prefetched."""
    counts = Counts()
    on_demand([3, 0, 4], [1.0] * 3, 0.0, 0.0, 0.1, 0.1, 2, counts)
    assert counts == Counts(asked=7, demand=7)


def test_in_time_and_late_by_hand() -> None:
    """Layer 1, 10 pages of 0.1 s from 0 on: asked for at 0.6, 6 pages are there and 4 are late, which wait 0.2 on average.

    Would catch: a segment that is late as a whole as soon as its last page is.
    """
    counts = Counts()
    outcome = streamed([0, 10], [0.6, 1.0], 0.0, 0.0, 0.1, 0.0, 0.0, 1, [0, 10], [0, 0], False, Carry(), counts)
    assert (counts.in_time, counts.late, counts.demand) == (6, 4, 0)
    assert outcome.waited == 4 and outcome.wait == pytest.approx(4 * 0.2)


def test_late_beside_demand_by_hand() -> None:
    """Layer 1 asks at 50 for 105 pages of 1 s: 50 of its 100 prefetched ones are there, 50 late, 5 missing.

    Would catch: the transfer of what was missing counted as lateness of what was prefetched.
    """
    counts = Counts()
    streamed([0, 105], [50.0, 1.0], 0.0, 0.0, 1.0, 0.0, 0.0, 1, [0, 100], [0, 0], False, Carry(), counts)
    assert (counts.demand, counts.in_time, counts.late) == (5, 50, 50)


def test_late_after_being_overtaken_by_hand() -> None:
    """Layer 2's 100 pages of 1 s start at 0; at 50 layer 1 demands 10 and takes no time; layer 2 asks at 60: 50 are there.

    Would catch: pages that arrived before a demand overtook their segment, taken for late.
    """
    counts = Counts()
    right, compute = [0, 0, 100], [50.0, 0.0, 1.0]
    streamed([0, 10, 100], compute, 0.0, 0.0, 1.0, 0.0, 0.0, 2, right, [0] * 3, False, Carry(), counts)
    assert (counts.demand, counts.in_time, counts.late) == (10, 50, 50)
