"""Prefill and decode on different replicas: prompts are computed here, tokens there, and KV crosses in between.

A request that arrives is given to a replica of each kind, by the routing rule among each kind. The first computes its prompt
and gives out the first token (TTFT is the time to that, as in vLLM's benchmark). Its KV follows layer by layer: what a step
adds to a prompt can go as soon as a layer is computed,

    all layers but the last   from the end of the step's first layer, no faster than layers are computed
    the last one              when the step is done, and the others have gone

over one path of shared stages: ports of the GPUs that send, the links of `cluster.transfer`, ports of those that receive.
Replicas in lock step have their ports in one bundle, of which a prompt uses as many as one of them has.
Pieces of one prompt follow each other, prompts share the path fairly (`hardware.fabric`), by the weight of their tenants, also
with far reads of a shared pool; those of a tenant over its budget wait or have its rate (`tenants.py`).
When the last byte has come, one latency later, the request joins the queue of its decode replica, which admits it when its
blocks fit; it decodes from its second token on. What comes between its first two tokens is so: transfer, queue, a step.

Of a prompt only that crosses which its decodes will find: of a window its newest tokens, states with its last piece.
Prompts below the threshold are computed where they are decoded. Prefixes found in a cache of the prefill replica cross as well.
Not modelled: memory for KV that is sent or waits to be admitted, prefix caches of decode replicas, a prompt whose decode
replica is chosen late, KV that is compressed to cross; beside a shared pool, KV that follows before its step is done.
Events: about six for each step and prompt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import inf

import simpy

from simulator.hardware.fabric import DEMAND, Fabric, Share, Stage
from simulator.scheduler.engine import Engine
from simulator.scheduler.frontend import Frontend
from simulator.scheduler.lockstep import Lockstep
from simulator.scheduler.planning import StepPlan
from simulator.scheduler.routing import Rule
from simulator.scheduler.tenants import Tenants
from simulator.scheduler.work import Work

Way = tuple[Sequence[tuple[Stage, float]], float, float]  # stages and weights; s of latency; most bytes/s of one prompt


class Crossing:
    """The KV of one prompt on its way."""

    def __init__(self, way: Way):
        self.way, self.latency, self.most = way
        self.size = 0.0  # raw bytes
        self.waiting: deque[tuple[float, float, float]] = deque()  # ready at, bytes, most bytes/s
        self.moving = False
        self.complete = False  # nothing is added any more
        self.last = 0.0  # when the last bytes so far had gone


class Disaggregated(Frontend):
    """A router before prefill and decode replicas, and the way between them."""

    def __init__(
        self, env: simpy.Environment, work: Work, engines: Sequence[Engine | Lockstep], rules: tuple[Rule, Rule], prefill: int,
        fabric: Fabric, ways: Mapping[tuple[int, int], Way], threshold: int, held: Callable[[int], float],
        tenants: Tenants | None = None,
    ):  # fmt: skip
        """The first `prefill` engines compute prompts; `ways`: between two places; `rules`: among each kind; `held`: bytes of
        the KV of so many tokens."""
        super().__init__(env, work, engines, rules[1])
        self._prompts, self._prefill = rules[0], prefill
        self.fabric, self._ways, self._threshold = fabric, ways, threshold
        self._decodes_at: dict[int, int] = {}  # request that is remote -> place of its decode replica
        self._crossings: dict[int, Crossing] = {}
        self._held, self._tenants = held, tenants
        self.moved = 0.0  # raw bytes
        self.remote: dict[int, float] = {}  # request -> s at which its KV was there
        for engine in engines[:prefill]:
            engine.computed = self._computing(engine)

    def route(self, request: int) -> None:
        first, decodes = self._prefill, self.engines[self._prefill :]
        place = first + self._rule.choose(request, decodes)
        if self.work.prompt[request] < self._threshold:
            self.engines[place].arrival[request] = self.work.arrival[request]
            self.give(request, place)
            return
        start = self._prompts.choose(request, self.engines[:first])
        self._decodes_at[request] = place
        self._crossings[request] = Crossing(self._ways[start, place])
        self.give(request, start)

    def ended(self, place: int, request: int, clock: float) -> None:
        crossing = self._crossings.get(request) if place < self._prefill else None
        engine = self.engines[place]
        if crossing is None or engine.recorder.gives_up(request):
            self._crossings.pop(request, None)
            self._last(place, request, clock)
            return
        crossing.complete = True
        if self.work.output[request] == 1:
            crossing.waiting.clear()
            del self._crossings[request]
            self._last(place, request, clock)
        else:
            self._go_on(request, crossing)

    def used(self, seconds: float) -> dict[str, float]:
        """Utilisation of the links between the replicas; of what cannot bind, and so is not in the fabric, none."""
        stages = {stage.name: stage for way, *_ in self._ways.values() for stage, _ in way if stage.name.startswith("transfer")}
        return {name: stage.carried / (stage.rate * seconds) for name, stage in stages.items() if seconds > 0.0}

    def _last(self, place: int, request: int, clock: float) -> None:
        """A request has ended for good; with the last one all do."""
        super().ended(place, request, clock)
        if not self._open:
            super()._close()

    def _close(self) -> None:
        """Replicas go on while prompts are on their way."""

    def _computing(self, engine: Engine | Lockstep) -> Callable[[StepPlan, float, float, float], None]:
        def computed(plan: StepPlan, start: float, layer: float, end: float) -> None:
            """A step begins: its prompt pieces, when its first layer does, s of a layer, when it is done."""
            for request, take in plan.pieces:
                self._add(engine, request, take, engine.prompt_done(request), start, layer, end)

        return computed

    def _add(
        self, engine: Engine | Lockstep, request: int, take: int, done: int, start: float, layer: float, end: float
    ) -> None:
        """`take` tokens of a prompt are computed, on top of `done`."""
        crossing, layers = self._crossings[request], engine.geometry.layers
        whole = self.work.prompt[request]
        left = self._held(whole - done)
        if not crossing.size and done:
            self._put(request, crossing, start, self._held(whole) - left, inf)  # found in a prefix cache
        each = (left - self._held(whole - done - take)) / layers
        if layers > 1:
            self._put(request, crossing, start + layer, each * (layers - 1), each / layer)
        self._put(request, crossing, end, each, inf)

    def _put(self, request: int, crossing: Crossing, ready: float, size: float, rate: float) -> None:
        if size <= 0.0:
            return
        crossing.size += size
        self.moved += size
        if self._tenants is not None:
            self._tenants.crosses(request, size)
        crossing.waiting.append((ready, size, rate))
        self._go_on(request, crossing)

    def _go_on(self, request: int, crossing: Crossing) -> None:
        """The next bytes of a prompt set out, or it is there."""
        if crossing.moving:
            return
        if crossing.waiting:
            ready, size, rate = crossing.waiting.popleft()
            crossing.moving = True
            wait = max(0.0, ready - self.env.now)
            way: Sequence[tuple[Stage, float]] = crossing.way
            share: Share = 1.0
            if self._tenants is not None:
                way, share = [*way, *self._tenants.way(request)], self._tenants.share(request)
            flow = self.fabric.move(size, way, DEMAND, min(rate, crossing.most), wait, f"prompt {request}", share)
            flow.done.callbacks.append(lambda _: self._crossed(request, crossing))
        elif crossing.complete:
            timer = self.env.timeout(max(0.0, crossing.last + crossing.latency - self.env.now))
            timer.callbacks.append(lambda _: self._arrived(request))

    def _crossed(self, request: int, crossing: Crossing) -> None:
        crossing.moving, crossing.last = False, self.env.now
        if request in self._crossings:
            self._go_on(request, crossing)

    def _arrived(self, request: int) -> None:
        """All of a prompt's KV is at its decode replica."""
        del self._crossings[request]
        place = self._decodes_at[request]
        first = self.engines[0].recorder.finished[request]  # one column for all that compute prompts
        self.remote[request] = now = max(self.env.now, first)
        self.engines[place].arrival[request] = now
        self.engines[place].bring(request, first)
        self.give(request, place)
