"""One step of a replica: planned, then (priced by `engine.py` and) committed. No time passes here.

plan    sequences that start a block are given one, the worst sequence preempted where there is none; the batching rule
        says which prompt pieces run beside the decodes; their blocks are placed
commit  the step is done: contexts grow, prompts advance, tokens are given out, sequences end
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.kvcache.residency import Lru, Split
from simulator.kvcache.selection import tokens_read
from simulator.scheduler.admission import AdmittingReplica
from simulator.scheduler.far_in_part import FarInPart, Reads
from simulator.scheduler.paged import PagedFar
from simulator.scheduler.queues import Fair, by_rank
from simulator.scheduler.swap import Copy


@dataclass(slots=True)
class StepPlan:
    decodes: int  # sequences that decode one token
    context: int  # tokens they read
    pieces: list[tuple[int, int]]  # (request, prompt tokens)
    work: list[tuple[int, int]]  # of the same pieces: (tokens, cached past)
    complete: list[int]  # requests whose prompt is complete with this step
    tokens: int  # prompt tokens
    far: tuple[int, int]  # far blocks and all blocks that the step reads; (0, 0) without far memory
    crosses: float  # share of their bytes that is read in this step: not 1 only under KV policies
    produced: int  # blocks that the step sends to L3
    copies: Sequence[Copy] = ()  # of sequences that are swapped out or back, for which it waits

    @property
    def rows(self) -> int:
        """Tokens that the step gives out."""
        return self.decodes + len(self.complete)


class PlannedReplica(AdmittingReplica):
    """A replica that can say what its next step is, and do it."""

    def plan(self) -> StepPlan | None:
        """The next step; None if there is nothing to run."""
        batch, rule, before = self.batch, self.batching, len(self.running)
        arrived = 0
        if self.resuming and rule.opens(self) and not (rule.apart and self.prefilling):
            arrived = self.resume(self._budget(batch.size) - self._asked())
        pieces: list[tuple[int, int]] = []
        if rule.apart and len(self.running) == before:  # who came back decodes at once
            if self.prefixes is not None:
                self.prefixes.tell(0)
            pieces = rule.pieces(self, self._budget(0), False)
        decodes = produced = 0
        if not pieces:
            before = len(self.running)
            produced = self._grow_decoding()
            decodes, preempted = batch.size, len(self.running) < before
            if not rule.apart:
                if self.queue and self.prefixes is not None:
                    self.prefixes.tell(1)
                pieces = rule.pieces(self, self._budget(decodes), preempted)
        if not decodes and not pieces:
            return None  # nothing runs, or everything was preempted
        done, target = self._done, self._target
        work, tokens = [(take, done[request]) for request, take in pieces], sum([take for _, take in pieces])
        complete = [request for request, take in pieces if done[request] + take == target[request]]
        context = self.context_read() if decodes else 0
        reads, crosses = (0, 0), 1.0
        if self.in_part is not None:
            reads, crosses = self._far_reads_in_part(self.in_part, pieces, decodes)
        elif self.far is not None:
            reads = self._far_reads(pieces, produced, decodes)
        produced += self._place(pieces) + arrived
        copies = self.swap.taken() if self.swap is not None else ()
        self._ahead = int(decodes > 0)
        return StepPlan(decodes, context, pieces, work, complete, tokens, reads, crosses, produced, copies)

    def _asked(self) -> int:
        """Tokens that the prompts in work ask for in a step."""
        chunk = self.spec.prefill_chunk
        return sum([min(self._target[request] - self._done[request], chunk) for request in self.prefilling])

    def _budget(self, decodes: int) -> int:
        """Prompt tokens that a step with so many decodes has room for."""
        if self.other is None:
            return self.spec.token_budget - decodes
        return int((self.spec.token_budget - decodes * self.other.width) / self.other.work)

    def commit(self, plan: StepPlan, run: int, start: float, end: float) -> None:
        """The step was recorded as row `run` and took from `start` to `end`."""
        batch = self.batch
        if self._waiting and plan.decodes:
            self._first_decodes(run, start)
        self.clock, self._ahead = end, 0
        if plan.decodes or not batch.size:
            batch.advance(1, batch.new_blocks(1))
            if isinstance(self.queue, Fair):
                self.queue.decoded(batch.offset, 1)
        else:
            for request in batch.offset:
                self._waiting.setdefault(request, start)
            self.recorder.held[self.lane].append(batch.hold())
        for request, take in plan.pieces:
            self._done[request] += take
        for request in batch.ended():
            self._finish(request)
        for request in plan.complete:
            self._prompt_complete(request)
        self.release_held()

    def prompt_done(self, request: int) -> int:
        """Tokens of its prompt that are computed, of one in prefill."""
        return self._done[request]

    def contexts(self) -> list[int]:
        """Tokens that each sequence of the next decode step reads; has, where the step model says what is read of them."""
        if self.other is not None:
            contexts: list[int] = self.decoding_contexts().tolist()
            return contexts
        ahead = self.batch.step + 1
        return [self.policy.read_tokens([offset + ahead]) for offset in self.batch.offset.values()]

    def context_read(self) -> int:
        """Context tokens that the next decode step reads, in units of the step model."""
        batch = self.batch
        if self.other is not None:
            return self.other.reads_of(self.decoding_contexts()) + self.other.shared_units(*self._shared())
        if self.policy.dense:
            return self.model.reads(batch.context, batch.windowed)
        ahead = batch.step + 1
        if self.policy.selection.kind == "pages":
            contexts = np.fromiter(batch.offset.values(), np.int64, batch.size) + ahead
            return tokens_read(self.policy.selection, contexts, self.geometry.block_tokens, self.model.layers)
        return self.policy.read_tokens(offset + ahead for offset in batch.offset.values())

    def decoding_contexts(self) -> NDArray[np.int64]:
        """Tokens that each sequence of the next decode step has, its own included."""
        return np.fromiter(self.batch.offset.values(), np.int64, self.batch.size) + (self.batch.step + 1)

    def _shared(self) -> tuple[int, int]:
        """Tokens that several sequences read and that cross once: distinct ones, and reads of them."""
        if self.prefix is None or self.policy.policies.read == "each":
            return 0, 0
        block = self.geometry.block_tokens
        return self.prefix.common * block, self.prefix.common_reads * block

    def growth_read(self) -> int:
        """How much more each following step reads while membership and turns allow."""
        if self.other is not None:
            return self.other.law.growth(self.decoding_contexts())
        return self.model.reads(self.batch.size, self.batch.growing)

    def steady_steps(self) -> int:
        """Steps over which the batch stays as it is and reads grow evenly."""
        if self.other is not None:
            steady = self.other.law.steady(self.decoding_contexts())
            return int(min(self.batch.steps_to_end(), self.batch.steps_to_turn(), steady))
        limit = self.batch.steps_to_end() if self.policy.dense else 1
        return int(min(limit, self.batch.steps_to_turn())) if self.batch.window else limit

    def lost(self, plan: StepPlan) -> float:
        """Share of what the step reads from L3 that belongs to sequences which end with it."""
        ending = self.batch.ending_next()
        if not ending or not plan.decodes:
            return 0.0
        reading_far, reading = plan.far
        if self.in_part is not None:
            contexts = np.array([self.batch.cached(request) + 1 for request in ending])
            far = [self.residency.far[request] if reading_far else self._blocks_of(request) for request in ending]
            return min(1.0, self.in_part.moved(contexts, np.array(far)) / ((reading_far or reading) * plan.crosses))
        share = 1.0 if self.policy.dense else self.context_read() / self.batch.context
        if reading_far:
            return min(1.0, sum(self.residency.far[request] for request in ending) * share / reading_far)
        return min(1.0, sum(self._blocks_of(request) for request in ending) * share / reading)

    def growth(self) -> int:
        """Most blocks that the next step places, of those that are admitted."""
        prompts = sum(self.geometry.blocks(self._target[request]) - self._placed[request] for request in self.prefilling)
        return self.batch.new_blocks(1) + prompts

    def grow_near(self, blocks: int) -> None:
        """New blocks of decoding sequences for which L1 has room."""
        self.residency.grow_near(blocks)
        if self.spec.reserve != "full":
            self.residency.claimed += blocks

    def _place(self, pieces: list[tuple[int, int]]) -> int:
        """Give the pieces' new KV its blocks. Returns those that go to L3."""
        residency, blocks_of, placements = self.residency, self.geometry.blocks, self.recorder.placements
        sent = 0
        for request, take in pieces:
            has = self._placed[request]
            blocks = blocks_of(self._done[request] + take) - has
            before = residency.far.get(request, 0)
            demoted = residency.place(request, has, blocks, self._blocks_of_running)
            self._made_room(demoted)
            sent += residency.far[request] - before
            self._placed[request] = has + blocks
            placements.append((self.batch.done, blocks))
        return sent

    def _grow_decoding(self) -> int:
        """Give every sequence the blocks that it starts, preempting the worst where there is none. Blocks sent to L3."""
        batch, residency, needed = self.batch, self.residency, self.batch.new_blocks(1)
        claiming = self.spec.reserve != "full"
        room = residency.near_room()
        if claiming:
            room = min(room, residency.capacity() - residency.claimed)
        if needed <= room:
            self.grow_near(needed)
            return 0
        produced, starting = 0, batch.starting()
        for request in by_rank(self.queue, [one for one in self.running if one in starting]):  # the worst has not grown yet
            more = batch.starts(request) if request in batch.offset else 0
            while claiming and residency.claimed + more > residency.capacity() and request in batch.offset:
                self.preempt(by_rank(self.queue, self.running)[-1])
            for _ in range(more if request in batch.offset else 0):
                residency.claimed += claiming
                if self.geometry.near_blocks > 1 and isinstance(residency, Split):
                    self._made_room(residency.keep_near(request, self._blocks_of(request), self._blocks_of_running))
                sent = residency.grow(request)
                produced += sent
                self._far_decoding += sent
                if sent:
                    self.readers.later[request] = self.readers.later.get(request, 0) + sent
        return produced

    def _far_reads(self, pieces: list[tuple[int, int]], leaving: int, decodes: int) -> tuple[int, int]:
        """(far blocks, all blocks) that the step reads: what the decodes (if any) select, and the past of the prompt pieces.
        Of the decodes' far blocks `leaving` go to L3 in this step and are still read from HBM. With page identity, (0, all
        pages)."""
        self.readers.begin()
        if isinstance(self.far, PagedFar):
            total = self.far.begin(self.batch.step, [request for request, _ in pieces], decodes > 0)
            if self.far.counted:
                self._note_readers(pieces)
            else:
                self.readers.read(self.far.far_by_request())
            return 0, total
        self._note_readers(pieces)
        batch = self.batch
        far, blocks = max(0, self._far_decoding - leaving), batch.blocks + batch.new_blocks(1)
        if not decodes:
            far = blocks = 0
        elif not self.policy.dense and blocks:
            read = self.context_read()
            share = (read if self.other is None else self.other.dense_tokens(read)) / batch.context
            far, blocks = round(far * share), round(blocks * share)
        return self._past_of(pieces, far, blocks)

    def _past_of(self, pieces: list[tuple[int, int]], far: int, blocks: int) -> tuple[int, int]:
        """(far, all) blocks, with those of the past of prompt pieces."""
        for request, _ in pieces:
            far += self.residency.far.get(request, 0)
            blocks += self._placed[request]
            if self.reuse is not None:
                fetched, staged = self.reuse.read(request)
                far, blocks = far + fetched, blocks - staged
                self.readers.prompt(request, fetched + staged)
        return far, blocks

    def _far_reads_in_part(self, part: FarInPart, pieces: list[tuple[int, int]], decodes: int) -> Reads:
        """The same where a step does not read all of the blocks that are far, with what of each crosses the fabric."""
        self.readers.begin()
        leaving, batch = self.readers.later, self.batch  # blocks that leave are read from HBM once more
        self._note_readers(pieces)
        far, contexts = [], self.decoding_contexts() if decodes else np.zeros(0, np.int64)
        if decodes:
            far = [self.residency.far[request] - leaving.get(request, 0) for request in batch.offset]
        past = np.array([self._done[request] for request, _ in pieces], np.int64)
        blocks = np.array([self._past_of([piece], 0, 0) for piece in pieces], np.float64)
        return part.reads(contexts, np.array(far, np.int64), past, blocks)

    def _note_readers(self, pieces: list[tuple[int, int]]) -> None:
        """Who reads how many far blocks in this step, where blocks are counted."""
        batch, residency, readers, blocks = self.batch, self.residency, self.readers, self.geometry.blocks
        if isinstance(residency, Lru):
            readers.change(batch.starting())
            for request, _ in pieces:
                readers.prompt(request, self._placed[request] - 1)
            weights = [(one, blocks(batch.cached(one) + 1) - 1 if one in batch.offset else 0) for one in readers.changed()]
        else:
            far = residency.far
            for request, _ in pieces:
                readers.prompt(request, far.get(request, 0))
            leaving = readers.later  # these are read from HBM once more
            weights = [(one, far[one] - leaving.get(one, 0) if one in batch.offset else 0) for one in readers.changed()]
        readers.decode(weights)
