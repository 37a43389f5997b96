"""The fluid fabric: transfers as flows over paths of shared stages.

Modelled: a flow of `size` raw bytes waits for its latency once, then crosses all stages of its path at one rate; a
stage carries `weight` wire bytes per raw byte (1/ratio where data is compressed). Rates are max-min fair in wire
bytes within a priority class and classes are strict (`sharing.py`). They are computed anew at every start and end of
a flow, once for all changes of one instant, and only for flows that share a finite stage with a changed one, directly
or through others.
Not modelled: packets, bursts, head-of-line blocking, credits (the detailed devices do). Latency that grows with load
is computed by the caller, from `Fabric.load`, and passed in.

Events per flow, at most: one when its latency is over (none if it is 0), at its start one to share and one alarm, at
its end `done`, one to share and one alarm. Three in all where each flow starts as another ends. One numbered alarm is
live in the whole fabric, at the earliest end; an alarm that has been replaced does nothing.
A flow ends because the clock has reached the end computed for it, never because little is left of it: at a large
clock the last bytes take less than one tick, and "while left > epsilon" would loop for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, ulp
from typing import Union

import simpy
from simpy.events import EventPriority

from simulator.hardware.sharing import fair_rates

DEMAND, PREFETCH, WRITE_BACK = 0, 1, 2  # classes; lower goes first

SAME_TIME = 1e-12  # flows whose ends differ by less than this part of the time since their last change end together
ROUTES = 10_000  # checked paths kept, so that flows on equal paths share one object and are shared out as one kind
TOLERANCE = 1e-9  # of the invariants, relative


@dataclass(eq=False, slots=True)
class Stage:
    """Something with a rate: a link direction, a switch port, a memory channel, a codec engine. `inf` is valid."""

    name: str
    rate: float  # wire bytes/s; change it with Fabric.set_rate
    told: Callable[[], None] | None = field(default=None, repr=False)  # of new rates of flows that cross it; may change its own
    flows: dict[Flow, float] = field(default_factory=dict, init=False, repr=False)  # those moving -> weight, by start
    ended: float = field(default=0.0, init=False, repr=False)  # wire bytes of flows that ended or were cancelled
    before: tuple[float, float] = field(default=(0.0, 0.0), init=False, repr=False)  # (busy, carried) at set_rate

    def __post_init__(self) -> None:
        _check_rate(self.name, self.rate)

    @property
    def carried(self) -> float:
        """Wire bytes so far, exact at any time."""
        return self.ended + sum([flow.moved * weight for flow, weight in self.flows.items()])

    @property
    def busy(self) -> float:
        """Seconds so far: the integral of utilisation (wire rate / capacity); an infinite stage is never busy."""
        busy, carried = self.before
        return busy + ((self.carried - carried) / self.rate if self.rate > 0.0 else 0.0)


Path = tuple[tuple[Stage, float], ...]
Share = Union[float, "Together"]


@dataclass(eq=False, slots=True)
class Together:
    """Flows that count at the arbiters for `share` in all: each of those that move now for an equal part of it."""

    share: float
    flows: dict[Flow, None] = field(default_factory=dict, init=False, repr=False)  # moving, by start


@dataclass(eq=False, slots=True)
class Flow:
    """A transfer; `done` fires, with the flow as its value, when its last byte has crossed every stage."""

    size: float  # raw bytes
    path: Path  # (stage, wire bytes per raw byte > 0), each stage once
    done: simpy.Event
    priority: int
    cap: float  # raw bytes/s
    tag: str
    share: float = 1.0  # for how many flows of its class it counts where they share a stage
    together: Together | None = None  # whose flows have a share together
    settled: float = 0.0  # raw bytes moved up to `since`
    since: float = 0.0  # when the rate last changed
    rate: float = 0.0  # raw bytes/s from then on; Fabric.rates() is up to date also within an instant of change
    ends: float = inf  # at this rate
    cancelled: bool = False

    @property
    def moved(self) -> float:
        """Raw bytes so far."""
        elapsed = self.done.env.now - self.since
        return min(self.settled + self.rate * elapsed, self.size) if elapsed > 0.0 else self.settled


class Fabric:
    """All flows of one simulation, and the one alarm that ends them."""

    def __init__(self, env: simpy.Environment, checked: bool = False):
        """`checked` asserts INV-RATES and INV-BYTES whenever rates change; it changes no number."""
        self.env = env
        self.checked = checked
        self._flows: dict[Flow, None] = {}  # moving, by start; a dict because flows leave from the middle
        self._changed: dict[Stage, None] = {}  # stages with a flow that came or went at this instant
        self._restless: dict[Flow, None] = {}  # moving flows that started or changed at this instant
        self._stale = False  # rates and alarm do not reflect this yet
        self._sharing = False  # the event that shares anew is under way
        self._routes: dict[Path, Path] = {}
        self._alarm = 0  # number of the live alarm
        self._alarm_at = inf
        self._integrals: dict[Stage, _Integral] = {}  # of the rates through each finite stage; in a checked fabric only

    def move(
        self,
        size: float,
        path: Mapping[Stage, float] | Sequence[tuple[Stage, float]],
        priority: int = DEMAND,
        cap: float = inf,
        latency: float = 0.0,
        tag: str = "",
        share: Share = 1.0,
    ) -> Flow:
        """Start a transfer of `size` raw bytes; `cap` is in raw bytes/s, `latency` (s) passes before the first byte; `share`
        is its weight at the arbiters (`sharing.py`).

        A stage that is crossed twice may be listed twice (its weights add); weight 0 means that it is not used.
        """
        share, together = (share.share, share) if isinstance(share, Together) else (share, None)
        if not (0.0 <= size < inf and cap > 0.0 and 0.0 <= latency < inf and 0.0 < share < inf):
            given = f"flow {tag!r}: size {size}, latency {latency}, cap {cap}, share {share}"
            raise ValueError(f"{given}: size and latency must be finite, >= 0, cap and share > 0")
        key = tuple(path.items()) if isinstance(path, Mapping) else tuple(path)
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= ROUTES:
                self._routes.clear()
            route = self._routes[key] = _crossing(key)
        flow = Flow(float(size), route, self.env.event(), priority, cap, tag, share, together)
        if latency > 0.0:
            timer = self.env.timeout(latency, flow)
            timer.callbacks.append(lambda event: self._start(event.value))
        else:
            self._start(flow)
        return flow

    def raise_priority(self, flow: Flow, priority: int) -> None:
        """Let a flow inherit the class of one that waits for it; does nothing if its class is as urgent already."""
        if priority < flow.priority:
            flow.priority = priority
            if flow in self._flows:
                self._touch(flow)

    def cancel(self, flow: Flow) -> float:
        """Stop a flow and return the raw bytes it has moved, which stay counted; one that has ended is left as it is.

        Its `done` never fires: cancel only what nobody waits for.
        """
        if not flow.done.triggered and not flow.cancelled:
            flow.cancelled = True
            flow.settled = flow.moved
            if flow in self._flows:
                self._remove(flow)
        return flow.settled

    def set_rate(self, stage: Stage, rate: float) -> None:
        """Change a stage's capacity now (a fault, a repair); at 0 its flows wait."""
        _check_rate(stage.name, rate)
        stage.before, stage.rate = (stage.busy, stage.carried), rate
        for flow in stage.flows:
            self._touch(flow)

    def rates(self) -> dict[Flow, float]:
        """Raw bytes/s of every flow now moving, by start.

        Changes of this instant that are pending are shared out first, and perhaps again later in it, which can move last
        bits: an observer that must change no number reads `Flow.rate`, `Flow.moved` and `Stage.carried` instead.
        """
        self._share()
        return {flow: flow.rate for flow in self._flows}

    def load(self, stage: Stage, priority: int = WRITE_BACK) -> float:
        """Wire bytes/s on a stage now, by flows of this class and more urgent ones; an observer heeds `rates`."""
        self._share()
        return sum([flow.rate * weight for flow, weight in stage.flows.items() if flow.priority <= priority])

    def check(self) -> None:
        """Assert INV-RATES now; in a checked fabric also INV-BYTES, for every stage used so far."""
        for flow, rate in self.rates().items():
            assert 0.0 <= rate <= flow.cap, f"INV-RATES flow {flow.tag!r}: rate {rate}, cap {flow.cap}"
            for stage, _ in flow.path:
                load = self.load(stage)
                assert load <= stage.rate * (1.0 + TOLERANCE), (
                    f"INV-RATES stage {stage.name}: rates sum to {load} wire bytes/s, capacity {stage.rate}"
                )
        for stage, integral in self._integrals.items():
            integral.advance(self.env.now, self.load(stage))
            assert abs(stage.carried - integral.wire_bytes) <= TOLERANCE * stage.carried + integral.rounding, (
                f"INV-BYTES stage {stage.name}: carried {stage.carried} wire bytes, rates give {integral.wire_bytes}"
            )

    def _start(self, flow: Flow) -> None:
        if flow.cancelled:
            return
        flow.since = self.env.now
        if flow.size == 0.0:
            flow.done.succeed(flow)
            return
        self._flows[flow] = None
        for stage, weight in flow.path:
            stage.flows[flow] = weight
        if flow.together is not None:
            flow.together.flows[flow] = None
            self._divide(flow.together)
        self._touch(flow)

    def _remove(self, flow: Flow) -> None:
        del self._flows[flow]
        flow.rate, flow.ends = 0.0, inf
        for stage, weight in flow.path:
            del stage.flows[flow]
            stage.ended += flow.settled * weight
        if flow.together is not None:
            del flow.together.flows[flow]
            self._divide(flow.together)
        self._touch(flow)

    def _divide(self, together: Together) -> None:
        """Others of the same owner came or went."""
        for flow in together.flows:
            flow.share = together.share / len(together.flows)
            self._touch(flow)

    def _touch(self, flow: Flow) -> None:
        """Rates have to be shared anew, once all that happens at this instant has happened."""
        for stage, _ in flow.path:
            self._changed[stage] = None
        if flow in self._flows:
            self._restless[flow] = None
        self._stale = True
        if not self._sharing:
            self._sharing = True
            _EndOfInstant(self.env).callbacks.append(self._share_once)

    def _share_once(self, _: simpy.Event) -> None:
        self._sharing = False
        self._share()

    def _share(self) -> None:
        """New rates for all that share a finite stage with a change, directly or through others; new alarm."""
        if not self._stale:
            return
        self._stale = False
        capacity: dict[Stage, float] = {}
        flows, self._restless = self._restless, {}
        todo, self._changed = list(self._changed), {}
        for stage in todo:  # grows meanwhile
            if stage not in capacity:
                capacity[stage] = stage.rate
                if stage.rate != inf:  # an infinite stage couples nobody
                    for flow in stage.flows:
                        if flow not in flows:
                            flows[flow] = None
                            todo += [other for other, _ in flow.path]
        group = [flow for flow in flows if flow in self._flows]
        if len(group) == 1:
            alone = group[0]
            new = [min([stage.rate / weight for stage, weight in alone.path] + [alone.cap])]
        else:
            new = fair_rates(capacity, group)
        now = self.env.now
        for flow, rate in zip(group, new):
            if rate != flow.rate:
                if flow.since < now:
                    flow.settled, flow.since = flow.moved, now
                flow.rate = rate
                flow.ends = now + (flow.size - flow.settled) / rate if rate > 0.0 else inf
        self._set_alarm()
        if self.checked:
            for stage in capacity:
                if stage.rate != inf and stage not in self._integrals:
                    self._integrals[stage] = _Integral(now)
            self.check()
        for stage in capacity:
            if stage.told is not None:
                stage.told()

    def _set_alarm(self) -> None:
        ends = min([flow.ends for flow in self._flows], default=inf)
        if ends != self._alarm_at:  # else the live alarm is right
            self._alarm_at = ends
            self._alarm += 1
            if ends < inf:
                timer = self.env.timeout(max(ends - self.env.now, 0.0), self._alarm)
                timer.callbacks.append(self._ring)

    def _ring(self, timer: simpy.Event) -> None:
        """End the flow the alarm was set for, and those that end at the same time."""
        if timer.value != self._alarm:
            return
        at, self._alarm_at = self._alarm_at, inf
        tick = 2.0 * ulp(at)
        for flow in [flow for flow in self._flows if flow.ends <= at + SAME_TIME * (at - flow.since) + tick]:
            flow.settled = flow.size
            self._remove(flow)
            flow.done.succeed(flow)


