"""Data-parallel replicas of a MoE model that step together, because they share its experts.

Every replica has its own queue, batch and KV cache, and plans its own steps. The routed experts are dealt out over the GPUs
of all replicas, so each MoE layer brings the tokens of all replicas to the experts and back: all replicas compute layer by
layer at the same time, and a layer starts when the slowest one is there. Layers of one replica take equal times, so

    step = host + max over replicas of (dense parts, attention, head) + experts(all tokens) + exchange(largest replica)

A replica with nothing to do runs a dummy step of one token, as vLLM's does; if none has anything, time passes until the next
arrival. A request goes to the replica with the least (4 * waiting + running) when it arrives, the first of equals: vLLM's
internal load balancer. It counts what it was told after the last step, and what it sent since.

Several such groups may stand behind a router (`frontend.py`), which sees each as one; its own balancer deals out what it got.
All replicas are one row of the recorder a step: sums of their work, the time parts of the slowest one. A step begins when the
slowest has copied its preempted sequences out and back; with `prefill_first` some compute prompts while others decode.
Not modelled: the all-reduce by which vLLM's replicas agree that there is work, counts that reach the balancer late.
Events: one per step, one per idle period. Steps are not coalesced: the slowest replica may change from one to the next.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Sequence

import simpy
from simpy.events import NORMAL

from simulator.kvcache.geometry import Geometry
from simulator.metrics.recorder import Recorder
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.arrivals import Arrivals, Inbox
from simulator.scheduler.moments import At
from simulator.scheduler.planning import PlannedReplica, StepPlan
from simulator.scheduler.pricing import SharedStep, shared_step
from simulator.scheduler.swap_steps import SwapSteps
from simulator.scheduler.work import Work

WAITING_WEIGHT = 4  # of a waiting request, against 1 of a running one


class Lockstep:
    """Replicas in time."""

    def __init__(
        self, env: simpy.Environment, scenario: ScenarioResolved, geometry: Geometry, work: Work, recorder: Recorder,
        fed: bool = False,
    ):  # fmt: skip
        """`fed`: requests come one by one (`deliver`), until it is told that no more will (`close`)."""
        self.env, self.recorder, self.arrival = env, recorder, work.arrival
        self.replicas = [PlannedReplica(scenario, geometry, work, recorder) for _ in range(scenario.gpus.data_parallel)]
        for lane, replica in enumerate(self.replicas):
            replica.lane = lane
        recorder.held += [array("q") for _ in self.replicas[1:]]
        self.model = self.replicas[0].model
        self.clock = 0.0
        self.steps = self.events = 0
        self.inbox = Inbox(work.arrival)
        self.arrivals: Arrivals | Inbox = self.inbox
        if not fed:
            self.arrivals = whole = work.arrivals()
            if work.after:
                self.tells(whole.ended)
        self._fed = fed
        self._sleeping: simpy.Event | None = None  # fed, and nothing to do
        self.turn = NORMAL  # of several groups: who goes first where steps end at the same moment
        self.process: simpy.Process | None = None
        self.swaps = SwapSteps([replica.swap for replica in self.replicas], geometry, recorder)
        self._brought: dict[int, float] = {}  # requests that come with their KV: when their first token was given out
        # as `Engine.computed`, told of each replica's plan
        self.computed: Callable[[StepPlan, float, float, float], None] | None = None

    @property
    def geometry(self) -> Geometry:
        return self.replicas[0].geometry

    def tells(self, ended: Callable[[int, float], None]) -> None:
        """Whom to tell of each request that ends, and when."""
        for replica in self.replicas:
            replica.ended = ended

    @property
    def open_requests(self) -> int:
        """Requests that it has been given and that have not ended yet."""
        return self.arrivals.left + self._present

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens to compute where the next request would go now, and of those that have not been dealt out yet."""
        waiting: int = sum([self.replicas[0].prompt[request] for request in self.inbox.waiting])
        return waiting + self._least_loaded().uncomputed

    @property
    def claimed_share(self) -> float:
        """KV blocks that its requests claim, or ask for with the prompts that wait, by the blocks that there are."""
        waiting = sum([replica.asked_blocks(replica.queue) + replica.residency.claimed for replica in self.replicas])
        waiting += self.replicas[0].asked_blocks(self.inbox.waiting)
        return waiting / sum([replica.lasting for replica in self.replicas])

    def cached_tokens(self, ids: Sequence[int], tokens: int) -> tuple[int, int]:
        """Of a prompt of so many tokens, with these ids of blocks, those in the prefix cache where it would go, all in L1."""
        return self._least_loaded().found_tokens(ids, tokens, self.env.now)

    def prompt_done(self, request: int) -> int:
        """Tokens of its prompt that are computed, of one in prefill."""
        return next(replica.prompt_done(request) for replica in self.replicas if request in replica.prefilling)

    def bring(self, request: int, first_token: float) -> None:
        """As a replica's, of the one to which it will be dealt out."""
        self._brought[request] = first_token

    def deliver(self, request: int) -> None:
        """A request has arrived here, now."""
        self.inbox.put(request)
        self._wake()

    def close(self) -> None:
        """Nothing will be delivered any more."""
        self._fed = False
        self._wake()

    def _wake(self) -> None:
        if self._sleeping is not None:
            sleeping, self._sleeping = self._sleeping, None
            sleeping.succeed()

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
            for replica in self.replicas:
                if replica.prefixes is not None:
                    replica.prefixes.look(self.clock)
            if self._present:
                yield from self._step()
            elif self.arrivals.left:
                until = max(self.clock, self.arrivals.next)
                yield At(self.env, until, self.turn)
                self._to(until)
                self._balance(until)
            elif self._fed:
                self._sleeping = self.env.event()
                yield self._sleeping
                continue
            else:
                return
            self.events += 1

    def _to(self, clock: float) -> None:
        self.clock = clock
        for replica in self.replicas:
            replica.clock = clock

    def _balance(self, until: float) -> None:
        """Requests that arrive until then join a replica each."""
        while self.arrivals.next <= until:
            replica, request = self._least_loaded(), self.arrivals.take()
            self.recorder.lane[request] = replica.lane
            if request in self._brought:
                replica.bring(request, self._brought.pop(request))
            replica.offer(request)

    def _least_loaded(self) -> PlannedReplica:
        """The replica that gets the next request."""
        return min(self.replicas, key=lambda replica: WAITING_WEIGHT * len(replica.queue) + len(replica.running))

    def _step(self) -> Generator[simpy.Event, None, None]:
        plans = [replica.plan() for replica in self.replicas]
        if not any(plans):
            return  # everything was preempted
        shared = shared_step(self.replicas, plans)
        swapped = self._copies(plans)
        present = [replica.present for replica in self.replicas]
        start, run = self.clock, self.recorder.runs.count
        end = start + (shared.duration + swapped)
        self._record(start, plans, shared, swapped)
        if self.computed is not None:
            self._tell(plans, shared, swapped)
        yield At(self.env, end, self.turn)
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

    def _copies(self, plans: Sequence[StepPlan | None]) -> float:
        """Preempted sequences are copied out and back, of all replicas at once: all wait for the slowest."""
        both = [(replica.swap, plan) for replica, plan in zip(self.replicas, plans, strict=True)]
        return max([swap.seconds(plan.copies) for swap, plan in both if swap is not None and plan is not None], default=0.0)

    def _tell(self, plans: Sequence[StepPlan | None], shared: SharedStep, swapped: float) -> None:
        """Prompts are computed: all replicas do their layers at the same time."""
        assert self.computed is not None
        for plan in plans:
            if plan is not None and plan.pieces:
                head, start = self.model.head(plan.rows).total, self.clock + swapped
                begin = start + shared.host
                layer = max(0.0, shared.duration - shared.host - head) / self.model.layers
                self.computed(plan, begin, layer, max(begin + layer, start + shared.duration - head))

    def _record(self, start: float, plans: Sequence[StepPlan | None], shared: SharedStep, swapped: float) -> None:
        done = [plan for plan in plans if plan is not None]
        decodes, context, tokens, rows = (
            sum(getattr(plan, name) for plan in done) for name in ("decodes", "context", "tokens", "rows")
        )
        recorder, run = self.recorder, self.recorder.runs.count
        recorder.runs.append((start, 1, decodes, context, 0, tokens, rows, 0.0, 0.0, 0))
        duration, *parts = shared.columns
        recorder.given.append((run, duration + swapped, *parts))
        if swapped:
            self.swaps.note(run, duration + swapped, swapped)
