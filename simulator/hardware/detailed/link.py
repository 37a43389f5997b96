"""One direction of a link: payload rate, propagation, credits.

Modelled: the payload rate is what is left of the line rate after flits or packets (`hardware.protocol`). The receiver's
buffer is handed out as credits, which come back one round trip later, so that a sender sustains at most

    min(payload rate, credits / (2 x latency)),

and stops altogether while the receiver does not drain its buffer (`Device`). While its other direction carries reads, a
write direction is slower by the requests of those reads.
Not modelled: credits by type of packet; retries.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import simpy

from simulator.hardware.detailed.device import Burst, Device


@dataclass(frozen=True)
class LinkParameters:
    bandwidth: float  # payload bytes/s
    latency: float  # s, one way
    credits: float  # bytes of the receive buffer

    @property
    def sustained(self) -> float:
        """Payload bytes/s with the credits in circulation."""
        loop = 2.0 * self.latency
        return min(self.bandwidth, self.credits / loop) if loop > 0.0 else self.bandwidth


class LinkDirection(Device):
    """`weight`: wire payload bytes per raw byte."""

    def __init__(self, env: simpy.Environment, name: str, spec: LinkParameters, weight: float, buffer: float = inf):
        self.spec = spec
        self._reading: LinkDirection | None = None
        self._requests = 0.0
        super().__init__(env, name, spec.sustained, weight, spec.latency, buffer)

    def shares_with(self, reading: LinkDirection, requests: float) -> None:
        """The other direction, each byte of which takes `requests` bytes of this one."""
        self._reading, self._requests = reading, requests

    @property
    def serving(self) -> bool:
        return self._bell is None

    def service(self, burst: Burst) -> float:
        seconds = burst.size * self.weight / self.rate
        other = self._reading
        if self._requests and other is not None and other.serving:
            seconds /= 1.0 - min(self._requests * other.rate / self.rate, 0.99)
        return seconds
