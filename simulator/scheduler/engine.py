"""One replica in time: the decode replay loop (design 3.2, 3.4, 3.7).

Each turn of the loop takes the arrivals so far into the queue and does either one step - planned (`planning.py`), priced
here, committed - or a run of equal steps: as many as pass until the first end of a sequence, an arrival, or the last free
block that can be given without moving one; it needs no prompt in work, nobody to admit and nothing far. Its durations are a
vector in the context, its clock the sequential sum, so a run gives the same bytes as its single steps.

`asynchronous`: the engine plans a step while the one before runs, so what arrives during a step is in the next but one.
What ends with a step gives its place to the next all the same (an engine that frees it a step later is not modelled).

Events: one per step or run, one per idle period.
"""

from __future__ import annotations

from collections.abc import Generator
from math import inf

import numpy as np
import simpy

from simulator.hardware.interference import UNDISTURBED, Slow
from simulator.kvcache.geometry import Geometry
from simulator.kvcache.identity import PagedResidency
from simulator.metrics.recorder import Recorder
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.far import FarMemory, FarStep
from simulator.scheduler.faults import Faults
from simulator.scheduler.paged import PagedFar
from simulator.scheduler.planning import PlannedReplica, StepPlan
from simulator.scheduler.pricing import attention_beside, uneven
from simulator.scheduler.replica import Work

SHORT_RUN = 12  # up to this many steps a Python loop is faster than numpy


