"""Max-min fair rates: by hand, and the certificate as a property of random paths, weights, caps and classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simulator.hardware.sharing import fair_rates


@dataclass
class Want:
    path: tuple[tuple[str, float], ...]
    cap: float = inf
    priority: int = 0
    share: float = 1.0


def one(*stages: str, weight: float = 1.0, cap: float = inf, priority: int = 0) -> Want:
    return Want(tuple((stage, weight) for stage in stages), cap, priority)


def test_classical_chain() -> None:
    """The textbook chain: A (10) shared by long and short, B (4) by long and other: 2, 8, 2.

    Would catch: splitting every stage evenly without giving back what a demand cannot use.
    """
    assert fair_rates({"A": 10.0, "B": 4.0}, [one("A", "B"), one("A"), one("B")]) == pytest.approx([2.0, 8.0, 2.0])


def test_equal_wire_rates_on_one_stage() -> None:
    """Ratios 4, 2 and 1 on a link of 12 take 4 wire bytes/s each, so 16, 8 and 4 raw.

    Would catch: fairness in raw bytes, which would punish the compressed ones.
    """
    wants = [one("link", weight=0.25), one("link", weight=0.5), one("link")]
    assert fair_rates({"link": 12.0}, wants) == pytest.approx([16.0, 8.0, 4.0])


def test_a_wide_stage_elsewhere_does_not_change_the_shares_of_the_bottleneck() -> None:
    """Ratio 2 and 4 through a link of 16 and an engine of 50 (raw): both get 8 of the link; the engine carries 48.

    Would catch: normalising by the largest weight (engine: 1), which gives equal raw rates, and taking the engine's
    even share (25) for a limit of the second although the first cannot use its own.
    """
    wants = [Want((("link", 0.5), ("engine", 1.0))), Want((("link", 0.25), ("engine", 1.0)))]
    assert fair_rates({"link": 16.0, "engine": 50.0}, wants) == pytest.approx([16.0, 32.0])


def test_two_bottlenecks_with_opposed_weights() -> None:
    """x + 2y = 3 and 2x + y = 3.6: both stages are full, x = 1.4, y = 0.8; each demand is the larger one on one.

    Would catch: an answer from rounds alone where every stage waits for the other.
    """
    wants = [Want((("A", 1.0), ("B", 2.0))), Want((("A", 2.0), ("B", 1.0)))]
    assert fair_rates({"A": 3.0, "B": 3.6}, wants) == pytest.approx([1.4, 0.8])


def test_classes_are_strict() -> None:
    """Demand (cap 6) and prefetch share 10: 6 and 4; without the cap 10 and exactly 0.

    Would catch: weighting instead of priority; crumbs of rounding left to the lower class.
    """
    assert fair_rates({"A": 10.0}, [one("A", priority=1), one("A", cap=6.0)]) == pytest.approx([4.0, 6.0])
    thirds = [one("A", weight=0.1) for _ in range(3)]
    assert fair_rates({"A": 10.0}, [*thirds, one("A", priority=1)])[3] == 0.0


def test_weighted_shares() -> None:
    """Shares 3, 1 and 1 of 10: 6, 2 and 2 wire bytes/s; one of 3 counts as three equal demands; where its cap of 4 is below its
    share, the others have 3 each; where a second stage limits it to 1, they have 4.5.

    Would catch: a share of raw bytes, a weight that holds back what a capped demand leaves.
    """
    wants = [replace(one("A"), share=3.0), one("A"), one("A", weight=0.5)]
    assert fair_rates({"A": 10.0}, wants) == pytest.approx([6.0, 2.0, 4.0])
    assert fair_rates({"A": 10.0}, [replace(wants[0], cap=4.0), *wants[1:]]) == pytest.approx([4.0, 3.0, 6.0])
    assert fair_rates({"A": 10.0, "B": 1.0}, [replace(one("A", "B"), share=3.0), *wants[1:]]) == pytest.approx([1.0, 4.5, 9.0])
    assert fair_rates({"A": 10.0}, [one("A")] * 5)[:3] == pytest.approx([2.0] * 3)


def test_cap_met_as_the_stage_fills() -> None:
    """Two of three demands are capped at just their even share of 9, the third fills the stage in the same round.

    Would catch: a demand frozen twice, or one that loops because neither its cap nor its stage counts as met.
    """
    assert fair_rates({"A": 9.0}, [one("A", cap=3.0), one("A", cap=3.0), one("A")]) == [3.0, 3.0, 3.0]
    assert fair_rates({"A": 0.3}, [one("A", cap=0.1), one("A", cap=0.1), one("A", cap=0.1)]) == pytest.approx([0.1] * 3)


def test_equal_stages_in_any_order() -> None:
    """Two equal stages listed in opposite order by two demands: a tie, 5 and 5.

    Would catch: a tie that leaves each stage waiting for the other.
    """
    assert fair_rates({"A": 10.0, "B": 10.0}, [one("A", "B"), one("B", "A")]) == pytest.approx([5.0, 5.0])


def test_infinite_and_dead_stages_and_zero_weights() -> None:
    """inf capacity: no limit (never nan); capacity 0: rate 0; weight 0: stage not used; neither cap nor stage: inf.

    Would catch: inf - inf, inf x 0, division by a zero weight.
    """
    free, dead = {"A": inf, "B": 8.0, "Z": 0.0}, Want((("Z", 1.0), ("A", 1.0)))
    wants = [one("A"), one("A", cap=3.0), one("A", "B"), dead, Want((("Z", 0.0), ("B", 1.0))), Want(())]
    assert fair_rates(free, wants) == [inf, 3.0, 4.0, 0.0, 4.0, inf]
    assert fair_rates({}, []) == []


def test_path_objects_made_on_the_fly() -> None:
    """Paths that exist only while they are asked for must not be taken for one another.

    Would catch: merging demands by the identity of a path that is already gone.
    """

    class Fresh:
        cap, priority, share = inf, 0, 1.0

        def __init__(self, stage: str):
            self.stage = stage

        @property
        def path(self) -> tuple[tuple[str, float], ...]:
            return ((self.stage, 1.0),)

    assert fair_rates({"A": 1.0, "B": 2.0, "C": 3.0}, [Fresh("A"), Fresh("B"), Fresh("C")]) == [1.0, 2.0, 3.0]


WEIGHTS = st.sampled_from([1.0, 0.5, 0.25, 2.0]) | st.floats(0.05, 5.0)
STAGES = "ABCDE"
SHARES = st.just(1.0) | st.sampled_from([0.5, 2.0, 3.0])  # mostly equal


@st.composite
def problems(draw: st.DrawFn) -> tuple[dict[str, float], list[Want]]:
    """1 to 5 stages, 1 to 8 demands over any of them, in any order, any weights and shares, some capped, in three classes."""
    capacity = {s: draw(st.sampled_from([1.0, 3.0, 10.0]) | st.floats(0.1, 100.0)) for s in STAGES}
    wants = []
    for _ in range(draw(st.integers(1, 8))):
        stages = draw(st.lists(st.sampled_from(STAGES), min_size=1, max_size=5, unique=True))
        path = tuple((stage, draw(WEIGHTS)) for stage in stages)
        wants.append(Want(path, draw(st.just(inf) | st.floats(0.1, 10.0)), draw(st.integers(0, 2)), draw(SHARES)))
    return capacity, wants


def wire(wants: list[Want], rates: list[float], stage: str, upto: int = 2) -> list[float]:
    return [x * w for want, x in zip(wants, rates) for s, w in want.path if s == stage and want.priority <= upto]


@given(problems())
@example(
    # relaxation takes several sweeps here, and the first one happens to repeat the even shares of the round before
    (
        {"A": 1.0, "B": 2.0, "C": 2.0, "D": 1.0, "E": 2.0},
        [
            Want((("D", 1.0),), cap=1.8320545796204288),
            Want((("C", 2.0), ("B", 2.0), ("A", 1.0), ("E", 0.5), ("D", 0.25))),
            Want((("B", 1.0), ("E", 1.0), ("C", 0.5), ("A", 2.0), ("D", 1.0))),
        ],
    )
)
def test_certificate(problem: tuple[dict[str, float], list[Want]]) -> None:
    """No stage over capacity; each demand is at its cap, or crosses a stage that its class and those above it fill, on
    which no demand of its class has a larger wire rate per share. The second part implies work conservation.

    Would catch: any wrong order of freezing, a class that is given too much or too little, relaxation that stops early.
    """
    capacity, wants = problem
    rates = fair_rates(capacity, wants)
    for stage, most in capacity.items():
        assert sum(wire(wants, rates, stage)) <= most * (1 + 1e-12)
    for want, x in zip(wants, rates):
        assert 0.0 <= x <= want.cap
        peers = [(other, y) for other, y in zip(wants, rates) if other.priority == want.priority]
        limits = (
            sum(wire(wants, rates, stage, want.priority)) >= capacity[stage] * (1 - 1e-9)
            and x * w / want.share
            >= max(y * v / other.share for other, y in peers for s, v in other.path if s == stage) * (1 - 1e-9)
            for stage, w in want.path
        )
        assert x == want.cap or any(limits)


@given(problems())
def test_lower_classes_do_not_exist_for_higher_ones(problem: tuple[dict[str, float], list[Want]]) -> None:
    """The rates of a class are the same with and without the classes below it.

    Would catch: prefetch that slows demand.
    """
    capacity, wants = problem
    upper = [want for want in wants if want.priority < 2]
    everyone = [x for want, x in zip(wants, fair_rates(capacity, wants)) if want.priority < 2]
    assert everyone == fair_rates(capacity, upper)


@given(
    st.lists(st.tuples(WEIGHTS, st.just(inf) | st.floats(0.1, 10.0), st.integers(0, 2)), min_size=1, max_size=8),
    st.floats(0.1, 50.0),
    st.floats(1.0, 3.0),
)
def test_monotone_in_the_capacity_of_a_single_stage(
    wants: list[tuple[float, float, int]], capacity: float, factor: float
) -> None:
    """On one stage nobody loses when it becomes faster (over several stages this is not a theorem).

    Would catch: rounding left-overs dealt out to the wrong demand.
    """
    demands = [one("A", weight=weight, cap=cap, priority=priority) for weight, cap, priority in wants]
    slow, fast = fair_rates({"A": capacity}, demands), fair_rates({"A": capacity * factor}, demands)
    assert all(after >= before * (1 - 1e-9) for before, after in zip(slow, fast))
