"""One replica in time: the decode replay loop (design 3.2, 3.4, 3.7).

Each turn of the loop takes the arrivals so far into the queue and does either one step - planned (`planning.py`), priced
here, committed - or a run of equal steps: as many as pass until the first end of a sequence, an arrival, or the last free
block that can be given without moving one; it needs no prompt in work, nobody to admit and nothing far. Its durations are a
vector in the context, its clock the sequential sum, so a run gives the same bytes as its single steps.

`asynchronous`: the engine plans a step while the one before runs, so what arrives during a step is in the next but one.
What ends with a step gives its place to the next all the same (an engine that frees it a step later is not modelled).

Time and state agree: a step is planned when it begins and committed when it ends, so whoever looks at a replica in between
(a router) sees what it had done by then. A replica alone has all its requests in its `inbox` from the start. One of several is
`fed`: requests are put there as they arrive (`deliver`), which cuts a run of steps at the end of the step it falls into.

Events: one per step or run, one per idle period; where fed, one more per run that is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from math import inf

import simpy
from simpy.events import NORMAL

from simulator.hardware.interference import UNDISTURBED
from simulator.kvcache.geometry import Geometry
from simulator.kvcache.identity import PagedResidency
from simulator.kvcache.residency import Lru
from simulator.metrics.recorder import Recorder
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.arrivals import Arrivals, Inbox
from simulator.scheduler.equal_steps import Run
from simulator.scheduler.far import FarMemory
from simulator.scheduler.far_steps import far_step
from simulator.scheduler.faults import Faults
from simulator.scheduler.moments import At
from simulator.scheduler.planning import PlannedReplica, StepPlan
from simulator.scheduler.pricing import attention_beside, uneven
from simulator.scheduler.queues import Fair
from simulator.scheduler.shared import Room
from simulator.scheduler.swap_steps import SwapSteps
from simulator.scheduler.tenants import Tenants
from simulator.scheduler.work import Work

Events = Generator[simpy.Event, None, None]


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
        fed: bool = False,
    ):
        """`fed`: requests come one by one (`deliver`), until it is told that no more will (`close`)."""
        super().__init__(scenario, geometry, work, recorder, far, pages)
        self.env, self.coalesce = env, coalesce
        self.steps = self.events = 0
        self.swaps = SwapSteps([self.swap], geometry, recorder)
        self.inbox = Inbox(work.arrival)
        self.arrivals: Arrivals | Inbox = self.inbox
        if not fed:
            self.arrivals = whole = work.arrivals()
            if work.after:
                self.ended = whole.ended
            if self.reuse is not None:
                whole.announced = self.reuse.announce
        self._known = 0.0  # arrivals up to then can be in the next step
        self.faults: Faults | None = None  # set by who has them
        self._fed = fed
        self._sleeping: simpy.Event | None = None  # fed, and nothing to do
        self.turn = NORMAL  # of several: who goes first where steps end at the same moment
        self._run: Run | None = None  # the run under way
        self._cut = inf  # fed: what ends the run under way
        self.yields = False  # somebody follows at this very moment on who has ended here: the router goes first
        self.process: simpy.Process | None = None
        self.room: Room | None = None  # of a pool that it shares with others
        # told of each step with prompts: its plan, when its first layer begins, s of a layer, when the last one is done
        self.computed: Callable[[StepPlan, float, float, float], None] | None = None

    @property
    def open_requests(self) -> int:
        """Requests that it has been given and that have not ended yet."""
        return self.arrivals.left + self.present

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens of its requests that have not been computed yet."""
        waiting: int = sum([self.prompt[request] for request in self.inbox.waiting])
        return waiting + self.uncomputed

    @property
    def claimed_share(self) -> float:
        """KV blocks that its requests claim, or ask for with the prompts that wait, by the blocks that there are."""
        waiting, begun = self.asked_blocks((*self.inbox.waiting, *self.queue)), self._begun()
        if begun and self.spec.reserve != "full":
            waiting += self.batch.new_blocks(begun)
        return (self.residency.claimed + waiting) / self.lasting

    def _begun(self) -> int:
        """Steps of the run under way that have begun by now."""
        return self._run.to(self.env.now)[0] if self._run is not None else 0

    def claimed_before(self, moment: float) -> int:
        """Blocks claimed by those admitted, with what the steps of the run under way that end before a moment have added."""
        if self._run is None or self.spec.reserve == "full":
            return self.residency.claimed
        return self.residency.claimed + self.batch.new_blocks(self._run.to(moment)[0] - 1)

    def cached_tokens(self, ids: Sequence[int], tokens: int) -> tuple[int, int]:
        """Tokens of a prompt, with these ids of blocks, that it need not compute, and those of them that are in its L1."""
        return self.found_tokens(ids, tokens, self.env.now, self._begun())

    def preempt(self, request: int, keeps: bool = True) -> None:
        super().preempt(request, keeps)
        if self.room is not None:
            self.room.freed(self)

    def tells(self, ended: Callable[[int, float], None]) -> None:
        """Whom to tell of each request that ends, and when."""
        self.ended = ended

    @property
    def reaches(self) -> bool:
        """Nothing broken keeps it from its far pages."""
        return self.faults is None or self.faults.reaches

    def deliver(self, request: int) -> None:
        """A request has arrived here, now."""
        self.inbox.put(request)
        if self._sleeping is not None:
            self.wake()
        elif not self.queue or self.overtakes or not self.ever_fits(request):
            # while the head of the queue waits, others at its end change nothing; but who is rejected waits no longer
            self.cut(self.arrival[request])

    def expect(self, turn: int, arrival: float) -> None:
        """The next turn of a session that was here will arrive then."""
        if self.reuse is not None:
            self.reuse.announce(turn, arrival)
            self._changes()

    def stray(self, turn: int) -> None:
        """One that was expected here has gone to another replica."""
        if self.reuse is not None:
            self.reuse.stray(turn)
            self._changes(self.env.now)

    def _changes(self, at: float = inf) -> None:
        """Something happens then, or earlier than it was known."""
        self.cut(min(at, self._next_change))
        self.wake()

    def cut(self, at: float) -> None:
        """The run under way ends with the step into which `at` falls."""
        if self._run is not None and at < self._cut and self.process is not None:
            self._cut = at
            self.process.interrupt()

    def wake(self) -> None:
        """There may be something to do."""
        if self._sleeping is not None:
            sleeping, self._sleeping = self._sleeping, None
            sleeping.succeed()

    def close(self) -> None:
        """Nothing will be delivered any more."""
        self._fed = False
        self.wake()

    @property
    def replicas(self) -> list[PlannedReplica]:
        return [self]

    def run(self) -> Events:
        """The SimPy process: returns when every request has ended."""
        arrivals = self.arrivals
        while True:
            if self.faults is not None:
                self.faults.happen(self.clock)
            if self.prefixes is not None:
                self.prefixes.look(self.clock)
            known = self._known if self.present and self.spec.asynchronous else self.clock
            while arrivals.next <= known:
                self.offer(arrivals.take())
            if self.yields:
                self.yields = False
                yield from self._pass(self.clock)
                continue
            if self.room is not None:
                self.room.lend(self)
            self.heed()
            if self.running or self.queue:
                before, present = self.clock, self.present
                drawn = self.pages is not None and not self.policy.dense  # page sets change with every step
                if self.faults is not None and self.faults.holds():
                    yield from self._wait(self.faults.next_at - self.clock)
                elif self.room is not None and not self.running and not self.over and not self.admits():
                    yield from self._sleep(self._next_change)  # others have the room that the head of the queue needs
                    self.clock = max(self.clock, self.env.now)
                elif self._steps_singly(drawn):
                    yield from self._step()
                else:
                    yield from self._run_of_steps()
                self.events += 1
                self.presence += present * (self.clock - before)
            elif arrivals.left:
                self.events += 1
                until = min(arrivals.next, self._next_change)
                idle = max(0.0, until - self.clock)
                if self.far is not None:
                    self.far.quiet(idle)
                yield from self._pass(max(self.clock, until))
                # a turn that follows on one that was rejected is announced when that is noticed, late for its own time
                self.clock = max(self.clock, until, self.env.now)
            elif self._fed:
                yield from self._sleep(self._next_change)
                yield from self._pass(self.env.now)
                if self.far is not None:
                    self.far.quiet(self.env.now - self.clock)
                self.clock = self.env.now
                self.events += arrivals.left > 0
            else:
                return

    def _steps_singly(self, drawn: bool) -> bool:
        """The next step is planned alone."""
        if self.prefilling or drawn or self.over or self.admits():
            return True
        return self.far is not None and self._unsettled(self.far)

    def _unsettled(self, far: FarMemory) -> bool:
        """Steps read far pages, or wait for room in L2."""
        return not self.residency.settled() or (self.reuse is not None and far.overflow > 0.0)

    def _sleep(self, until: float = inf) -> Events:
        """Until there may be something to do, which is so at `until`."""
        if self.far is not None:
            self.far.cancel()
        self._sleeping = sleeping = self.env.event()
        if until < inf:
            At(self.env, until, self.turn).callbacks.append(lambda _: self.wake() if self._sleeping is sleeping else None)
        yield sleeping

    def _pass(self, until: float) -> Events:
        """Time passes."""
        yield At(self.env, until, self.turn)

    @property
    def _next_change(self) -> float:
        """When something happens that is neither an arrival nor the end of a step."""
        faults = self.faults.next_at if self.faults is not None else inf
        return min(faults, self.prefixes.next_at) if self.prefixes is not None else faults

    def _wait(self, duration: float) -> Events:
        """Stand still for so long: far pages are out of reach, or nobody that waits can enter."""
        now = self.clock
        assert duration < inf
        self._stood(now, duration)
        yield from self._pass(now + duration)
        self.clock = self._known = now + duration

    def _stood(self, now: float, duration: float) -> None:
        """The replica stands still for so long, from `now` on."""
        far = self.far
        if far is None:
            return
        if self.running:
            staged, residency = min(far.backlog, self.geometry.l2_bytes), self.residency
            totals = far.moved, far.sent, far.counts.useless
            self.recorder.waits(now, duration, residency.l1_used, residency.l3_used, staged, totals)
            for request in self.batch.offset:
                self._waiting.setdefault(request, now)
        else:
            far.quiet(duration)

    def _wait_for_budgets(self, tenants: Tenants) -> Events:
        """All that is here waits for the bucket of its tenant, or for room that such a sequence has; somebody may arrive."""
        now, until = self.clock, min(tenants.ready(self.over), self.arrivals.next, self._next_change)
        alarm = At(self.env, until, self.turn)
        if self._fed:
            self._sleeping = self.env.event()
            yield self._sleeping | alarm
            self._sleeping = None
        else:
            yield alarm
        duration = max(0.0, self.env.now - now)
        self._stood(now, duration)
        self.clock = self._known = now + duration

    def _run_of_steps(self) -> Events:
        """Decode steps with unchanged membership, nothing far, all new blocks placed in L1."""
        batch, model, now = self.batch, self.model, self.clock
        size, context = batch.size, self.context_read()
        growth = self.growth_read()
        limit = self.steady_steps() if self.coalesce else 1
        room = self.residency.near_room()
        limit = batch.steps_within(room if self.reuse is None else min(room, self.reuse.unseen), limit)
        if self.queue and self.prefixes is not None and self.batching.opens(self):
            limit = int(min(limit, self.prefixes.steps_to_full() - 1))  # a block filled may be what lets the head in
        if limit == 0:
            yield from self._step()
            return
        extra = uneven(self)
        if extra and extra != uneven(self, 1):
            limit = 1  # so few sequences that the shortest of them counts, which grows
        if isinstance(self.queue, Fair) and self.queue.contested:
            limit = 1
        extra *= model.passes(size)
        run = self._run = Run(now, model.base(size, size), model.unit_time(size), context, growth, extra, limit)
        # while the head of the queue waits for blocks or a place, an arrival that cannot overtake it changes nothing
        waits = self.queue and not self.overtakes and all(map(self.ever_fits, self.inbox.waiting))
        until = inf if waits else self.arrivals.next
        self._cut = until = min(until, self._next_change)
        if self.far is not None:
            self.far.cancel()
        steps, end, last = run.to(until)
        while True:
            try:
                yield At(self.env, end, self.turn)
                break
            except simpy.Interrupt:
                self.events += 1
                steps, end, last = run.to(self._cut)
        self._run = None
        self.recorder.runs.append((now, steps, size, context, growth, 0, size, 0.0, extra, self.elsewhere))
        if self._waiting:
            self._first_decodes(self.recorder.runs.count - 1, now)
        blocks = batch.new_blocks(steps)
        if steps > 1 and isinstance(self.residency, Lru):  # it knows the scan of the last step, as after single steps
            first = batch.new_blocks(steps - 1)
            self.grow_near(first)
            self.residency.settled()
            self.grow_near(blocks - first)
        else:
            self.grow_near(blocks)
        if self.far is not None:
            self.far.quiet(end - now)
        self.clock, self._known = end, last
        self.steps += steps
        batch.advance(steps, blocks)
        if isinstance(self.queue, Fair):
            self.queue.decoded(batch.offset, steps)
        if self.pages is not None:
            self.pages.ran(batch.step, steps)
        for request in batch.ended():
            self._finish(request)

    def _step(self) -> Events:
        """One step, with prompts in work, something far, or a block that has no room in L1."""
        model, now = self.model, self.clock
        plan = self.plan()
        if plan is None:
            if self.over and self.tenants is not None:
                yield from self._wait_for_budgets(self.tenants)
            else:
                yield from self._pass(now)
            return
        tokens, kernels = plan.decodes + plan.tokens, (plan.decodes > 0) + bool(plan.work)
        compute, memory = attention_beside(self, plan)
        extra, passes, run = compute + memory, model.passes(tokens), self.recorder.runs.count
        duration = model.base(tokens, plan.rows, kernels) + model.unit_time(tokens) * plan.context + passes * extra
        work = (plan.decodes, plan.context, 0, plan.tokens, plan.rows)
        self.recorder.runs.append((now, 1, *work, passes * compute, passes * memory, self.elsewhere))
        if self.recorder.pieces is not None:
            self.recorder.pieces += [(run, request, self._done[request], take) for request, take in plan.pieces]
        swapped = 0.0
        if self.swap is not None and plan.copies:
            swapped = yield from self.swap.copied(self.env, plan.copies, self.far.path if self.far is not None else None)
        if self.far is not None:
            layer = model.layer_time(tokens, kernels, plan.context, extra, plan.rows)
            slow = UNDISTURBED
            if self.far.interference is not None:
                context = plan.context if self.other is None else self.other.dense_tokens(plan.context)
                slow = self.far.interference.slow(tokens, context, plan.work)
            scores = model.attention_per_token * self.batch.context
            if self.other is not None:
                scores = self.other.scan_time(self.geometry.dense_tokens(self.batch.blocks))
            duration = yield from far_step(self, self.far, run, plan, layer, duration, slow, scores, swapped)
            self.far.passes_on(sum([copy.far for copy in plan.copies]))
        elif swapped:
            duration += swapped
            self.swaps.note(run, duration, swapped)
        if self.computed is not None and plan.pieces:
            begin = now + swapped + model.host_time(plan.rows)
            layer = model.layer_time(tokens, kernels, plan.context, extra, plan.rows)
            self.computed(plan, begin, layer, max(begin + layer, now + duration - model.head_time(plan.rows)))
        self.steps += 1
        yield from self._pass(now + duration)
        self._known = now
        self.commit(plan, run, now, now + duration)
