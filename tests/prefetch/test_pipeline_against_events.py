"""The closed form of a step against the same step replayed event by event, on random steps.

Tolerance 1e-9 of the step's duration: both are sums of at most some hundred float64 terms.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.prefetch.pipeline import Carry, Counts, on_demand, streamed
from simulator.prefetch.reference import EventReplay, replay_by_events

PAGE = 1000.0  # bytes
# three stages with different weights; the lone rate is 2e6 bytes/s, a page takes 0.5 ms
STAGES = (("memory", 1.5e6, 0.5), ("link", 2e6, 1.0), ("port", 5e6, 1.0))
PAGE_TIME = PAGE / 2e6

# multiples of half a page make ties (a page arrives just when it is asked for), other numbers everything else
seconds = st.one_of(st.integers(0, 60).map(lambda halves: halves * PAGE_TIME / 2), st.floats(0.0, 0.05))


@dataclass(frozen=True)
class Step:
    far: list[int]
    compute: list[float]
    host: float
    head: float
    window: int
    right: list[int]
    wrong: list[int]
    lost: float  # share of the sequences that end after the step


@st.composite
def steps(draw: st.DrawFn, count: int) -> tuple[float, float, bool, list[Step]]:
    """(latency, issue delay, wrap, steps) of one replica."""
    layers = draw(st.integers(1, 12))
    pages = st.one_of(st.just(0), st.integers(0, 40))
    wrap = draw(st.booleans())
    sequence = []
    for _ in range(count):
        window = draw(st.integers(1, layers))
        far = draw(st.lists(pages, min_size=layers, max_size=layers))
        right = [draw(st.integers(0, ask) | st.just(ask)) for ask in far + far[:window]]
        wrong = draw(st.lists(st.just(0) | st.integers(0, 10), min_size=layers + window, max_size=layers + window))
        compute = draw(st.lists(seconds, min_size=layers, max_size=layers))
        lost = draw(st.sampled_from([0.0, 0.0, 0.25, 1 / 3, 1.0]))
        sequence.append(Step(far, compute, draw(seconds), draw(seconds), window, right, wrong, lost))
    return draw(seconds), draw(seconds), wrap, sequence


def compare(latency: float, delay: float, wrap: bool, sequence: list[Step]) -> None:
    """All steps in one replay by events, each step also by itself from the carry of the closed form."""
    carry, whole = Carry(), EventReplay(STAGES, inf, PAGE, latency, delay)
    for step in sequence:
        before = deepcopy(carry)
        args = step.far, step.compute, step.host, step.head
        outcome = streamed(*args, PAGE_TIME, latency, delay, step.window, step.right, step.wrong, wrap, carry, Counts())
        replayed = whole.streamed(*args, step.window, step.right, step.wrong, wrap)
        alone = replay_by_events(*args, STAGES, inf, PAGE, latency, delay, step.window, step.right, step.wrong, wrap, before)
        for by_events in (replayed, alone):
            assert outcome.end == pytest.approx(by_events.end, rel=1e-9, abs=1e-12)
            assert outcome.stall == pytest.approx(sum(by_events.stalls), rel=1e-9, abs=1e-9 * by_events.end + 1e-12)
        if wrap:
            carry.lose(step.lost, Counts())
            whole.lose(step.lost)


@given(steps(count=1))
def test_one_step(case: tuple[float, float, bool, list[Step]]) -> None:
    """Would catch: latency paid per layer or per overtaking, a prefetch that delays demand, a segment served out of order,
    wrong pages that cost nothing, a window that reaches one layer too far."""
    compare(*case)


@given(steps(count=3))
def test_three_steps_with_carry_and_lost_sequences(case: tuple[float, float, bool, list[Step]]) -> None:
    """Would catch: transfers that stop, start anew or are free between steps, times of the carry that count from the wrong
    moment, pages of ended sequences that no longer use the stream, a window that shrinks or grows between steps."""
    compare(*case)


@pytest.mark.slow
@settings(max_examples=1500)
@given(steps(count=4))
def test_many_steps(case: tuple[float, float, bool, list[Step]]) -> None:
    """As above, many more."""
    compare(*case)


@given(steps(count=1), st.integers(1, 50))
def test_on_demand_in_waves(case: tuple[float, float, bool, list[Step]], pages_per_wave: int) -> None:
    """Would catch: one latency too many or too few for the last, partly filled wave."""
    latency, _, _, (step,) = case
    args = step.far, step.compute, step.host, step.head
    outcome = on_demand(*args, PAGE_TIME, latency, pages_per_wave, Counts())
    replayed = replay_by_events(*args, STAGES, inf, PAGE, latency, pages_per_wave=pages_per_wave)
    assert outcome.end == pytest.approx(replayed.end, rel=1e-9, abs=1e-12)
    assert outcome.stall == pytest.approx(sum(replayed.stalls), rel=1e-9, abs=1e-12)
    assert replayed.held == min(pages_per_wave, max(step.far))


@given(steps(count=2), st.floats(1e4, 1.9e6))
def test_outstanding_requests_bound_the_stream(case: tuple[float, float, bool, list[Step]], cap: float) -> None:
    """Little's law limits the boards' requests in flight together: demand beside a prefetch is not faster than alone.

    Would catch: a cap a flow, under which two flows move twice what the descriptors sustain."""
    latency, delay, wrap, sequence = case
    carry, whole = Carry(), EventReplay(STAGES, cap, PAGE, latency, delay)
    for step in sequence:
        args = step.far, step.compute, step.host, step.head
        outcome = streamed(*args, PAGE / cap, latency, delay, step.window, step.right, step.wrong, wrap, carry, Counts())
        replayed = whole.streamed(*args, step.window, step.right, step.wrong, wrap)
        assert outcome.end == pytest.approx(replayed.end, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("change", ["latency", "page", "window"])
def test_the_comparison_can_fail(change: str) -> None:
    """The replay is not the closed form again: each of these changes of one side is seen.

    Would catch: a comparison of something with itself."""
    far, compute, right, wrong = [4, 4, 4, 4], [1e-3, 4e-3, 1e-3, 1e-3], [4, 3, 4, 4], [0] * 4

    def replay(page: float = PAGE, latency: float = 1e-4, window: int = 1) -> float:
        return replay_by_events(far, compute, 0.0, 0.0, STAGES, inf, page, latency, 0.0, window, right, wrong, False).end

    closed = streamed(far, compute, 0.0, 0.0, PAGE_TIME, 1e-4, 0.0, 1, right, wrong, False, Carry(), Counts())
    changed = {"latency": replay(latency=1.01e-4), "page": replay(page=1.01 * PAGE), "window": replay(window=2)}
    assert closed.end == pytest.approx(replay(), rel=1e-12)
    assert closed.end != pytest.approx(changed[change], rel=1e-6)


def test_an_infinite_rate_leaves_the_latency() -> None:
    """Over stages without a limit a prefetched page still arrives one latency after it was issued.

    By hand: layer 0 waits 1 for its demand, and so long layer 1's pages are under way: they are there when it asks at 1.25.
    Then layer 2's are issued and there at 2.25, which it waits for from 1.5 on: 0.75; and so long layer 3's are under way.
    Would catch: `inf` as a rate that makes bytes free of latency, and an end that is not continuous in the rate.
    """
    far, compute = [2] * 4, [0.25] * 4
    stages = (("link", inf, 1.0),)
    replayed = replay_by_events(far, compute, 0.0, 0.0, stages, inf, PAGE, 1.0, 0.0, 1, far, [0] * 4, False)
    assert replayed.end == pytest.approx(2.75) and replayed.stalls == pytest.approx([1.0, 0.0, 0.75, 0.0])
    args = far, compute, 0.0, 0.0
    fast = streamed(*args, 1e-12, 1.0, 0.0, 1, far, [0] * 4, False, Carry(), Counts())
    assert fast.end == pytest.approx(2.75, rel=1e-9)
    free = streamed(*args, 0.0, 1.0, 0.0, 1, far, [0] * 4, False, Carry(), Counts())
    assert free.end == pytest.approx(2.75, rel=1e-9)
