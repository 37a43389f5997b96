"""Depth control: rules by hand, and a bandit that finds the better arm."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.prefetch.depth import ARMS, CONTROLS, DepthControl, Seen
from simulator.scenario.resolved import Prefetch

SPEC = Prefetch("statistical", 4, 0.9, 0.9, 0.0)


def control(name: str, start: int = 4) -> DepthControl:
    return CONTROLS[name](SPEC, start)


def seen(used: int = 90, useless: int = 10, stall: float = 0.0, demand: int = 0, link: float = 0.5) -> Seen:
    return Seen(used, useless, stall, 1.0, demand, link)


def depths(rule: DepthControl, steps: list[Seen]) -> list[int]:
    found = []
    for step in steps:
        rule.observe(step)
        found.append(rule.depth)
    return found


def test_fixed_stays() -> None:
    """Would catch: a control that is always on."""
    assert set(depths(control("fixed"), [seen(0, 100), seen(100, 0)] * 20)) == {4}


def test_additive_moves_after_ten_steps() -> None:
    """4 for nine steps; with the tenth above 95 % one up a step until 8; below 85 % one down until 2; between, no change.

    Would catch: a rule that moves before it has ten outcomes, strict bounds turned round, a mean over all steps.
    """
    rule = control("additive")
    assert depths(rule, [seen(96, 4)] * 15) == [4] * 9 + [5, 6, 7, 8, 8, 8]
    assert depths(rule, [seen(90, 10)] * 20)[-10:] == [8] * 10
    assert depths(rule, [seen(50, 50)] * 30)[-1] == 2
    assert depths(control("additive"), [seen(95, 5)] * 20) == [4] * 20
    assert depths(control("additive"), [seen(0, 0)] * 20) == [4] * 20


@pytest.mark.parametrize("best", range(len(ARMS)))
def test_ucb_plays_the_best_arm_most(best: int) -> None:
    """Noisy stall, least with one arm: it is played more often than all others together, and each at least once.

    Would catch: costs taken for rewards, a bonus that never shrinks, arms that are never tried.
    """
    rng, rule, played = np.random.default_rng(7), control("ucb"), []
    for _ in range(4000):
        played.append(rule.depth)
        rule.observe(seen(stall=float(rng.normal(0.1 if rule.depth == ARMS[best] else 0.6, 0.05))))
    assert set(played) == set(ARMS)
    assert played.count(ARMS[best]) > 2000


def test_feedback_throttles_when_demand_waits() -> None:
    """Half where demand met a busy link; one more where there was none, or the link had time.

    Would catch: a throttle that looks at the link alone and starves a perfect prefetcher.
    """
    rule = control("feedback", 8)
    assert depths(rule, [seen(demand=5, link=0.99)] * 5) == [4, 2, 1, 1, 1]
    assert depths(rule, [seen(demand=0, link=0.99), seen(demand=5, link=0.5)]) == [2, 3]
    assert depths(rule, [seen()] * 30)[-1] == 16
