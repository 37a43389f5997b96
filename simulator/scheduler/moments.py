"""What comes first of what happens at one moment, where there are several replicas.

    arrivals, and what the router does with them       whoever begins a step then knows who has arrived
    transfers, timers, KV that has crossed
    ends of steps, replica by replica in their order   a replica sees what those before it have freed with the same moment,
                                                       and of those after it what they had freed before

The order depends on nothing else: not on when an event was scheduled, so not on how steps are grouped into runs; and a moment
is the same float however long somebody waits for it.
Events: one a wait, seldom two.
"""

from __future__ import annotations

from math import inf

import simpy
from simpy.events import NORMAL, URGENT, EventPriority

FIRST = URGENT


def turn(place: int) -> EventPriority:
    """When steps of the replica in this place end, among what happens at the same moment."""
    return EventPriority(NORMAL + 1 + place)


class At(simpy.Event):
    """Fires at a time, or now if that has passed; at infinity: never."""

    __slots__ = ()

    def __init__(self, env: simpy.Environment, at: float, order: EventPriority = NORMAL):
        super().__init__(env)
        if at < inf:
            self._ok = True
            self._value = None
            self._wait(at, order)

    def _wait(self, at: float, order: EventPriority) -> None:
        """The environment adds a wait to now, which need not give `at`; it does from half way on, where the wait is exact."""
        now = self.env.now
        wait = max(0.0, at - now)
        if now + wait == at or wait == 0.0:
            self.env.schedule(self, order, wait)
        else:
            self.env.timeout(wait / 2).callbacks.append(lambda _: self._wait(at, order))
