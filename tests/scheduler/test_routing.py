"""Routing rules by hand: for each a situation in which one replica is known to be the right one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from simulator.scheduler.routing import RULES, Rule
from simulator.scheduler.work import Work


@dataclass
class Target:
    """What a rule sees of a replica."""

    open_requests: int = 0
    waiting_tokens: int = 0
    claimed_share: float = 0.0
    cached: dict[int, int] = field(default_factory=dict)  # first id of a prompt -> tokens in the prefix cache

    near: int = 0  # of them, in L1

    def cached_tokens(self, ids: Sequence[int], tokens: int) -> tuple[int, int]:
        return (self.cached.get(ids[0], 0), self.near) if ids else (0, 0)


def rule(name: str, session: Sequence[int] = (), seed: int = 0) -> Rule:
    work = Work([0.0] * 20, [100] * 20, [10] * 20, ids=lambda request: [request], session=session)
    return RULES[name](work, np.random.default_rng(seed))


BUSY, IDLE, FULL = Target(5, 50, 0.5), Target(1, 400, 0.9), Target(3, 10, 0.1)


@pytest.mark.parametrize(
    ("name", "winner"),
    [("least_outstanding", 1), ("least_kv", 2), ("prefix_aware", 2), ("session_sticky", 1)],
)
def test_known_winner(name: str, winner: int) -> None:
    """Would catch: a rule that looks at another measure, or takes the largest."""
    assert rule(name).choose(0, [BUSY, IDLE, FULL]) == winner


def test_equals_go_to_the_first() -> None:
    """Would catch: an order that depends on hashes or on who was asked last."""
    for name in ("least_outstanding", "least_kv", "prefix_aware", "session_sticky"):
        assert rule(name).choose(3, [Target(), Target(), Target()]) == 0


def test_round_robin_takes_turns() -> None:
    """Would catch: a turn that looks at load, or starts anew."""
    turns = rule("round_robin")
    assert [turns.choose(request, [BUSY, IDLE, FULL]) for request in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_random_is_uniform_and_seeded() -> None:
    """3,000 draws of 3: each within four deviations (4 sqrt(3000 * 2/9) = 103) of 1,000; the same seed draws the same."""
    first, again = (rule("random", seed=4) for _ in range(2))
    draws = [first.choose(0, [BUSY, IDLE, FULL]) for _ in range(3000)]
    assert draws == [again.choose(0, [BUSY, IDLE, FULL]) for _ in range(3000)]
    assert max(abs(draws.count(place) - 1000) for place in range(3)) < 103


def test_power_of_two_never_takes_the_worst_of_three() -> None:
    """Of two different ones the better is taken, so the worst of three never is, and the best in two draws of three.

    Would catch: a draw of the same replica twice (the worst would win then), the worse of two. 3,000 draws, tolerance as above.
    """
    two = rule("power_of_two")
    draws = [two.choose(0, [BUSY, IDLE, FULL]) for _ in range(3000)]
    assert draws.count(0) == 0
    assert abs(draws.count(1) - 2000) < 103


def test_prefix_aware_weighs_the_queue_against_the_cache() -> None:
    """80 of 100 tokens cached are worth a queue of up to 79 tokens more, and no longer one of 81.

    Would catch: cache hits at any price, tokens of the queue counted as requests.
    """
    aware = rule("prefix_aware")
    assert aware.choose(7, [Target(), Target(waiting_tokens=79, cached={7: 80})]) == 1
    assert aware.choose(7, [Target(), Target(waiting_tokens=81, cached={7: 80})]) == 0
    assert aware.choose(8, [Target(), Target(waiting_tokens=79, cached={7: 80})]) == 0  # another prompt


def test_sessions_stay() -> None:
    """Would catch: a session that moves to a less loaded replica; requests of no session that stick to each other's place."""
    sticky = rule("session_sticky", session=[9, 9, 8, -1, 9, 8])
    loads = [[1, 0, 2], [0, 5, 0], [0, 5, 3], [7, 5, 3], [0, 9, 0], [9, 0, 0]]
    found = [sticky.choose(at, [Target(open_requests=one) for one in load]) for at, load in enumerate(loads)]
    assert found == [1, 1, 0, 2, 1, 0]
