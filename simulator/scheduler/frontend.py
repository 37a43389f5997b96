"""Several replicas in one simulation: each request goes to one of them when it arrives, by a rule (`routing.py`).

Replicas in lock step count as one here (`lockstep.py`).

Replicas have a queue, a batch and a KV cache each, and a process of their own; what they share is the router before them and,
where the scenario says so, the pool behind them. The router decides at the moment of arrival on what replicas have done by
then; what comes first at one moment is said in `moments.py`. A closed loop is closed here: the end of a request at one replica
announces an arrival that may go to another.

Events: one per arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from math import inf

import simpy

from simulator.scheduler.engine import Engine
from simulator.scheduler.lockstep import Lockstep
from simulator.scheduler.moments import FIRST, At, turn
from simulator.scheduler.routing import Rule
from simulator.scheduler.shared import Room
from simulator.scheduler.work import Work


class Frontend:
    """A router and the replicas behind it."""

    def __init__(self, env: simpy.Environment, work: Work, engines: Sequence[Engine | Lockstep], rule: Rule):
        self.env, self.work, self.engines, self._rule = env, work, engines, rule
        self.arrivals = work.arrivals()
        self.placed: list[list[int]] = [[] for _ in engines]  # requests that each replica got, in order of arrival
        self._open = len(work.arrival)  # requests that have not ended
        self._until = inf  # the next arrival, as far as known
        self.process: simpy.Process | None = None
        self.room: Room | None = None  # of a pool that all replicas share
        # replicas that fetch for sessions, where requests were, and where turns are expected that have not arrived
        self._foresees = {
            place: engine
            for place, engine in enumerate(engines)
            if isinstance(engine, Engine) and engine.reuse is not None and engine.reuse.sessions is not None
        }
        self._was: dict[int, int] = {}
        self._expected: dict[int, int] = {}
        self.arrivals.announced = self._announced
        for place, engine in enumerate(engines):
            engine.tells(self._listener(place))
            engine.turn = turn(place)

    def start(self) -> None:
        """Replicas and router begin."""
        for engine in self.engines:
            engine.process = self.env.process(engine.run())
        self.process = self.env.process(self.run())

    @property
    def open_requests(self) -> int:
        """Requests that have not ended yet."""
        return self._open

    @property
    def events(self) -> int:
        return sum(engine.events for engine in self.engines) + len(self.work.arrival)

    @property
    def steps(self) -> int:
        return sum(engine.steps for engine in self.engines)

    @property
    def clock(self) -> float:
        return max(engine.clock for engine in self.engines)

    def run(self) -> Generator[simpy.Event, None, None]:
        """The SimPy process: returns when the last request has been given to a replica."""
        arrivals = self.arrivals
        while arrivals.left:
            self._until = arrivals.next
            try:
                yield At(self.env, self._until, FIRST)
            except simpy.Interrupt:
                continue
            now, self._until = self._until, -inf
            while arrivals.next <= now:  # all of this moment, before a replica sees the first of them
                self.route(arrivals.take())
        self.process = None
        self._close()

    def route(self, request: int) -> None:
        """A request has arrived."""
        self.give(request, self._rule.choose(request, self.engines))

    def give(self, request: int, place: int) -> None:
        """A replica gets a request."""
        self.placed[place].append(request)
        if self._foresees and request not in self._was:
            self._was[request] = place
            expected = self._expected.pop(request, place)
            if expected != place:
                self._foresees[expected].stray(request)
        self.engines[place].deliver(request)

    def ended(self, place: int, request: int, clock: float) -> None:
        """A request has ended at a replica."""
        self._open -= 1
        self.arrivals.ended(request, clock)

    def _listener(self, place: int) -> Callable[[int, float], None]:
        def listener(request: int, clock: float) -> None:
            engine = self.engines[place]
            if self.room is not None and isinstance(engine, Engine):  # also where the request goes on at another replica
                self.room.freed(engine)
            self.ended(place, request, clock)
            if isinstance(engine, Engine) and self.arrivals.next <= engine.clock:
                engine.yields = True

        return listener

    def _announced(self, request: int, at: float) -> None:
        place = self._was.get(self.work.after[request])
        if place in self._foresees:
            self._expected[request] = place
            self._foresees[place].expect(request, at)
        if self.process is not None and at < self._until:
            self._until = at
            self.process.interrupt()

    def _close(self) -> None:
        for engine in self.engines:
            engine.close()
