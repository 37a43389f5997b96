"""Which replica gets a request when it arrives. A rule is a class with `choose`, and one line in `RULES`.

    round_robin        in turn
    random             any, with equal probability
    least_outstanding  the one with the fewest requests that have not ended (join the shortest queue)
    least_kv           the one with the smallest share of its KV blocks claimed, prompts that wait included
    power_of_two       of two at random, the one with fewer outstanding requests (Mitzenmacher, 2001)
    prefix_aware       the one that has the fewest prompt tokens to compute before this request's first token: those that wait
                       there, and of the request those that are not in its prefix cache, be it in L1 or in the pool below
                       it; of equals the one with the fewest outstanding requests, then the one with the most in L1
    session_sticky     where the session was before; a new session, or a request of none, as least_outstanding

Of equals the first. Rules see what replicas have done by now (`engine.py`), without delay, and hold no state of their own
beyond a turn, draws, or where sessions are. Replicas that differ in speed count alike but in `least_kv`. Where groups serve
certain tenants only, a rule sees the replicas that serve the tenant of the request (`ByTenant`).
Not modelled: a router's own time, stale information, moving a request once it was given to a replica.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from simulator.scheduler.work import Work


class Target(Protocol):
    """What a rule sees of a replica."""

    @property
    def open_requests(self) -> int:
        """Requests that it was given and that have not ended."""

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens of them that have not been computed."""

    @property
    def claimed_share(self) -> float:
        """KV blocks that they claim or ask for, by the blocks that there are."""

    def cached_tokens(self, ids: Sequence[int], tokens: int) -> tuple[int, int]:
        """Of a prompt of so many tokens, with these ids of blocks, those in the prefix cache, and in its L1 alone."""


T = TypeVar("T", bound=Target)


def least(targets: Sequence[T], measure: Callable[[T], float]) -> int:
    """The first of those with the smallest measure."""
    found = [measure(target) for target in targets]
    return found.index(min(found))


def outstanding(target: Target) -> int:
    return target.open_requests


class Rule(Protocol):
    def choose(self, request: int, targets: Sequence[Target]) -> int:
        """The place in `targets` of the replica that gets the request."""


class RoundRobin:
    def __init__(self, work: Work, rng: np.random.Generator):
        self._turn = 0

    def choose(self, request: int, targets: Sequence[Target]) -> int:
        turn = self._turn % len(targets)
        self._turn += 1
        return turn


class Random:
    def __init__(self, work: Work, rng: np.random.Generator):
        self._rng = rng

    def choose(self, request: int, targets: Sequence[Target]) -> int:
        return int(self._rng.integers(len(targets)))


class LeastOutstanding:
    def __init__(self, work: Work, rng: np.random.Generator):
        pass

    def choose(self, request: int, targets: Sequence[Target]) -> int:
        return least(targets, outstanding)


class LeastKv:
    def __init__(self, work: Work, rng: np.random.Generator):
        pass

    def choose(self, request: int, targets: Sequence[Target]) -> int:
        return least(targets, lambda target: target.claimed_share)


class PowerOfTwo:
    def __init__(self, work: Work, rng: np.random.Generator):
        self._rng = rng

    def choose(self, request: int, targets: Sequence[Target]) -> int:
        if len(targets) == 1:
            return 0
        first = int(self._rng.integers(len(targets)))
        second = int(self._rng.integers(len(targets) - 1))
        second += second >= first  # two different ones
        return second if targets[second].open_requests < targets[first].open_requests else first


class PrefixAware:
    def __init__(self, work: Work, rng: np.random.Generator):
        self._prompt, self._ids = work.prompt, work.ids

    def choose(self, request: int, targets: Sequence[Target]) -> int:
        ids = self._ids(request) if self._ids is not None else ()
        tokens = self._prompt[request]
        found = [target.cached_tokens(ids, tokens) for target in targets]
        measures = [
            (target.waiting_tokens + tokens - cached, target.open_requests, -near)
            for target, (cached, near) in zip(targets, found, strict=True)
        ]
        return measures.index(min(measures))


class SessionSticky:
    def __init__(self, work: Work, rng: np.random.Generator):
        self._session = work.session
        self._at: dict[int, int] = {}  # session -> its place

    def choose(self, request: int, targets: Sequence[Target]) -> int:
        session = self._session[request] if self._session else -1
        if session < 0:
            return least(targets, outstanding)
        if session not in self._at:
            self._at[session] = least(targets, outstanding)
        return self._at[session]


class ByTenant:
    """A rule among the replicas that serve the tenant of a request: one with its own turn for each set of replicas."""

    def __init__(self, work: Work, serving: Sequence[Sequence[int]], rule: Callable[[], Rule]):
        """`serving`: of each tenant, the places of the replicas that serve it."""
        self._tenant, self._serving = work.tenant, [tuple(places) for places in serving]
        self._rules = {places: rule() for places in self._serving}

    def choose(self, request: int, targets: Sequence[Target]) -> int:
        places = self._serving[self._tenant[request]]
        return places[self._rules[places].choose(request, [targets[place] for place in places])]


RULES: dict[str, Callable[[Work, np.random.Generator], Rule]] = {
    "round_robin": RoundRobin,
    "random": Random,
    "least_outstanding": LeastOutstanding,
    "least_kv": LeastKv,
    "power_of_two": PowerOfTwo,
    "prefix_aware": PrefixAware,
    "session_sticky": SessionSticky,
}
