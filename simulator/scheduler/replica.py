"""The requests of one replica: prompts in work, decodes, what a request does at its ends (design 3.2).

A request that was admitted (`admission.py`) computes its prompt, decodes and ends. A preempted one loses its blocks, goes back
to the queue, and computes its prompt and what it had generated again, or has its blocks copied out and back (`swap.py`).
What it shares with others through a prefix cache is in `prefixes.py`.

State only: steps are planned in `planning.py`, time passes in `engine.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from simulator.hardware.gpu import StepModel
from simulator.kvcache.geometry import Geometry
from simulator.kvcache.identity import PagedResidency
from simulator.kvcache.policy import KvPolicy
from simulator.kvcache.residency import EVICTIONS, Lru, Split
from simulator.metrics.recorder import FINISHED, Recorder
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.batching import BATCHINGS, Batching
from simulator.scheduler.far import FarMemory
from simulator.scheduler.far_in_part import FarInPart
from simulator.scheduler.gate import GATES
from simulator.scheduler.policy_steps import other_steps
from simulator.scheduler.prefixes import Prefixes
from simulator.scheduler.queues import Fair, Known, queue_of
from simulator.scheduler.readers import Readers
from simulator.scheduler.reuse import prefix_of, reuse_of
from simulator.scheduler.stored_batch import batch_of
from simulator.scheduler.swap import swap_of
from simulator.scheduler.tenants import Tenants
from simulator.scheduler.work import Work


class Replica:
    """State of one replica. Of `work` it serves what it is offered."""

    def __init__(
        self, scenario: ScenarioResolved, geometry: Geometry, work: Work, recorder: Recorder, far: FarMemory | None = None,
        pages: PagedResidency | None = None,
    ):  # fmt: skip
        self.recorder, self.far = recorder, far
        self.arrival, self.prompt, self.output = work.arrival, work.prompt, work.output
        self.ended: Callable[[int, float], None] | None = None  # told of each request that ends, and when
        self.geometry = geometry
        self.spec = spec = scenario.scheduler
        self._full = spec.reserve == "full"  # a request claims all blocks that it will need, else those of what it has cached
        self.batching: Batching = BATCHINGS[spec.batching]()
        self.policy = KvPolicy.of(scenario)
        self.other = other_steps(scenario)
        self.model = self.other or StepModel(scenario.model, scenario.gpus, spec.host_overhead, spec.host_per_sequence)
        self.max_context = scenario.model.max_context
        self.pages = pages  # residency by page, where single pages matter
        parks = far is not None and self.policy.sharing == "prefix"  # L3 keeps what nobody reads now
        near = Split(geometry.l1_blocks, 0, geometry.layers) if parks else None
        counted, always = EVICTIONS.get(scenario.kv.eviction, Lru), geometry.near_blocks
        self.residency = pages or near or counted(geometry.l1_blocks, geometry.l3_blocks, geometry.layers, always)
        self.prefix = prefix_of(scenario, geometry, work)
        self.reuse = reuse_of(self.prefix, far, geometry, near, scenario, work, lambda: self.clock)
        self.lasting = self.residency.capacity()  # blocks that there are in the long run, whatever is broken now
        self.reach(self.lasting)
        self.most = min(spec.max_batch, max(1, self.residency.l1_blocks // always))  # what stays near of each fits in L1
        self.batch = batch_of(geometry, 0 if self.other else scenario.model.window)
        self.prefixes: Prefixes | None = None
        if self.prefix is not None:
            self.prefixes = Prefixes(self.prefix, self.reuse, work, self.batch, recorder, scenario.kv.reuse.drop_after)
        self.lane = 0  # of those in lock step, which share a recorder
        self.clock = 0.0
        self.presence = 0.0  # integral of the number of requests in the system
        self.known = Known(work.arrival, work.prompt, work.kind, scenario.slo.classes, work.tenant, scenario.tenants)
        self.queue = queue_of(spec.queue, self.known)
        self.swap = swap_of(scenario, geometry)
        if self.swap is not None:
            self.swap.told = lambda change: recorder.swapped.append((recorder.runs.count, change))
        if self.swap is not None and self.prefixes is not None:
            self.prefixes.watch(self.swap.drop)
        self.overtakes = not isinstance(self.queue, deque) or spec.admission != "queue"  # an arrival counts at once
        self.gate = GATES[spec.admission](spec, self.model, self.known)
        self.brought: set[int] = set()  # of those in the queue, whose prompts another replica has computed: their KV is here
        self.running: dict[int, None] = {}  # in order of admission
        self.prefilling: dict[int, None] = {}
        self._queued_at: dict[int, float] = {}
        self._done: dict[int, int] = {}  # prompt tokens in the cache, of those in prefill
        self._target: dict[int, int] = {}  # prompt tokens to cache: the prompt, and what was generated before preemption
        self._placed: dict[int, int] = {}  # blocks of the prompt that were written
        self._emitted: dict[int, int] = {}  # tokens given out when the prompt was last complete or preempted
        self._last_token: dict[int, float] = {}  # when a preempted request gave out its last token
        # static batches: sequences that wait for the prompts of the others, then for their first decode, since when
        self._held: dict[int, float] = {}
        self._waiting: dict[int, float] = {}
        self._ahead = 0  # 1 while a planned step is under way in which sequences decode
        self._far_decoding = 0  # far blocks of the decoding sequences
        self.readers = Readers(recorder)  # of far memory
        in_part = far is not None and self.other is not None and not parks and pages is None  # else blocks are read whole
        self.in_part = FarInPart(scenario, geometry) if in_part else None
        self.tenants: Tenants | None = None  # set where the scenario has any
        self.over: frozenset[int] = frozenset()  # tenants that have to wait, as of the beginning of the step (`patience.py`)
        self.sitting: dict[int, float] = {}  # decoding sequences that sit out of steps for that, since when

    @property
    def idle(self) -> bool:
        return not self.running

    @property
    def present(self) -> int:
        """Requests that wait or run."""
        return len(self.queue) + len(self.running)

    @property
    def elsewhere(self) -> int:
        """Blocks with a home in L3."""
        return self.residency.l3_used if self.reuse is None else self.reuse.parked.used

    def reach(self, blocks: int) -> None:
        """Admission counts so many blocks from now on."""
        self.reachable, self.watermark = blocks, int(self.spec.watermark * blocks)

    def needs(self, request: int) -> int:
        """Blocks that a request has at its end."""
        return self.geometry.blocks(self.prompt[request] + self.output[request] - 1)

    @property
    def uncomputed(self) -> int:
        """Prompt tokens of those that wait or run that have not been computed yet."""
        waiting: int = sum([self.prompt[request] for request in self.queue])
        return waiting + sum([self._target[request] - self._done[request] for request in self.prefilling])

    def asked_blocks(self, waiting: Iterable[int]) -> int:
        """Blocks that requests which wait ask for with their prompts."""
        return sum([self.geometry.blocks(self.prompt[request]) for request in waiting])

    def found_tokens(self, ids: Sequence[int], tokens: int, now: float, ahead: int = 0) -> tuple[int, int]:
        """Tokens of a prompt, with these ids of blocks, that it need not compute, and those of them that are in L1; `ahead`:
        steps begun since the state that is known here."""
        if self.prefixes is None:
            return 0, 0
        self.prefixes.tell(self._ahead + ahead)
        near, far = self.prefixes.findable(ids, tokens, now)
        return (near + far) * self.geometry.block_tokens, near * self.geometry.block_tokens

    def give(self, request: int, budget: int) -> int:
        """Tokens of its prompt that an admitted request computes in this step, at most `budget` and `prefill_chunk`."""
        take = min(self._target[request] - self._done[request], self.spec.prefill_chunk, budget)
        if self.prefixes is not None:
            tokens, all_new = self._done[request] + take, not self._emitted.get(request, 0)
            self.prefixes.write(request, tokens, all_new and tokens == self.prompt[request])
        return take

    def _blocks_of(self, request: int) -> int:
        if request in self.batch.offset:
            return self.geometry.blocks(self.batch.cached(request))
        return self._placed[request]

    def _blocks_of_running(self) -> list[tuple[int, int]]:
        return [(request, self._blocks_of(request)) for request in self.running]

    def _made_room(self, demoted: int) -> None:
        """So many blocks of those that run went to L3 for a sequence that was placed."""
        if demoted and self.far is not None:
            self.far.demoted(demoted)
            far = self.residency.far
            self._far_decoding = sum([far[request] for request in self.batch.offset])
            self.readers.change(self.batch.offset)

    def _prompt_complete(self, request: int) -> None:
        """The last piece of a prompt was computed: it emits a token, and decodes on or ends."""
        recorder, emitted = self.recorder, self._emitted.get(request, 0)
        del self.prefilling[request]
        del self._done[request]
        if emitted:
            recorder.gaps.append((request, recorder.runs.count - 1, self._last_token.pop(request), False))
        else:
            recorder.first_token[request] = self.clock
            recorder.first_run[request] = recorder.resumed_run[request] = recorder.runs.count
        self._emitted[request] = emitted + 1
        if isinstance(self.queue, Fair):
            self.queue.serves(request, 1)
        if emitted + 1 == self.output[request]:
            self._finish(request)
        elif self.batching.together:
            self._held[request] = self.clock
        else:
            self._decode_on(request)

    def _decode_on(self, request: int) -> None:
        recorder, cached, emitted = self.recorder, self._target[request], self._emitted[request]
        self.batch.join(request, cached, self.output[request] - emitted)
        recorder.decode_step[request], recorder.decode_cached[request] = self.batch.step, cached
        self._far_decoding += self.residency.far[request]
        if self.far is not None:
            self.readers.change([request])
        if self.prefix is not None and self.policy.policies.read == "once":
            self.prefix.decodes(request)
        if self.pages is not None:
            self.pages.join(request, self.batch.offset[request])

    def _first_decodes(self, run: int, start: float) -> None:
        """The sequences that waited decode in this row: their gap began earlier."""
        for request, since in self._waiting.items():
            if since < start:
                self.recorder.gaps.append((request, run, since, True))
        self._waiting = {}

    def _finish(self, request: int) -> None:
        recorder = self.recorder
        recorder.status[request] = FINISHED
        recorder.finished[request] = self.clock
        recorder.finish_run[request] = recorder.runs.count
        self._release(request, again=False)
        del self._emitted[request]
        if self.ended is not None:
            self.ended(request, self.clock)

    def release_held(self) -> None:
        """The prompts of a static batch are computed: its sequences decode."""
        if self._held and not self.prefilling:
            for request in self._held:
                self._decode_on(request)
            self._waiting, self._held = self._held, {}

    def preempt(self, request: int, keeps: bool = True) -> None:
        """Release a running request's blocks; it goes back to the queue, and starts over with what it has emitted unless its
        blocks are swapped out, which takes that it `keeps` them."""
        recorder, swap = self.recorder, self.swap
        decodes = request in self.batch.offset or request in self.sitting
        if swap is not None and decodes and keeps:
            blocks = self._blocks_of(request) if self.prefixes is None else self.prefixes.own(request)
            far = self.residency.absent(request, blocks) if isinstance(self.residency, Split | Lru) else 0
            if swap.takes(blocks) and (not far or (self.far is not None and self.far.reachable)):
                swap.out(request, blocks, far)
                self._swaps(request, blocks)
                if self.prefixes is not None:
                    self.prefixes.leave(request)
        emitted = self._stop(request)
        since = recorder.resumed_run[request] if emitted else recorder.admit_run[request]
        recorder.spans.append((request, not emitted, since, recorder.runs.count))
        recorder.preemptions[request] += 1
        self._release(request, again=True)
        self.queue.appendleft(request)
        self._queued_at[request] = self.clock

    def _swaps(self, request: int, blocks: int) -> None:
        if self.tenants is not None:
            self.tenants.swaps(request, blocks * self.geometry.block_bytes)

    def abort(self, request: int) -> None:
        """A request that waits or runs ends here."""
        if request in self.running:
            self._stop(request)
            self._release(request, again=False)
        else:
            self.queue.remove(request)
            del self._queued_at[request]
            if self.swap is not None:
                self.swap.drop(request)
            self._target.pop(request, None)
            if self.prefixes is not None:
                self.prefixes.drop(request)
        last = self._last_token.pop(request, self.clock)
        self.recorder.aborts(request, self.clock, self._emitted.pop(request, 0), last)
        if self.ended is not None:
            self.ended(request, self.clock)

    def _stop(self, request: int) -> int:
        """A running request computes no more for now: the tokens it has emitted."""
        if request in self.batch.offset:
            self._last_token[request] = self._waiting.pop(request, self.clock)
            self._emitted[request] = self.output[request] - self.batch.remaining(request)
        elif request in self._held:
            self._last_token[request] = self._held.pop(request)
        elif request in self.sitting:
            self._last_token[request] = self.sitting.pop(request)
        return self._emitted.get(request, 0)

    def _release(self, request: int, again: bool) -> None:
        batch, blocks = self.batch, self._blocks_of(request)
        freed, placed = blocks, self._placed[request]
        if self.prefixes is not None:
            freed = self.prefixes.release(request, self.clock, again)
            placed += freed - blocks  # what others still hold stays in use
        decoding, decoded, claim = request in batch.offset, 0, blocks
        if self._full:
            claim = self.needs(request)
        elif not decoding:
            claim = self.geometry.blocks(self._target[request])
        self.residency.claimed -= claim - blocks + freed
        if decoding:
            self._far_decoding -= self.residency.far[request]
            decoded = batch.step - self.recorder.decode_step[request]
            batch.leave(request)
            if self.far is not None:
                self.readers.change([request])
        self.residency.release(request, freed)
        del self.running[request], self._target[request], self._placed[request]
        if request in self.prefilling:
            del self.prefilling[request], self._done[request]
        self.recorder.residence_ends(request, batch.done, placed, decoded, again)
