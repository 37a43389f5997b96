"""The requests of one replica: queue, admission, prompts in work, what a request does at its ends (design 3.2).

Admission is first come, first served: a request enters when the blocks of its prompt (`reserve: full`: of prompt and
output) plus a watermark are unclaimed. One that can never fit is rejected on arrival. A preempted request loses its blocks,
goes to the head of the queue, and computes its prompt and what it had generated again. When it is admitted is said by
the batching rule (`batching.py`).

With a prefix cache (`kvcache/prefix.py`) a request enters with the blocks found for it: those tokens are not computed, and
blocks that other sequences hold already are not claimed again. Sequences tell the cache what they hold before anybody
looks, and when they leave.

State only: steps are planned in `planning.py`, time passes in `engine.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simulator.hardware.gpu import StepModel
from simulator.kvcache.geometry import Geometry
from simulator.kvcache.identity import PagedResidency
from simulator.kvcache.policy import KvPolicy
from simulator.kvcache.prefix import PrefixCache
from simulator.kvcache.residency import EVICTIONS, Lru
from simulator.metrics.recorder import FINISHED, REJECTED, Recorder
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.batch import DecodeBatch
from simulator.scheduler.batching import BATCHINGS, Batching
from simulator.scheduler.far import FarMemory


@dataclass(frozen=True)
class Work:
    """The requests, one entry each, in order of arrival."""

    arrival: list[float]  # s
    prompt: list[int]  # tokens
    output: list[int]
    ids: Callable[[int], Sequence[int]] | None = None  # ids of the full blocks of a request's tokens; None: not recorded


class Replica:
    """State of one replica. Of `work` it serves what it is offered."""

    def __init__(
        self,
        scenario: ScenarioResolved,
        geometry: Geometry,
        work: Work,
        recorder: Recorder,
        far: FarMemory | None = None,
        pages: PagedResidency | None = None,
    ):
        self.recorder, self.far = recorder, far
        self.arrival, self.prompt, self.output = work.arrival, work.prompt, work.output
        self.geometry = geometry
        self.spec = spec = scenario.scheduler
        self.batching: Batching = BATCHINGS[spec.batching]()
        self.model = StepModel(scenario.model, scenario.gpus, spec.host_overhead, spec.host_per_sequence)
        self.policy = KvPolicy.of(scenario)
        self.max_context = scenario.model.max_context
        self.pages = pages  # residency by page, where single pages matter
        counted = EVICTIONS.get(scenario.kv.eviction, Lru)
        self.residency = pages or counted(geometry.l1_blocks, geometry.l3_blocks, geometry.layers)
        self.prefix = self._ids = None
        if self.policy.sharing == "prefix" and work.ids is not None and not geometry.most_blocks:
            self.prefix, self._ids = PrefixCache(geometry.l1_blocks, geometry.block_tokens), work.ids
        self.lasting = self.residency.capacity()  # blocks that there are in the long run, whatever is broken now
        self.reach(self.lasting)
        self.most = min(spec.max_batch, self.residency.l1_blocks)  # the newest block of every sequence is in L1
        self.batch = DecodeBatch(geometry.block_tokens, scenario.model.window, geometry.most_blocks)
        self.clock = 0.0
        self.presence = 0.0  # integral of the number of requests in the system
        self.queue: deque[int] = deque()
        self.running: dict[int, None] = {}  # in order of admission
        self.prefilling: dict[int, None] = {}
        self._queued_at: dict[int, float] = {}
        self._done: dict[int, int] = {}  # prompt tokens in the cache, of those in prefill
        self._target: dict[int, int] = {}  # prompt tokens to cache: the prompt, and what was generated before preemption
        self._placed: dict[int, int] = {}  # blocks of the prompt that were written
        self._chain: dict[int, Sequence[int]] = {}  # with a prefix cache: ids of the blocks of those in queue or running
        self._emitted: dict[int, int] = {}  # tokens given out when the prompt was last complete or preempted
        self._last_token: dict[int, float] = {}  # when a preempted request gave out its last token
        # static batches: sequences that wait for the prompts of the others, then for their first decode, since when
        self._held: dict[int, float] = {}
        self._waiting: dict[int, float] = {}
        self._far_decoding = 0  # far blocks of the decoding sequences

    @property
    def idle(self) -> bool:
        return not self.running

    @property
    def present(self) -> int:
        """Requests that wait or run."""
        return len(self.queue) + len(self.running)

    def reach(self, blocks: int) -> None:
        """Admission counts so many blocks from now on."""
        self.reachable, self.watermark = blocks, int(self.spec.watermark * blocks)

    def offer(self, request: int) -> None:
        """A request that has arrived by now joins the queue, or is rejected."""
        tokens = self.prompt[request] + self.output[request]
        if tokens > self.max_context or self.needs(request) > self.lasting:
            self.recorder.status[request] = REJECTED
            return
        self.queue.append(request)
        self.presence += self.clock - self.arrival[request]
        self._queued_at[request] = self.arrival[request]

    def needs(self, request: int) -> int:
        """Blocks that a request has at its end."""
        return self.geometry.blocks(self.prompt[request] + self.output[request] - 1)

    def admits(self) -> bool:
        """The head of the queue can enter now."""
        if not self.queue or not self.batching.opens(self):
            return False
        self._tell_prefix(0)
        return self._entry(self.queue[0]) is not None

    def admit(self) -> int | None:
        """Admit the head of the queue if there is a place and there are blocks for it: the request, else None."""
        if not self.queue:
            return None
        request = self.queue[0]
        entry = self._entry(request)
        if entry is None:
            return None
        claim, found = entry
        recorder = self.recorder
        self.queue.popleft()
        self.residency.claimed += claim
        self.running[request] = self.prefilling[request] = None
        self._done[request] = self._placed[request] = 0
        if self.prefix is not None:
            self._find(request, found)
        run, waited = recorder.runs.count, self.clock - self._queued_at.pop(request)
        if self._emitted.get(request, 0):
            recorder.queue_later[request] += waited
            recorder.resumed_run[request] = run
        else:
            recorder.queue_first[request] += waited
            recorder.admit_run[request] = run
            if recorder.preemptions[request] == 0:
                recorder.admitted[request] = self.clock
        return request

    def _entry(self, request: int) -> tuple[int, list[int]] | None:
        """What it takes to admit a request: blocks to claim, and cached blocks to begin with. None: it cannot enter."""
        if len(self.running) >= self.most or self.needs(request) > self.reachable:
            return None
        tokens = self._target[request] = self.prompt[request] + self._emitted.get(request, 0)
        claim, found, prefix = self._claim(request), [], self.prefix
        if prefix is not None:
            found = prefix.found(self._ids_of(request), tokens)
            claim -= len(found) - prefix.idle(found)
        if self.residency.claimed + claim + (self.watermark if self.running else 0) > self.reachable:
            return None
        return claim, found

    def _tell_prefix(self, ahead: int) -> None:
        """The prefix cache hears what the decoding sequences hold, with the next step (`ahead` 1) or without."""
        if self.prefix is not None:
            for request in self.batch.offset:
                self.prefix.write(request, self.batch.cached(request) + ahead, self._chain[request])

    def _ids_of(self, request: int) -> Sequence[int]:
        if request not in self._chain:
            assert self._ids is not None  # there is a prefix cache
            self._chain[request] = self._ids(request)
        return self._chain[request]

    def _find(self, request: int, found: list[int]) -> None:
        """The request begins with these cached blocks; those that nobody held come back into use."""
        assert self.prefix is not None
        revived = self.prefix.idle(found)
        self.prefix.begin(request, found)
        self._placed[request] = len(found)
        self._done[request] = len(found) * self.geometry.block_tokens
        self.recorder.cached_tokens[request] += self._done[request]
        if revived:
            self.residency.place(request, 0, revived, self._blocks_of_running)
            self.recorder.placements.append((self.batch.step, revived))

    def give(self, request: int, budget: int) -> int:
        """Tokens of its prompt that an admitted request computes in this step, at most `budget` and `prefill_chunk`."""
        take = min(self._target[request] - self._done[request], self.spec.prefill_chunk, budget)
        if self.prefix is not None:
            self.prefix.write(request, self._done[request] + take, self._chain[request])
        return take

    def _claim(self, request: int) -> int:
        """Blocks that a request has a claim on: of its prompt, of what it has cached, or of all it will ever need."""
        blocks = self.geometry.blocks
        if self.spec.reserve == "full":
            return self.needs(request)
        return blocks(self.batch.cached(request) if request in self.batch.offset else self._target[request])

    def _blocks_of(self, request: int) -> int:
        if request in self.batch.offset:
            return self.geometry.blocks(self.batch.cached(request))
        return self._placed[request]

    def _blocks_of_running(self) -> list[tuple[int, int]]:
        return [(request, self._blocks_of(request)) for request in self.running]

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

    def release_held(self) -> None:
        """The prompts of a static batch are computed: its sequences decode."""
        if self._held and not self.prefilling:
            for request in self._held:
                self._decode_on(request)
            self._waiting, self._held = self._held, {}

    def preempt(self, request: int) -> None:
        """Release a running request's blocks; it goes to the head of the queue and starts over with what it has emitted."""
        recorder, emitted = self.recorder, self._stop(request)
        since = recorder.resumed_run[request] if emitted else recorder.admit_run[request]
        recorder.spans.append((request, not emitted, since, recorder.runs.count))
        recorder.preemptions[request] += 1
        self._release(request, again=True)
        self.queue.appendleft(request)
        self._queued_at[request] = self.clock

    def abort(self, request: int) -> None:
        """A request that waits or runs ends here."""
        if request in self.running:
            self._stop(request)
            self._release(request, again=False)
        else:
            self.queue.remove(request)
            del self._queued_at[request]
            self._target.pop(request, None)
            self._chain.pop(request, None)
        last = self._last_token.pop(request, self.clock)
        self.recorder.aborts(request, self.clock, self._emitted.pop(request, 0), last)

    def _stop(self, request: int) -> int:
        """A running request computes no more for now: the tokens it has emitted."""
        if request in self.batch.offset:
            self._last_token[request] = self._waiting.pop(request, self.clock)
            self._emitted[request] = self.output[request] - self.batch.remaining(request)
        elif request in self._held:
            self._last_token[request] = self._held.pop(request)
        return self._emitted.get(request, 0)

    def _release(self, request: int, again: bool) -> None:
        batch, blocks = self.batch, self._blocks_of(request)
        freed, placed = blocks, self._placed[request]
        if self.prefix is not None:
            if request in batch.offset:
                self.prefix.write(request, batch.cached(request), self._chain[request])
            freed = self.prefix.release(request)
            placed += freed - blocks  # what others still hold stays in use
            if not again:
                del self._chain[request]
        self.residency.claimed -= self._claim(request) - blocks + freed
        if request in batch.offset:
            self._far_decoding -= self.residency.far[request]
            batch.leave(request)
        self.residency.release(request, freed)
        del self.running[request], self._target[request], self._placed[request]
        if request in self.prefilling:
            del self.prefilling[request], self._done[request]
        self.recorder.residence_ends(request, batch.step, placed, again)
