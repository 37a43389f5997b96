"""A token bucket: so many raw bytes that its owner may move at once, and so many a second in the long run.

Modelled: tokens are bytes, `burst` of them at most, and come at `rate`. Two kinds of use:

    flows    cross a stage of the fabric that is as good as open while there are tokens, and has `rate` when there are none, so
             that the flows of one owner share it max-min like any other stage. A transfer alone takes
             max(size / link, (size - burst) / rate).
    charges  bytes of work that cannot be cut (a step's reads): taken at once, also below zero. What is owed is paid back at
             `rate` before anything else moves: flows stand still meanwhile, and who asks `over` waits.

So within any time T its owner moves at most burst + rate T, and once the largest charge more for each who charges.
Not conserving: what the owner may not use nobody gives to him, however idle the path is. A tick of 1 ns is taken for no time.
Events: one for each time at which the bucket runs dry, or is paid back, while flows cross it.
"""

from __future__ import annotations

import simpy

from simulator.hardware.fabric import Fabric, Stage

TICK = 1e-9  # s: an open stage lets a burst pass within this time; less than its tokens is nothing
FULL = 1.0 - 1e-9  # of its rate: flows that have this much of a stage want more
ROUNDING = 1e-9  # of bytes, relative


class Bucket:
    def __init__(self, env: simpy.Environment, name: str, rate: float, burst: float):
        """`rate`: raw bytes/s, finite; `burst`: raw bytes, there at the beginning."""
        self.env, self.rate, self.burst = env, rate, burst
        self._open = rate + burst / TICK
        self.stage = Stage(name, self._open, told=self._look)
        self.fabric: Fabric | None = None  # whose flows cross the stage, if any do
        self.charged = self.largest = 0.0  # bytes of all charges, of the largest one
        self._tokens, self._since, self._carried = burst, env.now, 0.0
        self._alarm = 0  # number of the live one
        self._binds = False  # flows would be faster without it
        self._waiting = 0  # others that wait for it
        self._throttled = 0.0

    @property
    def over(self) -> bool:
        """More is used than there is: wait for `ready`."""
        self._settle()
        return self._tokens < 0.0

    @property
    def ready(self) -> float:
        """When what is owed is paid back, s on the clock, if nothing more is charged."""
        self._settle()
        return self.env.now + max(0.0, -self._tokens / self.rate)

    @property
    def throttled(self) -> float:
        """Seconds so far in which something of the owner waited for the bucket."""
        self._settle()
        return self._throttled

    def charge(self, size: float) -> None:
        """Bytes are moved by work that is not a flow of the stage."""
        self._settle()
        self._tokens -= size
        self.charged += size
        self.largest = max(self.largest, size)
        self._look()

    def check(self, chargers: int) -> None:
        """Assert INV-RATES: no more than the burst and what has come since, and the last charge of each who charges."""
        most = (self.burst + self.rate * self.env.now) * (1.0 + ROUNDING) + chargers * self.largest
        used = self.stage.carried + self.charged
        assert used <= most, f"INV-RATES {self.stage.name}: {used} bytes moved, at most {most} may be"

    def waits(self, more: int) -> None:
        """So many more (less) of the owner's sequences or requests wait."""
        self._settle()
        self._waiting += more

    def _settle(self) -> None:
        """Tokens that came, and bytes that flows took, since the last time."""
        elapsed, carried = self.env.now - self._since, self.stage.carried
        if self._binds or self._waiting:
            self._throttled += elapsed
        tokens = min(self.burst, self._tokens + self.rate * elapsed - (carried - self._carried))
        self._tokens = tokens if abs(tokens) > self.rate * TICK else 0.0
        self._since, self._carried = self.env.now, carried

    def _look(self) -> None:
        """The rates of flows, or the tokens, have changed: the rate of the stage, and when it has to change."""
        self._settle()
        if self.fabric is None:
            return
        tokens, load = self._tokens, sum([flow.rate for flow in self.stage.flows])
        rate, wait = self.rate, None
        if tokens > 0.0:
            rate = self._open
            wait = tokens / (load - self.rate) if load > self.rate else None
        elif tokens < 0.0:
            rate = 0.0
            wait = -tokens / self.rate if self.stage.flows else None
        self._binds = bool(self.stage.flows) and tokens <= 0.0 and load >= FULL * rate
        self._alarm += 1  # the one before is stale
        if wait is not None:
            self.env.timeout(wait, self._alarm).callbacks.append(self._ring)
        if rate != self.stage.rate:
            self.fabric.set_rate(self.stage, rate)

    def _ring(self, alarm: simpy.Event) -> None:
        if alarm.value == self._alarm:
            self._settle()
            self._tokens = 0.0  # whatever rounding says
            self._look()
