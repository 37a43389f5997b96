"""Data-parallel replicas of a MoE model that step together, because they share its experts.

Every replica has its own queue, batch and KV cache, and plans its own steps. The routed experts are dealt out over the GPUs
of all replicas, so each MoE layer brings the tokens of all replicas to the experts and back: all replicas compute layer by
layer at the same time, and a layer starts when the slowest one is there. Layers of one replica take equal times, so

    step = host + max over replicas of (dense parts, attention, head) + experts(all tokens) + exchange(largest replica)

A replica with nothing to do runs a dummy step of one token, as vLLM's does; if none has anything, time passes until the next
arrival. A request goes to the replica with the least (4 * waiting + running) when it arrives, the first of equals: vLLM's
internal load balancer. It counts what it was told after the last step, and what it sent since.

All replicas are one row of the recorder a step: sums of their work, the time parts of the slowest one.
Not modelled: the all-reduce by which vLLM's replicas agree that there is work, counts that reach the balancer late.
Events: one per step, one per idle period. Steps are not coalesced: the slowest replica may change from one to the next.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import simpy

from simulator.kvcache.geometry import Geometry
from simulator.metrics.recorder import Recorder
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.planning import PlannedReplica, StepPlan
from simulator.scheduler.pricing import SharedStep, shared_step
from simulator.scheduler.work import Work

WAITING_WEIGHT = 4  # of a waiting request, against 1 of a running one


class Lockstep:
    """Replicas in time."""

    def __init__(self, env: simpy.Environment, scenario: ScenarioResolved, geometry: Geometry, work: Work, recorder: Recorder):
        self.env, self.recorder, self.arrival = env, recorder, work.arrival
        self.replicas = [PlannedReplica(scenario, geometry, work, recorder) for _ in range(scenario.gpus.data_parallel)]
        self.model = self.replicas[0].model
        self.clock = 0.0
        self.steps = self.events = 0
        self.arrivals = work.arrivals()
        if work.after:
            for replica in self.replicas:
                replica.ended = self.arrivals.ended

    @property
    def open_requests(self) -> int:
        """Requests that have not ended yet."""
        return self.arrivals.left + self._present

    @property
    def presence(self) -> float:
        """Integral of the number of requests in the system."""
        return sum(replica.presence for replica in self.replicas)

    @property
    def _present(self) -> int:
        return sum(replica.present for replica in self.replicas)

    def run(self) -> Generator[simpy.Event, None, None]:
        """The SimPy process: returns when every request has ended."""
        self._balance(0.0)
        while True:
            before = self.clock
            for replica in self.replicas:
                if replica.prefixes is not None:
                    replica.prefixes.look(before)
            if self._present:
                self._step()
            elif self.arrivals.left:
                self._to(max(self.clock, self.arrivals.next))
                self._balance(self.clock)
            else:
                return
            self.events += 1
            yield self.env.timeout(self.clock - before)

    def _to(self, clock: float) -> None:
        self.clock = clock
        for replica in self.replicas:
            replica.clock = clock

    def _balance(self, until: float) -> None:
        """Requests that arrive until then join a replica each."""
        while self.arrivals.next <= until:
            load = [WAITING_WEIGHT * len(replica.queue) + len(replica.running) for replica in self.replicas]
            self.replicas[load.index(min(load))].offer(self.arrivals.take())

    def _step(self) -> None:
        plans = [replica.plan() for replica in self.replicas]
        if not any(plans):
            return  # everything was preempted
        shared = shared_step(self.replicas, plans)
        present = [replica.present for replica in self.replicas]
        start, end, run = self.clock, self.clock + shared.duration, self.recorder.runs.count
        self._record(start, plans, shared)
        self._to(end)
        asynchronous = self.replicas[0].spec.asynchronous
        self._balance(start if asynchronous else end)  # by what was known before this step was done
        for replica, plan, count in zip(self.replicas, plans, present):
            if plan is None:
                replica.batch.advance(1, 0)
            else:
                replica.commit(plan, run, start, end)
            replica.presence += count * (end - start)
        self.steps += 1

    def _record(self, start: float, plans: Sequence[StepPlan | None], shared: SharedStep) -> None:
        done = [plan for plan in plans if plan is not None]
        decodes, context, tokens, rows = (
            sum(getattr(plan, name) for plan in done) for name in ("decodes", "context", "tokens", "rows")
        )
        self.recorder.runs.append((start, 1, decodes, context, 0, tokens, rows, 0.0, 0.0, 0))
        self.recorder.given.append((self.recorder.runs.count - 1, *shared.columns))
