"""When requests arrive: at a time that is known, or so long after the end of another one (closed loop).

A turn of a session follows the one before: it arrives `delay` seconds (tool, user) after that has ended - with its last
token, by rejection, or aborted. So arrivals are made while the simulation goes on. Whoever serves asks for `next`, takes
requests in the order of time (same time: in the order of rows), and tells which have ended.
`at` is the list of arrival times, one a request; a time that was not known is filled in when it is.

Cost: O(1) a request that is known from the start, O(log n) one that follows, n of which have been announced.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from math import inf


class Arrivals:
    def __init__(self, at: list[float], after: Sequence[int] = (), delay: Sequence[float] = ()):
        """`after[i]`: the request that i waits for (-1, or no `after`: `at[i]` is known, in ascending order), `delay[i]` its
        wait in s."""
        self.at, self._delay = at, delay
        self._known = [row for row, before in enumerate(after) if before < 0] if after else range(len(at))
        self._turn = 0  # next of them
        self._announced: list[tuple[float, int]] = []  # heap of those that follow and whose time is known now
        self._following: dict[int, list[int]] = {}
        for row, before in enumerate(after):
            if before >= 0:
                self._following.setdefault(before, []).append(row)
        self.left = len(at)  # requests that have not arrived yet
        self.announced: Callable[[int, float], None] | None = None  # told of each arrival that becomes known: request, time
        self.next = inf
        self._look()

    def take(self) -> int:
        """The next request, which arrives at `next`."""
        announced = self._announced
        if announced and announced[0][0] == self.next and not self._first_known():
            row = heappop(announced)[1]
        else:
            row = self._known[self._turn]
            self._turn += 1
        self.left -= 1
        self._look()
        return row

    def _first_known(self) -> bool:
        """Whether of two at the same time the one known from the start comes first."""
        if self._turn == len(self._known):
            return False
        row = self._known[self._turn]
        return (self.at[row], row) < self._announced[0]

    def ended(self, request: int, clock: float) -> None:
        """A request has ended: those that wait for it arrive after their delay."""
        for row in self._following.pop(request, ()):
            self.at[row] = time = clock + self._delay[row]
            heappush(self._announced, (time, row))
            if time < self.next:
                self.next = time
            if self.announced is not None:
                self.announced(row, time)

    def _look(self) -> None:
        known = self.at[self._known[self._turn]] if self._turn < len(self._known) else inf
        self.next = min(known, self._announced[0][0]) if self._announced else known


class Inbox:
    """The same for one of several replicas: what a router has given it, in the order in which it came."""

    def __init__(self, at: list[float]):
        self.at = at
        self.next = inf
        self.waiting: deque[int] = deque()

    @property
    def left(self) -> int:
        return len(self.waiting)

    def put(self, request: int) -> None:
        if not self.waiting:
            self.next = self.at[request]
        self.waiting.append(request)

    def take(self) -> int:
        request = self.waiting.popleft()
        self.next = self.at[self.waiting[0]] if self.waiting else inf
        return request