class _EndOfInstant(simpy.Event):
    """Fires now, after all else that happens now: SimPy's own events have priority 0 or 1."""

    __slots__ = ()

    def __init__(self, env: simpy.Environment):
        super().__init__(env)
        self._ok = True
        self._value = None
        env.schedule(self, priority=EventPriority(2))


class _Integral:
    """What a stage carried according to the rates alone: the independent side of INV-BYTES."""

    def __init__(self, since: float):
        self.since = since
        self.load = 0.0  # wire bytes/s from then on
        self.wire_bytes = 0.0
        self.rounding = 0.0  # bytes: a change of rates falls on a tick of the clock, not where it was computed

    def advance(self, now: float, load: float) -> None:
        if self.load > 0.0:
            self.wire_bytes += self.load * (now - self.since)
        self.rounding += 4.0 * ulp(now) * max(load, self.load)
        self.since, self.load = now, load


def littles_law_cap(outstanding_wire_bytes: float, round_trip: float, weight: float = 1.0) -> float:
    """Raw bytes/s that outstanding requests sustain: wire bytes in flight / (unloaded round trip x weight)."""
    per_byte = round_trip * weight
    return outstanding_wire_bytes / per_byte if per_byte > 0.0 else inf


def _crossing(path: Path) -> Path:
    """(stage, weight > 0), each stage once."""
    weights: dict[Stage, float] = {}
    for stage, weight in path:
        if not (weight >= 0.0 and isfinite(weight)):
            raise ValueError(f"stage {stage.name}: weight {weight} is not a finite number >= 0")
        if weight > 0.0:
            weights[stage] = weights.get(stage, 0.0) + weight
    return tuple(weights.items())


def _check_rate(name: str, rate: float) -> None:
    if not rate >= 0.0:
        raise ValueError(f"stage {name}: rate {rate} is not a number of bytes/s >= 0")
