"""What a prediction costs: the time of a call, calls in a batch, where they run, the queue before them.

    calls      `hints` predictions are asked for at once, every `pace` seconds (a layer, or a step); a call takes `service` and
               answers `batch` of them
    placement  fpga  beside the link: costs no GPU time
               host  as fpga, and every hint crosses the GPU's port twice (`hop`) before it comes back as a prefetch
               gpu   in the compute stream: the layer takes longer, nothing is left unanswered
    queue      on the fpga and the host: of more hints than it holds the oldest are dropped

One server, first come, first served: between two rounds of hints it answers pace / service * batch of them. What a round leaves
unanswered is dropped, for the next round asks about later pages. All answers of a round count as given with the last one.

Closed form, no events. Not modelled: a server that several replicas share.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from simulator.scenario.resolved import Prefetch


@dataclass(frozen=True)
class Answer:
    """Of one round of hints: the share that is answered, when the last answer comes, GPU time."""

    share: float
    delay: float  # s after the round was asked for
    busy: float  # s of the GPU's compute stream


class Server:
    def __init__(self, spec: Prefetch, hop: float):
        """`hop`: s from the GPU to the host and back."""
        self.spec = spec
        self._latency = spec.latency + (hop if spec.placement == "host" else 0.0)

    def answer(self, hints: int, pace: float) -> Answer:
        """A round of `hints`, `pace` seconds before the next one."""
        spec = self.spec
        if not spec.service or not hints:
            return Answer(self._kept(hints) / hints if hints else 1.0, self._latency, 0.0)
        if spec.placement == "gpu":
            return Answer(1.0, self._latency, ceil(hints / spec.batch) * spec.service)
        answered = min(float(self._kept(hints)), pace / spec.service * spec.batch)
        return Answer(answered / hints, self._latency + ceil(answered / spec.batch) * spec.service, 0.0)

    def _kept(self, hints: int) -> int:
        queued = self.spec.queue and self.spec.placement != "gpu"
        return min(hints, self.spec.queue) if queued else hints
