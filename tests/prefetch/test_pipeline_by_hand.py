"""Steps whose duration can be computed on paper: c compute of a layer, x transfer of its pages, both in seconds."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from simulator.prefetch.pipeline import Carry, Counts, Outcome, on_demand, streamed

PAGES = 10
NEVER = 1 << 62  # pages a wave: all of them


def ahead(layers: int, compute: float, transfer: float, latency: float, window: int, delay: float = 0.0) -> Outcome:
    """A step of equal layers with all pages prefetched `window` layers ahead."""
    far = [PAGES] * layers
    return streamed(
        far, [compute] * layers, 0.0, 0.0, transfer / PAGES, latency, delay, window, far, [0] * layers, False, Carry(), Counts()
    )  # fmt: skip


def period(compute: float, transfer: float, latency: float, window: int, delay: float = 0.0) -> float:
    """Seconds a layer in the steady state; 120 is a multiple of every cycle length window + 1 up to 6."""
    long, short = (ahead(layers, compute, transfer, latency, window, delay).end for layers in (360, 240))
    return (long - short) / 120


def test_on_demand_adds_up() -> None:
    """host + layers (latency + x + c) + head.

    Would catch: one latency a step, a transfer that overlaps a computation, the head before the last layer.
    """
    outcome = on_demand([4, 0, 2], [1.0, 2.0, 3.0], 0.5, 0.25, 0.1, 0.01, NEVER, Counts())
    assert outcome.end == pytest.approx(0.5 + (0.01 + 0.4 + 1.0) + 2.0 + (0.01 + 0.2 + 3.0) + 0.25)
    assert outcome.stall == pytest.approx(0.01 + 0.4 + 0.01 + 0.2)
    assert outcome.moved == outcome.waited == 6
    # the pages of a wave arrive uniformly: 4 pages wait 0.01 + 0.2 on average, 2 pages 0.01 + 0.1
    assert outcome.wait == pytest.approx(4 * 0.21 + 2 * 0.11)


def test_waves_pay_a_latency_each() -> None:
    """10 pages, 4 a wave: three waves of 4, 4, 2 pages.

    Would catch: a wave that is not counted because it is not full.
    """
    outcome = on_demand([10], [1.0], 0.0, 0.0, 0.1, 0.01, 4, Counts())
    assert outcome.end == pytest.approx(3 * 0.01 + 1.0 + 1.0)


def test_first_layer_of_a_step_has_nobody_to_prefetch_it() -> None:
    """One layer with next-layer prefetch is on demand.

    Would catch: pages of layer 0 that appear from nowhere.
    """
    outcome = ahead(1, 1.0, 2.0, 0.1, 1)
    assert outcome.end == pytest.approx(0.1 + 2.0 + 1.0) and outcome.stall == pytest.approx(2.1)


def test_two_layers_by_hand() -> None:
    """Layer 0 is demanded at 0, there at 0.1 + 2, done at 3.1. Layer 1, issued at 0, may use the stream from 2.1: there at 4.1.

    Would catch: a prefetch that pays its own latency although it passed under the demand, one that shares with it.
    """
    outcome = ahead(2, 1.0, 2.0, 0.1, 1)
    assert outcome.end == pytest.approx(4.1 + 1.0) and outcome.stall == pytest.approx(2.1 + 1.0)


@pytest.mark.parametrize(("compute", "transfer"), [(1.0, 3.0), (3.0, 1.0), (2.0, 2.0)])
def test_without_latency_a_layer_takes_the_longer_of_compute_and_transfer(compute: float, transfer: float) -> None:
    """Steady state: max(c, x); with a start-up of one transfer, within 1 % of layers x max(c, x) for 400 layers.

    Would catch: compute and transfer that add, a link that idles while a layer computes.
    """
    assert period(compute, transfer, 0.0, 1) == pytest.approx(max(compute, transfer), rel=1e-9)
    assert ahead(400, compute, transfer, 0.0, 1).end == pytest.approx(400 * max(compute, transfer), rel=0.01)


# derivation: with all layers waiting, arrive_{l+1} = max(arrive_l, arrive_{l-w} + c + delay + latency) + x
@given(st.floats(0.1, 10.0), st.floats(0.1, 10.0), st.floats(0.0, 20.0), st.floats(0.0, 5.0), st.integers(1, 5))
def test_period_with_latency(compute: float, transfer: float, latency: float, delay: float, window: int) -> None:
    """max(x, c, (c + delay + latency + x) / (window + 1)): the link, the GPU, or the chain of window + 1 layers.

    For window 1: max(x, c, (c + latency + x) / 2). Holds while the predictor answers before the layer asks itself.
    Would catch: a latency a layer, a window that is one too long, a predictor's latency that costs nothing.
    """
    assume(delay <= window * compute)
    expected = max(transfer, compute, (compute + delay + latency + transfer) / (window + 1))
    assert period(compute, transfer, latency, window, delay) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("window", [1, 3, 8])
def test_a_layer_does_not_wait_for_a_predictor(window: int) -> None:
    """A predictor that takes longer than the step: every layer asks for itself, c + latency + x each, nothing is issued.

    Would catch: a slow predictor that delays demand, pages that it moves all the same.
    """
    far, counts = [PAGES] * 8, Counts(issued=70, proposed=70)
    outcome = streamed(
        far, [1.0] * 8, 0.0, 0.0, 0.2, 0.1, 1e3, window, far, [0] * 8, False, Carry(), counts
    )  # fmt: skip
    assert outcome.end == pytest.approx(8 * (1.0 + 0.1 + 2.0)) and outcome.moved == 80
    assert (counts.issued, counts.dropped, counts.demand, counts.in_time, counts.late) == (0, 70, 80, 0, 0)


def test_a_predictor_that_answers_in_time_for_some_layers() -> None:
    """c = 1, x = 0.5, latency 0, delay 1.2, 2 layers ahead: layers 0 and 1 (decided at 0) are demand, 2 on are in time.

    Layer 0 ends at 1.5. Layer 1 is asked for at 1.5, after the answer at 1.2: it is late by its transfer, 1.2 + 0.5 - 1.5.
    Would catch: answers counted from the layer that they are about, not from the one that was at work.
    """
    far, counts = [PAGES] * 4, Counts()
    outcome = streamed(far, [1.0] * 4, 0.0, 0.0, 0.05, 0.0, 1.2, 2, far, [0] * 4, False, Carry(), counts)
    assert counts.demand == PAGES and counts.late > 0
    assert outcome.end == pytest.approx(1.5 + (0.2 + 1.0) + 1.0 + 1.0)


@pytest.mark.parametrize(("fifo", "expected"), [(False, 1.0 + 2.0 + 0.5), (True, 2.0 + 1.0 + 2.0 + 0.5)])
def test_priority_of_demand(fifo: bool, expected: float) -> None:
    """The step before set 10 useless pages of layer 2 in motion, 2 s are left of them; layer 0 asks for 10 pages, 1 s.

    With priority layer 0 starts at 1, and computes while the rest crosses; without, it waits its turn and starts at 3.
    Would catch: a switch that changes nothing, demand that is served twice.
    """
    carry = Carry([0, 0, 0], [0, 0, 10], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0])
    none = [0] * 6
    outcome = streamed(
        [10, 0, 0], [2.0, 0.25, 0.25], 0.0, 0.0, 0.1, 0.0, 0.0, 1, none, none, True, carry, Counts(), fifo=fifo
    )  # fmt: skip
    assert outcome.end == pytest.approx(expected)


@pytest.mark.parametrize(("compute", "transfer", "expected"), [(1.0, 3.0, 12.0), (3.0, 1.0, 13.5), (1.0, 1.3, 5.5)])
def test_across_steps_the_link_never_rests(compute: float, transfer: float, expected: float) -> None:
    """A window of all layers: a step takes max(layers x, host + layers c + head), here 4 layers, host 1, head 0.5.

    Would catch: a pipeline that is drained at the end of each step, transfers that stand still during head and host.
    """
    far, carry, ends = [PAGES] * 4, Carry(), []
    for _ in range(20):
        outcome = streamed(
            far, [compute] * 4, 1.0, 0.5, transfer / PAGES, 0.2, 0.0, 4, far * 2, [0] * 8, True, carry, Counts()
        )  # fmt: skip
        ends.append(outcome.end)
    assert ends[0] > expected
    assert ends[-1] == pytest.approx(expected, rel=1e-9)


def test_wrong_pages_take_their_time() -> None:
    """A link-bound layer with 10 right and 5 wrong pages takes the transfer of 15.

    Would catch: wrong pages that cost nothing.
    """
    far, wrong = [PAGES] * 100, [5] * 100
    outcome = streamed(far, [1.0] * 100, 0.0, 0.0, 1.0, 0.0, 0.0, 1, far, wrong, False, Carry(), Counts())
    assert outcome.end == pytest.approx(10.0 + 99 * 15.0 + 1.0)
    assert outcome.moved == 10 + 99 * 15
