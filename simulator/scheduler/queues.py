"""In which order requests wait, and who goes first when blocks run out. An order is a key function and a line in `ORDERS`.

    fcfs               in the order of arrival; what was preempted goes to the head; the newest of the running is preempted
    shortest_first     fewest prompt tokens first: what is known when a request arrives (its output is not)
    priority           lowest `priority` of its SLO class first (vLLM's sense), then by arrival
    earliest_deadline  arrival + TTFT of its SLO class; without a TTFT, after all that have one
    fair               next is the tenant that was served least, relative to its weight, first come first served among its
                       requests: prompt tokens count when a request is admitted, each token when it is given out (the virtual
                       token counters of Sheng et al., "Fairness in serving large language models", OSDI 2024, algorithm 2)
    fair_far           the same by the bytes that its sequences read from far memory: weighted shares of the fabric's bandwidth,
                       kept by admission; what a step reads counts by the far blocks of the sequences that decode in it

A tenant that comes back after a time without waiting requests starts from the least served of those that wait, or where
nobody waits from the one whose request left the queue last, so that nobody saves up. The head of the queue alone is looked
at: one that does not fit is waited for, so nobody overtakes it but by the order itself. Under the three orders by a key what
was preempted goes back to its place in the order, and the last in it among the running is preempted first; under the others
it goes to the head (of its tenant), and the newest is preempted. None of them starts to preempt because somebody better
arrives: running requests go only where blocks run out, as in vLLM. Under `fcfs` nobody starves; under the orders by a key a
stream of better requests keeps the worst ones waiting.
Cost: O(log n) comparisons and one move of memory an arrival.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from math import inf

from simulator.scenario.resolved import SloClass, Tenant

Key = tuple[float, float, int]


@dataclass(frozen=True)
class Known:
    """What an order may look at, by request."""

    arrival: Sequence[float]
    prompt: Sequence[int]
    kind: Sequence[int]  # its SLO class; empty: all are of the first
    classes: Sequence[SloClass]
    tenant: Sequence[int] = ()  # of each; empty: there are none
    tenants: Sequence[Tenant] = ()

    def of(self, request: int) -> SloClass:
        return self.classes[self.kind[request] if self.kind else 0]


def shortest_first(known: Known, request: int) -> float:
    return known.prompt[request]


def priority(known: Known, request: int) -> float:
    return known.of(request).priority


def earliest_deadline(known: Known, request: int) -> float:
    ttft = known.of(request).ttft
    return inf if ttft is None else known.arrival[request] + ttft


ORDERS: dict[str, Callable[[Known, int], float] | None] = {
    "fcfs": None,
    "shortest_first": shortest_first,
    "priority": priority,
    "earliest_deadline": earliest_deadline,
}
FAIR = ("fair", "fair_far")


class Ordered:
    """A queue by key, ties by arrival, with the methods of a deque that the scheduler uses."""

    def __init__(self, order: Callable[[Known, int], float], known: Known):
        self._order, self._known = order, known
        self._waiting: list[Key] = []

    def key(self, request: int) -> Key:
        return (self._order(self._known, request), self._known.arrival[request], request)

    def before(self, request: int) -> list[int]:
        """Those that would wait before it."""
        return [one for _, _, one in self._waiting[: bisect_left(self._waiting, self.key(request))]]

    def append(self, request: int) -> None:
        insort(self._waiting, self.key(request))

    def appendleft(self, request: int) -> None:
        """A preempted request goes back to its place."""
        self.append(request)

    def popleft(self) -> int:
        return self._waiting.pop(0)[2]

    def remove(self, request: int) -> None:
        del self._waiting[bisect_left(self._waiting, self.key(request))]

    def __getitem__(self, place: int) -> int:
        return self._waiting[place][2]

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[int]:
        return (request for _, _, request in self._waiting)


class Fair:
    """A queue a tenant; the head is that of the tenant with the least service for its weight, the first of equals."""

    def __init__(self, known: Known, far: bool):
        self._known, self._far = known, far
        self._waiting: list[deque[int]] = [deque() for _ in known.tenants]
        self.service = [0.0] * len(known.tenants)  # tokens, or bytes, over the weight
        # its parts: what a tenant started from, and what it got since; whole tokens are the same however they are summed
        self._from = [0.0] * len(known.tenants)
        self._got: list[float] = [0] * len(known.tenants)
        self._left: int | None = None  # the tenant whose request left the queue last

    @property
    def contested(self) -> bool:
        """Several tenants wait: with each token it may be another's turn."""
        return not self._far and sum(map(bool, self._waiting)) > 1

    def serves(self, request: int, tokens: int) -> None:
        if not self._far:
            self._charge(request, tokens)

    def decoded(self, requests: Iterable[int], steps: int) -> None:
        """Each of these gave out a token in each step."""
        if not self._far:
            for request in requests:
                self._charge(request, steps)

    def reads(self, bytes_by_request: Iterable[tuple[int, float]]) -> None:
        """What a step reads from far memory."""
        if self._far:
            for request, size in bytes_by_request:
                self._charge(request, size)

    def _charge(self, request: int, amount: float) -> None:
        tenant = self._known.tenant[request]
        self._got[tenant] += amount
        self.service[tenant] = self._from[tenant] + self._got[tenant] / self._known.tenants[tenant].weight

    def _next(self) -> int:
        return min((one for one, queue in enumerate(self._waiting) if queue), key=self.service.__getitem__)

    def first(self, over: Set[int]) -> int | None:
        """The head without these tenants."""
        found = [one for one, queue in enumerate(self._waiting) if queue and one not in over]
        return self._waiting[min(found, key=self.service.__getitem__)][0] if found else None

    def append(self, request: int) -> None:
        tenant = self._known.tenant[request]
        if not self._waiting[tenant]:
            other = self._next() if any(self._waiting) else self._left
            if other is not None and self.service[other] > self.service[tenant]:
                self.service[tenant] = self._from[tenant] = self.service[other]
                self._got[tenant] = 0
        self._waiting[tenant].append(request)

    def appendleft(self, request: int) -> None:
        self._waiting[self._known.tenant[request]].appendleft(request)

    def popleft(self) -> int:
        self._left = self._next()
        return self._waiting[self._left].popleft()

    def remove(self, request: int) -> None:
        self._left = self._known.tenant[request]
        self._waiting[self._left].remove(request)

    def __getitem__(self, place: int) -> int:
        """The head, which is all that is looked at."""
        if place:
            raise IndexError(place)
        return self._waiting[self._next()][0]

    def __len__(self) -> int:
        return sum(map(len, self._waiting))

    def __iter__(self) -> Iterator[int]:
        return (request for queue in self._waiting for request in queue)


Queue = deque[int] | Ordered | Fair


def queue_of(name: str, known: Known) -> Queue:
    if name in FAIR:
        return Fair(known, name == "fair_far")
    order = ORDERS[name]
    return deque() if order is None else Ordered(order, known)


def first_of(queue: Queue, tenant: Sequence[int], over: Set[int]) -> int | None:
    """The head of a queue in which these tenants are passed over."""
    if isinstance(queue, Fair):
        return queue.first(over)
    return next((request for request in queue if tenant[request] not in over), None)


def by_rank(queue: Queue, running: Iterable[int]) -> list[int]:
    """Those of the running, in the order of admission or of the queue: who is preempted where blocks run out is the last."""
    return sorted(running, key=queue.key) if isinstance(queue, Ordered) else list(running)
