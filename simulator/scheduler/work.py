"""The requests as the scheduler takes them: lists, one entry a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simulator.scheduler.arrivals import Arrivals


@dataclass(frozen=True)
class Work:
    """The requests, one entry each, in order of arrival."""

    arrival: list[float]  # s
    prompt: list[int]  # tokens
    output: list[int]
    ids: Callable[[int], Sequence[int]] | None = None  # ids of the full blocks of a request's tokens; None: not recorded
    # closed loop: the request that each one waits for (-1: none, it arrives at `arrival`), and s between its end and the
    # arrival; empty: all arrivals are known
    after: Sequence[int] = ()
    delay: Sequence[float] = ()
    session: Sequence[int] = ()  # which requests belong together (-1: to no session); empty: not recorded
    kind: Sequence[int] = ()  # SLO class of each, its number in the scenario; empty: all are of the first
    tenant: Sequence[int] = ()  # its number in the scenario; empty: there are none

    def arrivals(self) -> Arrivals:
        """Requests in the order in which they arrive; fills in `arrival` where it is made by the simulation."""
        return Arrivals(self.arrival, self.after, self.delay)
