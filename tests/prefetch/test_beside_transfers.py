"""Set-up of copies, layers that run slower beside transfers, and power saved in waits: by hand and event by event."""

from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.prefetch.pipeline import Carry, Counts, Outcome, on_demand, streamed
from simulator.prefetch.reference import replay_by_events
from tests.prefetch.test_pipeline_against_events import PAGE, PAGE_TIME, STAGES, Step, seconds, steps

INF = float("inf")


def ahead(far: list[int], compute: list[float], carry: Carry | None = None, **costs: float) -> Outcome:
    """One layer ahead, a page a second, no latency."""
    none = [0] * len(far)
    return streamed(far, compute, 0.0, 0.0, 1.0, 0.0, 0.0, 1, far, none, False, carry or Carry(), Counts(), **costs)


def test_a_layer_beside_a_transfer_by_hand() -> None:
    """Layer 0 asks at 0 and has its 2 pages at 2; those of layer 1 cross until 4. Layer 0 computes 3 s of work: at half speed
    until 4 that is 1 s, the other 2 s at full speed: it ends at 6. Layer 1 finds its pages there and ends at 9.

    Would catch: a layer that is slow although nothing moves, full speed beside a transfer, time lost twice.
    """
    outcome = ahead([2, 2], [3.0, 3.0], drag=0.5)
    assert outcome.end == pytest.approx(9.0) and outcome.dragged == pytest.approx(1.0) and outcome.stall == pytest.approx(2.0)


def test_waiting_is_no_overlap() -> None:
    """Transfers of 5 s against layers of 1 s: layer l computes while l + 1 is read, at half speed: 2 s, and waits for the rest.
    Three layers: 5 + 5 + 5 s of reads and 1 s of the last layer, undisturbed.

    Would catch: interference that lengthens a step which the link bounds.
    """
    outcome = ahead([5, 5, 5], [1.0, 1.0, 1.0], drag=0.5)
    assert outcome.end == pytest.approx(16.0) and outcome.dragged == pytest.approx(2.0)


def test_each_layer_pays_the_set_up() -> None:
    """Layers of 1 s, reads of 2 s and 0.5 s to set each up. Layer 0 is demanded (2 s), then 2.5 s a layer: 2 + 2.5 + 2.5 + 1.

    Would catch: a set-up that does not hold the stream, one for a layer that reads nothing.
    """
    assert ahead([2, 2, 2], [1.0] * 3, Carry(setup=0.5)).end == pytest.approx(8.0)
    assert ahead([2, 0, 0], [1.0] * 3, Carry(setup=0.5)).end == pytest.approx(5.0)


def test_power_saved_in_a_wait_is_used_after_it() -> None:
    """Layers of 4 s that could run in 3. A wait of 2 s wins back 1 s, one of 0.5 s only 0.5 s; without waits nothing is won.

    Would catch: power saved that was never saved, a stall that counts time which was won back.
    """
    for wait, step, stall in ((2.0, 10.0, 2.0), (0.5, 8.0, 0.0)):
        outcome = on_demand([1, 1], [4.0, 4.0], 0.0, 0.0, wait, 0.0, 9, Counts(), boost=1.0)
        assert outcome.end == pytest.approx(step) and outcome.stall == pytest.approx(stall)
    assert ahead([3, 3], [4.0, 4.0], boost=1.0).end == pytest.approx(3.0 + 3.0 + 4.0)  # layer 0 waits, layer 1 does not


def test_nothing_is_the_identity() -> None:
    """Would catch: costs of zero that change the last bit of a step."""
    assert ahead([3, 1, 4], [1.5, 9.2, 6.5]) == ahead([3, 1, 4], [1.5, 9.2, 6.5], Carry(setup=0.0), drag=0.0, boost=0.0)


@given(steps(count=1), st.floats(0.0, 0.9), seconds, seconds)
def test_against_events(case: tuple[float, float, bool, list[Step]], drag: float, setup: float, boost: float) -> None:
    """The closed form against the twin, in which a layer's work goes on at the speed of each moment.

    Would catch: an overlap counted while the stream waits for a latency, segments served in another order, work that is lost
    where a transfer ends inside a layer.
    """
    latency, delay, wrap, (step,) = case
    boost = min([boost, *step.compute])
    carry = Carry(setup=setup)
    before = deepcopy(carry)
    args = step.far, step.compute, step.host, step.head
    rules = latency, delay, step.window, step.right, step.wrong, wrap
    closed = streamed(*args, PAGE_TIME, *rules, carry, Counts(), drag=drag, boost=boost)
    twin = replay_by_events(*args, STAGES, INF, PAGE, *rules, before, drag=drag, boost=boost)
    assert closed.end == pytest.approx(twin.end, rel=1e-9, abs=1e-12)
