"""One step of a replica: planned, then (priced by `engine.py` and) committed. No time passes here.

plan    sequences that start a block are given one, the newest sequence preempted where there is none; the batching rule
        says which prompt pieces run beside the decodes; their blocks are placed
commit  the step is done: contexts grow, prompts advance, tokens are given out, sequences end
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.kvcache.selection import tokens_read
from simulator.scheduler.paged import PagedFar
from simulator.scheduler.replica import Replica


@dataclass(slots=True)
class StepPlan:
    decodes: int  # sequences that decode one token
    context: int  # tokens they read
    pieces: list[tuple[int, int]]  # (request, prompt tokens)
    work: list[tuple[int, int]]  # of the same pieces: (tokens, cached past)
    complete: list[int]  # requests whose prompt is complete with this step
    tokens: int  # prompt tokens
    far: tuple[int, int]  # far blocks and all blocks that the step reads; (0, 0) without far memory
    produced: int  # blocks that the step sends to L3

    @property
    def rows(self) -> int:
        """Tokens that the step gives out."""
        return self.decodes + len(self.complete)


class PlannedReplica(Replica):
    """A replica that can say what its next step is, and do it."""

    def plan(self) -> StepPlan | None:
        """The next step; None if there is nothing to run."""
        batch, before = self.batch, len(self.running)
        produced = self._grow_decoding()
        decodes, preempted = batch.size, len(self.running) < before
        if self.queue:
            self._tell_prefix(1)
        pieces = self.batching.pieces(self, self.spec.token_budget - decodes, preempted)
        if not decodes and not pieces:
            return None  # nothing runs, or everything was preempted
        done, target = self._done, self._target
        work = [(take, done[request]) for request, take in pieces]
        complete = [request for request, take in pieces if done[request] + take == target[request]]
        context = self.context_read() if decodes else 0
        reads = self._far_reads(pieces, produced) if self.far is not None else (0, 0)
        produced += self._place(pieces)
        return StepPlan(decodes, context, pieces, work, complete, sum([take for take, _ in work]), reads, produced)

    def commit(self, plan: StepPlan, run: int, start: float, end: float) -> None:
        """The step was recorded as row `run` and took from `start` to `end`."""
        batch = self.batch
        if self._waiting and plan.decodes:
            self._first_decodes(run, start)
        self.clock = end
        batch.advance(1, len(batch.starting()))
        for request, take in plan.pieces:
            self._done[request] += take
        for request in batch.ended():
            self._finish(request)
        for request in plan.complete:
            self._prompt_complete(request)
        self.release_held()

    def contexts(self) -> list[int]:
        """Tokens that each sequence of the next decode step reads."""
        ahead = self.batch.step + 1
        return [self.policy.read_tokens([offset + ahead]) for offset in self.batch.offset.values()]

    def context_read(self) -> int:
        """Context tokens that the next decode step reads, in units of the step model."""
        batch = self.batch
        if self.policy.dense:
            return self.model.reads(batch.context, batch.windowed)
        ahead = batch.step + 1
        if self.policy.selection.kind == "pages":
            contexts = np.fromiter(batch.offset.values(), np.int64, batch.size) + ahead
            return tokens_read(self.policy.selection, contexts, self.geometry.block_tokens, self.model.layers)
        return self.policy.read_tokens(offset + ahead for offset in batch.offset.values())

    def lost(self, far: tuple[int, int]) -> float:
        """Share of what the step reads from L3 (`far` as in its plan) that belongs to sequences which end with it."""
        ending = self.batch.ending_next()
        if not ending:
            return 0.0
        reading_far, reading = far
        share = 1.0 if self.policy.dense else self.context_read() / self.batch.context
        if reading_far:
            return min(1.0, sum(self.residency.far[request] for request in ending) * share / reading_far)
        return min(1.0, sum(self._blocks_of(request) for request in ending) * share / reading)

    def growth(self) -> int:
        """Most blocks that the next step places, of those that are admitted."""
        prompts = sum(self.geometry.blocks(self._target[request]) - self._placed[request] for request in self.prefilling)
        return len(self.batch.starting()) + prompts

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
            if demoted and self.far is not None:
                self.far.demoted(demoted)
                far = residency.far
                self._far_decoding = sum(far[other] for other in self.batch.offset)
            sent += residency.far[request] - before
            self._placed[request] = has + blocks
            placements.append((self.batch.step, blocks))
        return sent

    def _grow_decoding(self) -> int:
        """Give every sequence that starts a block one, preempting the newest where there is none. Blocks sent to L3."""
        starting, residency = self.batch.starting(), self.residency
        claiming = self.spec.reserve != "full"
        room = residency.near_room()
        if claiming:
            room = min(room, residency.capacity() - residency.claimed)
        if len(starting) <= room:
            self.grow_near(len(starting))
            return 0
        produced = 0
        for request in [one for one in self.running if one in starting]:  # oldest first: the newest has not grown yet
            while claiming and residency.claimed >= residency.capacity() and request in self.batch.offset:
                self.preempt(next(reversed(self.running)))
            if request in self.batch.offset:
                residency.claimed += claiming
                sent = residency.grow(request)
                produced += sent
                self._far_decoding += sent
        return produced

    def _far_reads(self, pieces: list[tuple[int, int]], leaving: int) -> tuple[int, int]:
        """(far blocks, all blocks) that the step reads: what the decodes select, and the past of the prompt pieces. Of the
        decodes' far blocks `leaving` go to L3 in this step and are still read from HBM. With page identity, (0, all pages)."""
        if isinstance(self.far, PagedFar):
            return 0, self.far.begin(self.batch.step, [request for request, _ in pieces])
        batch = self.batch
        far, blocks = max(0, self._far_decoding - leaving), batch.blocks + len(batch.starting())
        if not self.policy.dense and blocks:
            share = self.context_read() / batch.context
            far, blocks = round(far * share), round(blocks * share)
        for request, _ in pieces:
            far += self.residency.far.get(request, 0)
            blocks += self._placed[request]
        return far, blocks