class Engine(PlannedReplica):
    """A replica in time. `coalesce=False` takes every step singly."""

    def __init__(
        self,
        env: simpy.Environment,
        scenario: ScenarioResolved,
        geometry: Geometry,
        work: Work,
        recorder: Recorder,
        far: FarMemory | None,
        coalesce: bool = True,
        pages: PagedResidency | None = None,
    ):
        super().__init__(scenario, geometry, work, recorder, far, pages)
        self.env, self.coalesce = env, coalesce
        self.steps = self.events = 0
        self._next = 0  # next request to arrive
        self._known = 0.0  # arrivals up to then can be in the next step
        self.faults: Faults | None = None  # set by who has them

    @property
    def open_requests(self) -> int:
        """Requests that have not ended yet."""
        return len(self.arrival) - self._next + self.present

    @property
    def replicas(self) -> list[PlannedReplica]:
        return [self]

    def run(self) -> Generator[simpy.Event, None, None]:
        """The SimPy process: returns when every request has ended."""
        arrivals, total = self.arrival, len(self.arrival)
        while True:
            if self.faults is not None:
                self.faults.happen(self.clock)
            known = self._known if self.present and self.spec.asynchronous else self.clock
            while self._next < total and arrivals[self._next] <= known:
                self.offer(self._next)
                self._next += 1
            if self.running or self.queue:
                before, present = self.clock, self.present
                drawn = self.pages is not None and not self.policy.dense  # page sets change with every step
                if self.faults is not None and self.faults.holds():
                    self._wait(self.faults.next_at - self.clock)
                elif self.prefilling or drawn or self.admits() or (self.far is not None and not self.residency.settled()):
                    self._step()
                else:
                    self._run_of_steps()
                self.events += 1
                self.presence += present * (self.clock - before)
                yield self.env.timeout(self.clock - before)
            elif self._next < total:
                self.events += 1
                until = min(arrivals[self._next], self._next_fault)
                idle = max(0.0, until - self.clock)
                if self.far is not None:
                    self.far.quiet(idle)
                self.clock = max(self.clock, until)
                yield self.env.timeout(idle)
            else:
                return

    @property
    def _next_fault(self) -> float:
        return self.faults.next_at if self.faults is not None else inf

    def _wait(self, duration: float) -> None:
        """Stand still for so long: far pages are out of reach, or nobody that waits can enter."""
        now, far = self.clock, self.far
        assert far is not None and duration < inf
        if self.running:
            staged, residency = min(far.backlog, self.geometry.l2_bytes), self.residency
            totals = far.moved, far.sent, far.counts.useless
            self.recorder.waits(now, duration, residency.l1_used, residency.l3_used, staged, totals)
            for request in self.batch.offset:
                self._waiting.setdefault(request, now)
        else:
            far.quiet(duration)
        self.clock = self._known = now + duration

    def _run_of_steps(self) -> None:
        """Decode steps with unchanged membership, nothing far, all new blocks placed in L1."""
        batch, model, now = self.batch, self.model, self.clock
        size, context = batch.size, self.context_read()
        growth = model.reads(size, batch.growing)
        limit = batch.steps_to_end() if self.coalesce and self.policy.dense else 1
        if batch.window:
            limit = int(min(limit, batch.steps_to_turn()))
        limit = batch.steps_within(self.residency.near_room(), limit)
        if limit == 0:
            self._step()
            return
        extra = uneven(self)
        if extra and extra != uneven(self, 1):
            limit = 1  # so few sequences that the shortest of them counts, which grows
        extra *= model.passes(size)
        base, per_token = model.base(size, size), model.unit_time(size)
        # while the head of the queue waits for blocks or a place, an arrival changes nothing
        until = self.arrival[self._next] if self._next < len(self.arrival) and not self.queue else inf
        until = min(until, self._next_fault)
        first = base + per_token * context + extra
        if limit > 1 and until < inf:
            limit = max(1, min(limit, int((until - now) / first) + 1))
        if limit <= SHORT_RUN:
            end, steps, last = now + first, 1, now
            while steps < limit and end < until:
                last = end
                end += base + per_token * (context + growth * steps) + extra
                steps += 1
        else:
            ends = base + per_token * (context + growth * np.arange(limit)) + extra
            ends[0] += now
            np.add.accumulate(ends, out=ends)
            steps = limit if until == inf else min(limit, int(np.searchsorted(ends, until)) + 1)
            end, last = float(ends[steps - 1]), float(ends[steps - 2]) if steps > 1 else now
        self.recorder.runs.append((now, steps, size, context, growth, 0, size, 0.0, extra, self.residency.l3_used))
        if self._waiting:
            self._first_decodes(self.recorder.runs.count - 1, now)
        blocks = batch.new_blocks(steps)
        self.grow_near(blocks)
        if self.far is not None:
            self.far.quiet(end - now)
        self.clock, self._known = end, last
        self.steps += steps
        batch.advance(steps, blocks)
        if self.pages is not None:
            self.pages.ran(batch.step, steps)
        for request in batch.ended():
            self._finish(request)

    def _step(self) -> None:
        """One step, with prompts in work, something far, or a block that has no room in L1."""
        model, now = self.model, self.clock
        plan = self.plan()
        if plan is None:
            return
        tokens, kernels = plan.decodes + plan.tokens, (plan.decodes > 0) + bool(plan.work)
        compute, memory = attention_beside(self, plan)
        extra, passes, run = compute + memory, model.passes(tokens), self.recorder.runs.count
        duration = model.base(tokens, plan.rows, kernels) + model.unit_time(tokens) * plan.context + passes * extra
        work = (plan.decodes, plan.context, 0, plan.tokens, plan.rows)
        self.recorder.runs.append((now, 1, *work, passes * compute, passes * memory, self.residency.l3_used))
        if self.recorder.pieces is not None:
            self.recorder.pieces += [(run, request, self._done[request], take) for request, take in plan.pieces]
        if self.far is not None:
            layer = model.layer(tokens, kernels).total + model.attention_per_token * plan.context + extra
            slow = UNDISTURBED
            if self.far.interference is not None:
                slow = self.far.interference.slow(tokens, plan.context, plan.work)
            scores = model.attention_per_token * self.batch.context
            duration = self._far_step(self.far, run, plan, layer, duration, slow, scores)
        self.steps += 1
        self._known = now
        self.commit(plan, run, now, now + duration)

    def _far_step(
        self, far: FarMemory, run: int, plan: StepPlan, layer: float, duration: float, slow: Slow, scores: float
    ) -> float:  # fmt: skip
        """The step against far memory, `layer` seconds of computation a layer: its duration."""
        residency, model = self.residency, self.model
        (reading_far, reading), decodes = plan.far, max(1, plan.decodes)
        before = far.moved, far.sent, far.counts.useless
        host, head = model.host_time(plan.rows), model.head(plan.rows).total
        if isinstance(far, PagedFar):
            step = far.paged_step(self.batch.ending_next(), host, layer, head, plan.produced, duration, slow, decodes, scores)
            self._record_far(run, step, reading - step.reads.asked, before)
            return step.duration
        pages = residency.layers(reading_far, reading, model.layers)
        evicted = residency.take_evicted()
        if evicted:
            far.evicted(evicted)
        asked = sum(pages)
        if asked:
            step = far.step(pages, self.lost(plan.far), host, layer, head, plan.produced, slow, decodes, scores)
        else:
            step = far.unread(plan.produced, duration, slow)
        self._record_far(run, step, reading * model.layers - asked, before)
        return step.duration

    def _record_far(self, run: int, step: FarStep, near: int, before: tuple[int, float, int]) -> None:
        reads = step.reads
        self.recorder.far.append(
            (run, step.duration, step.stall, step.codec, step.writeback, near, reads.asked, reads.demand, reads.in_time,
             reads.late, step.staged, step.dragged, step.predicting, *before)
        )  # fmt: skip
