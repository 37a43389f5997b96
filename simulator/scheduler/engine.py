"""One replica: admission, batching, and the decode replay loop (design 3.2, 3.4, 3.7).

Each turn of the loop takes the arrivals so far into the queue, admits from its head (first come, first served), and does
either one step or a run of equal steps:

    continuous  all sequences that have their prompt decode one token each; what the token budget leaves goes to prompts,
                at most `prefill_chunk` tokens of each (chunked prefill); a prompt's last piece emits its first token
    static      a batch is formed from what waits when the last one is done, all its prompts are prefilled, then it decodes

A run is as many steps as pass until the first end of a sequence, an arrival, or the last free block that can be given
without moving one; it needs no prompt in work and nothing far. Its durations are a vector in the context, its clock the
sequential sum, so a run gives the same bytes as its single steps.

Events: one per step or run, one per idle period.
"""

from __future__ import annotations

from collections.abc import Generator
from math import inf

import numpy as np
import simpy

from simulator.kvcache.geometry import Geometry
from simulator.metrics.recorder import Recorder
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.far import FarMemory
from simulator.scheduler.replica import Replica

SHORT_RUN = 12  # up to this many steps a Python loop is faster than numpy


class Engine(Replica):
    """A replica in time. `coalesce=False` takes every step singly."""

    def __init__(
        self,
        env: simpy.Environment,
        scenario: ScenarioResolved,
        geometry: Geometry,
        arrival: list[float],
        prompt: list[int],
        output: list[int],
        recorder: Recorder,
        far: FarMemory | None,
        coalesce: bool = True,
    ):
        super().__init__(scenario, geometry, arrival, prompt, output, recorder, far)
        self.env, self.coalesce = env, coalesce

    def run(self) -> Generator[simpy.Event, None, None]:
        """The SimPy process: returns when every request has ended."""
        arrivals = self.arrival
        while True:
            self._take_arrivals()
            if self._queue:
                self._admit()
            if self._running:
                before, present = self.clock, len(self._running) + len(self._queue)
                if self._prefilling or (self.far is not None and not self.residency.settled()):
                    self._step()
                else:
                    self._run_of_steps()
                self.events += 1
                self.presence += present * (self.clock - before)
                yield self.env.timeout(self.clock - before)
            elif self._next < len(arrivals):
                self.events += 1
                idle = arrivals[self._next] - self.clock
                if self.far is not None:
                    self.far.quiet(idle)
                self.clock = arrivals[self._next]
                yield self.env.timeout(idle)
            else:
                return

    def _context_read(self) -> int:
        """Context tokens that the next decode step reads."""
        batch = self.batch
        if self.policy.dense:
            return batch.context
        ahead = batch.step + 1
        return self.policy.read_tokens(offset + ahead for offset in batch.offset.values())

    def _run_of_steps(self) -> None:
        """Decode steps with unchanged membership, nothing far, all new blocks placed in L1."""
        batch, model, now = self.batch, self.model, self.clock
        size, context = batch.size, self._context_read()
        limit = batch.steps_to_end() if self.coalesce and self.policy.dense else 1
        limit = batch.steps_within(self.residency.near_room(), limit)
        if limit == 0:
            self._step()
            return
        base, per_token = model.base(size, size), self._token_time
        # while the head of the queue waits for blocks or a place, an arrival changes nothing
        until = self.arrival[self._next] if self._next < len(self.arrival) and not self._queue else inf
        first = base + per_token * context
        if limit > 1 and until < inf:
            limit = min(limit, int((until - now) / first) + 1)
        if limit <= SHORT_RUN:
            end, steps = now + first, 1
            while steps < limit and end < until:
                end += base + per_token * (context + size * steps)
                steps += 1
        else:
            ends = base + per_token * (context + size * np.arange(limit))
            ends[0] += now
            np.add.accumulate(ends, out=ends)
            steps = limit if until == inf else min(limit, int(np.searchsorted(ends, until)) + 1)
            end = float(ends[steps - 1])
        self.recorder.runs.append((now, steps, size, context, 0, size, 0.0, 0.0, self.residency.l3_used))
        if self._waiting:
            self._first_decodes(self.recorder.runs.count - 1, now)
        blocks = batch.new_blocks(steps)
        self._grow_near(blocks)
        if self.far is not None:
            self.far.quiet(end - now)
        self.clock = end
        self.steps += steps
        batch.advance(steps, blocks)
        for request in batch.ended():
            self._finish(request)

    def _step(self) -> None:
        """One step, with prompts in work, something far, or a block that has no room in L1."""
        batch, model, spec, run = self.batch, self.model, self.spec, self.recorder.runs.count
        produced = self._grow_decoding()
        decoding = batch.size
        pieces = self._pieces(spec.token_budget - decoding)
        if not decoding and not pieces:
            return  # everything was preempted
        tokens = sum([take for _, take in pieces])
        complete = [request for request, take in pieces if self._done[request] + take == self._target[request]]
        attentions, compute, memory = int(decoding > 0), 0.0, 0.0
        if pieces:
            attentions += 1
            attention = model.prefill_attention([(take, self._done[request]) for request, take in pieces])
            if attention.bound == "compute":
                compute = attention.time
            else:
                memory = attention.time
        rows, now, layers = decoding + len(complete), self.clock, model.layers
        context = self._context_read() if decoding else 0
        reads = self._far_reads(pieces, produced) if self.far is not None else (0, 0)
        produced += self._place(pieces)
        duration = model.base(decoding + tokens, rows, attentions) + self._token_time * context + layers * (compute + memory)
        self.recorder.runs.append(
            (now, 1, decoding, context, tokens, rows, layers * compute, layers * memory, self.residency.l3_used)
        )
        if self._waiting and decoding:
            self._first_decodes(run, now)
        if self.far is not None:
            layer = model.layer(decoding + tokens, attentions).total + model.attention_per_token * context + (compute + memory)
            duration = self._far_step(run, reads, produced, layer, rows, duration)
        self.clock = now + duration
        self.steps += 1
        batch.advance(1, len(batch.starting()))
        for request, take in pieces:
            self._done[request] += take
        for request in batch.ended():
            self._finish(request)
        for request in complete:
            self._prompt_complete(request)
        if self._held and not self._prefilling:
            for request in self._held:
                self._decode_on(request)
            self._waiting, self._held = self._held, {}

    def _pieces(self, budget: int) -> list[tuple[int, int]]:
        """(request, tokens) of the prompts that get a share of this step, first come first served."""
        pieces = []
        chunk = self.spec.prefill_chunk
        for request in self._prefilling:
            if budget <= 0:
                break
            take = min(self._target[request] - self._done[request], chunk, budget)
            pieces.append((request, take))
            budget -= take
        return pieces

    def _place(self, pieces: list[tuple[int, int]]) -> int:
        """Give the pieces' new KV its blocks. Returns those that go to L3."""
        residency, blocks_of, placements = self.residency, self.geometry.blocks, self.recorder.placements
        sent = 0
        for request, take in pieces:
            has = self._placed[request]
            blocks = blocks_of(self._done[request] + take) - has
            before = residency.far.get(request, 0)
            demoted = residency.place(request, has, blocks, self._blocks_of_running)
            if demoted and self.far is not None:
                self.far.demoted(demoted)
                far = residency.far
                self._far_decoding = sum(far[other] for other in self.batch.offset)
            sent += residency.far[request] - before
            self._placed[request] = has + blocks
            placements.append((self.batch.step, blocks))
        return sent

    def _grow_near(self, blocks: int) -> None:
        self.residency.grow_near(blocks)
        if self.spec.reserve != "full":
            self.residency.claimed += blocks

    def _grow_decoding(self) -> int:
        """Give every sequence that starts a block one, preempting the newest where there is none. Blocks sent to L3."""
        starting, residency = self.batch.starting(), self.residency
        claiming = self.spec.reserve != "full"
        room = residency.near_room()
        if claiming:
            room = min(room, residency.capacity() - residency.claimed)
        if len(starting) <= room:
            self._grow_near(len(starting))
            return 0
        produced = 0
        for request in [one for one in self._running if one in starting]:  # oldest first: the newest has not grown yet
            while claiming and residency.claimed >= residency.capacity() and request in self.batch.offset:
                self._preempt(next(reversed(self._running)))
            if request in self.batch.offset:
                residency.claimed += claiming
                sent = residency.grow(request)
                produced += sent
                self._far_decoding += sent
        return produced

    def _far_reads(self, pieces: list[tuple[int, int]], leaving: int) -> tuple[int, int]:
        """(far blocks, all blocks) that the step reads: what the decodes select, and the past of the prompt pieces. Of the
        decodes' far blocks `leaving` go to L3 in this step and are still read from HBM."""
        batch = self.batch
        far, blocks = max(0, self._far_decoding - leaving), batch.blocks + len(batch.starting())
        if not self.policy.dense and blocks:
            share = self._context_read() / batch.context
            far, blocks = round(far * share), round(blocks * share)
        for request, _ in pieces:
            far += self.residency.far.get(request, 0)
            blocks += self._placed[request]
        return far, blocks

    def _lost(self, reading_far: int, reading: int) -> float:
        """Share of what the step reads from L3 that belongs to sequences which end with it."""
        ending = self.batch.ending_next()
        if not ending:
            return 0.0
        share = 1.0 if self.policy.dense else self._context_read() / self.batch.context
        if reading_far:
            return min(1.0, sum(self.residency.far[request] for request in ending) * share / reading_far)
        return min(1.0, sum(self._blocks_of(request) for request in ending) * share / reading)

    def _far_step(self, run: int, reads_of: tuple[int, int], produced: int, layer: float, rows: int, duration: float) -> float:
        """The step against far memory, `layer` seconds of computation a layer: its duration."""
        far, residency, layers = self.far, self.residency, self.model.layers
        assert far is not None
        reading_far, reading = reads_of
        pages = residency.layers(reading_far, reading, layers)
        evicted = residency.take_evicted()
        if evicted:
            far.evicted(evicted)
        asked = sum(pages)
        if asked:
            step = far.step(pages, self._lost(*reads_of), self.model.host, layer, self.model.head(rows).total, produced)
        else:
            step = far.unread(produced, duration)
        reads = step.reads
        self.recorder.far.append(
            (run, step.duration, step.stall, step.codec, step.writeback, reading * layers - asked, asked, reads.demand,
             reads.in_time, reads.late, step.staged)
        )  # fmt: skip
        return step.duration
