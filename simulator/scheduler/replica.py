"""The requests of one replica: queue, admission, prompts in work, what a request does at its ends (design 3.2).

Admission is first come, first served: a request enters when the blocks of its prompt (`reserve: full`: of prompt and
output) plus a watermark are unclaimed. One that can never fit is rejected on arrival. A preempted request loses its blocks,
goes to the head of the queue, and computes its prompt and what it had generated again. A static batch is formed from what
waits when the last one is done.

State only: time passes in `engine.py`.
"""

from __future__ import annotations

from collections import deque

from simulator.hardware.gpu import StepModel
from simulator.kvcache.geometry import Geometry
from simulator.kvcache.policy import KvPolicy
from simulator.kvcache.residency import EVICTIONS
from simulator.metrics.recorder import FINISHED, REJECTED, Recorder
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.batch import DecodeBatch
from simulator.scheduler.far import FarMemory


class Replica:
    """State of one replica. `arrival`, `prompt`, `output` are lists, one entry a request, in order of arrival."""

    def __init__(
        self,
        scenario: ScenarioResolved,
        geometry: Geometry,
        arrival: list[float],
        prompt: list[int],
        output: list[int],
        recorder: Recorder,
        far: FarMemory | None,
    ):
        self.recorder, self.far = recorder, far
        self.arrival, self.prompt, self.output = arrival, prompt, output
        self.geometry = geometry
        self.spec = scenario.scheduler
        self.model = StepModel(scenario.model, scenario.gpus, scenario.scheduler.host_overhead)
        self.policy = KvPolicy.of(scenario)
        self.max_context = scenario.model.max_context
        self.residency = EVICTIONS[scenario.kv.eviction](geometry.l1_blocks, geometry.l3_blocks, geometry.layers)
        self.watermark = int(scenario.scheduler.watermark * self.residency.capacity())
        self.batch = DecodeBatch(geometry.block_tokens)
        self.clock = 0.0
        self.steps = self.events = 0
        self.presence = 0.0  # integral of the number of requests in the system
        self._next = 0  # next request to arrive
        self._queue: deque[int] = deque()
        self._queued_at: dict[int, float] = {}
        self._running: dict[int, None] = {}  # in order of admission
        self._prefilling: dict[int, None] = {}
        self._done: dict[int, int] = {}  # prompt tokens in the cache, of those in prefill
        self._target: dict[int, int] = {}  # prompt tokens to cache: the prompt, and what was generated before preemption
        self._placed: dict[int, int] = {}  # blocks of the prompt that were written
        self._emitted: dict[int, int] = {}  # tokens given out when the prompt was last complete or preempted
        self._last_token: dict[int, float] = {}  # when a preempted request gave out its last token
        # static batches: sequences that wait for the prompts of the others, then for their first decode, since when
        self._held: dict[int, float] = {}
        self._waiting: dict[int, float] = {}
        self._far_decoding = 0  # far blocks of the decoding sequences
        self._token_time = self.model.layers * self.model.attention_per_token

    @property
    def open_requests(self) -> int:
        """Requests that have not ended yet."""
        return len(self.arrival) - self._next + len(self._queue) + len(self._running)

    def _take_arrivals(self) -> None:
        arrivals, now, following = self.arrival, self.clock, self._next
        total = len(arrivals)
        while following < total and arrivals[following] <= now:
            tokens = self.prompt[following] + self.output[following]
            if tokens > self.max_context or self.geometry.blocks(tokens - 1) > self.residency.capacity():
                self.recorder.status[following] = REJECTED
            else:
                self._queue.append(following)
                self.presence += now - arrivals[following]
                self._queued_at[following] = arrivals[following]
            following += 1
        self._next = following

    def _admit(self) -> None:
        if self.spec.batching == "static" and self._running:
            return
        recorder, residency, queue = self.recorder, self.residency, self._queue
        run, now = recorder.runs.count, self.clock
        most = min(self.spec.max_batch, residency.l1_blocks)  # the newest block of every sequence is in L1
        while queue and len(self._running) < most:
            request = queue[0]
            emitted = self._emitted.get(request, 0)
            self._target[request] = self.prompt[request] + emitted
            claim = self._claim(request)
            if residency.claimed + claim + (self.watermark if self._running else 0) > residency.capacity():
                break
            queue.popleft()
            residency.claimed += claim
            self._running[request] = self._prefilling[request] = None
            self._done[request] = self._placed[request] = 0
            waited = now - self._queued_at.pop(request)
            if emitted:
                recorder.queue_later[request] += waited
                recorder.resumed_run[request] = run
            else:
                recorder.queue_first[request] += waited
                recorder.admit_run[request] = run
                if recorder.preemptions[request] == 0:
                    recorder.admitted[request] = now

    def _claim(self, request: int) -> int:
        """Blocks that a request has a claim on: of its prompt, of what it has cached, or of all it will ever need."""
        blocks = self.geometry.blocks
        if self.spec.reserve == "full":
            return blocks(self.prompt[request] + self.output[request] - 1)
        return blocks(self.batch.cached(request) if request in self.batch.offset else self._target[request])

    def _blocks_of(self, request: int) -> int:
        if request in self.batch.offset:
            return self.geometry.blocks(self.batch.cached(request))
        return self._placed[request]

    def _blocks_of_running(self) -> list[tuple[int, int]]:
        return [(request, self._blocks_of(request)) for request in self._running]

    def _prompt_complete(self, request: int) -> None:
        """The last piece of a prompt was computed: it emits a token, and decodes on or ends."""
        recorder, emitted = self.recorder, self._emitted.get(request, 0)
        del self._prefilling[request]
        del self._done[request]
        if emitted:
            recorder.gaps.append((request, recorder.runs.count - 1, self._last_token.pop(request), False))
        else:
            recorder.first_token[request] = self.clock
            recorder.first_run[request] = recorder.resumed_run[request] = recorder.runs.count
        self._emitted[request] = emitted + 1
        if emitted + 1 == self.output[request]:
            self._finish(request)
        elif self.spec.batching == "static":
            self._held[request] = self.clock
        else:
            self._decode_on(request)

    def _decode_on(self, request: int) -> None:
        recorder, cached, emitted = self.recorder, self._target[request], self._emitted[request]
        self.batch.join(request, cached, self.output[request] - emitted)
        recorder.decode_step[request], recorder.decode_cached[request] = self.batch.step, cached
        self._far_decoding += self.residency.far[request]

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

    def _preempt(self, request: int) -> None:
        """Release a running request's blocks; it goes to the head of the queue and starts over with what it has emitted."""
        recorder = self.recorder
        if request in self.batch.offset:
            self._last_token[request] = self._waiting.pop(request, self.clock)
            self._emitted[request] = self.output[request] - self.batch.remaining(request)
        emitted = self._emitted.get(request, 0)
        since = recorder.resumed_run[request] if emitted else recorder.admit_run[request]
        recorder.spans.append((request, not emitted, since, recorder.runs.count))
        recorder.preemptions[request] += 1
        self._release(request, again=True)
        if request in self._prefilling:
            del self._prefilling[request]
            del self._done[request]
        self._queue.appendleft(request)
        self._queued_at[request] = self.clock

    def _release(self, request: int, again: bool) -> None:
        batch, blocks = self.batch, self._blocks_of(request)
        self.residency.claimed -= self._claim(request)
        if request in batch.offset:
            self._far_decoding -= self.residency.far[request]
            batch.leave(request)
        self.residency.release(request, blocks)
        placed = self._placed.pop(request)
        del self._running[request], self._target[request]
        self.recorder.residence_ends(request, batch.step, placed, again)
