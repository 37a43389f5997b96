"""Admission control: whether a request that has arrived may wait at all. A rule is a class and a line in `GATES`.

    queue     everybody waits
    limit     rejected if `max_queue` requests wait already
    deadline  rejected if it cannot meet the TTFT of its SLO class, whatever happens: the prompt tokens that wait before it in
              the queue and its own take at least ceil(tokens / token_budget) steps that do nothing else, and the host's
              time of each. Without a TTFT, everybody waits

What a request finds is known when the engine takes it up (at the end of the step in which it arrives); the time that it waited
for that counts. A rejected request is not offered again.
"""

from __future__ import annotations

from typing import Protocol

from simulator.hardware.gpu import StepModel
from simulator.scenario.resolved import Scheduler
from simulator.scheduler.queues import Known, Ordered, Queue


class Waiting(Protocol):
    """What a rule sees of a replica."""

    clock: float
    queue: Queue


class Open:
    def __init__(self, spec: Scheduler, model: StepModel, known: Known):
        self.spec, self.model, self.known = spec, model, known

    def lets_in(self, replica: Waiting, request: int) -> bool:
        return True


class Limit(Open):
    def lets_in(self, replica: Waiting, request: int) -> bool:
        return len(replica.queue) < self.spec.max_queue


class Deadline(Open):
    def __init__(self, spec: Scheduler, model: StepModel, known: Known):
        super().__init__(spec, model, known)
        self._full = model.base(spec.token_budget, 1)

    def lets_in(self, replica: Waiting, request: int) -> bool:
        ttft, prompt = self.known.of(request).ttft, self.known.prompt
        if ttft is None:
            return True
        queue = replica.queue
        ahead = queue.before(request) if isinstance(queue, Ordered) else queue
        full, rest = divmod(sum(prompt[one] for one in ahead) + prompt[request], self.spec.token_budget)
        least = full * self._full + (self.model.base(rest, 1) if rest else 0.0)
        return replica.clock - self.known.arrival[request] + least <= ttft


GATES: dict[str, type[Open]] = {"queue": Open, "limit": Limit, "deadline": Deadline}
