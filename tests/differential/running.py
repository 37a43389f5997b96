"""What a reference server has admitted: blocks, tokens of a step, preemption and swaps.

A request reserves the blocks of its prompt (or all that it will need) at admission, above the watermark if others run, and
takes them as tokens are computed. Where a decode needs one more and none is unclaimed, the worst of the running goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.differential.blocks import Blocks
from tests.differential.job import Job
from tests.differential.waiting import Waiting

Work = list[tuple[Job, int]]
StepTime = Callable[[list[int], list[tuple[int, int]], int], float]  # contexts of decodes, (tokens, past) of pieces, tokens out


class Running:
    def __init__(
        self, spec: Any, blocks: Blocks, longest: int, step_time: StepTime, least_time: Callable[[int], float],
        waiting: Waiting, swap: dict[str, float] | None,
    ):  # fmt: skip
        """`least_time`: of a step with so many prompt tokens and nothing else; `swap`: sizes and rates of copies."""
        self.spec, self.blocks, self.longest, self.swap = spec, blocks, longest, swap
        self.step_time, self.least_time = step_time, least_time
        self.inbox: list[Job] = []
        self.waiting, self.running = waiting, list[Job]()
        self.places = min(spec.max_batch, blocks.count)
        self.watermark = int(spec.watermark * blocks.count)
        self.work: Work = []
        self.start = 0.0
        self.end: float | None = None  # of the step under way
        self.copying, self.out, self.preempting = 0.0, 0, False
        self.steps: list[tuple[float, list[int], list[tuple[int, int, int]]]] = []
        self.ended: Callable[[Job, float], None] = lambda job, at: None
        self.alone = self.keeps_prefixes = True
        self.look: Callable[[float], None] = lambda now: None  # who comes by then is put into the inbox

    @property
    def budget(self) -> int:
        return int(self.spec.token_budget) - sum(take for _, take in self.work)

    def give(self, job: Job, take: int) -> None:
        """The request computes so many tokens in this step; blocks are taken, and named when they are full."""
        blocks, after = self.blocks, job.cached + take
        while len(job.blocks) < blocks.of(after):
            job.blocks.append(blocks.take())
        for place in range(min(after // blocks.tokens, len(job.ids))):
            blocks.name(job.blocks[place], job.ids[place], job.decoding)
        self.work.append((job, take))

    @property
    def unclaimed(self) -> int:
        return self.blocks.count - self.blocks.held - sum(job.reserved - len(job.blocks) for job in self.running)

    def extend(self, job: Job) -> bool:
        """The request may have a block for its next token; False: it was preempted itself."""
        while self.blocks.of(job.cached + 1) > job.reserved:
            if self.unclaimed:
                job.reserved += 1
            else:
                self.preempt(victim := self.waiting.worst(self.running))
                if victim is job:
                    return False
        return True

    def preempt(self, job: Job) -> None:
        self.preempting = True
        self.work = [(other, take) for other, take in self.work if other is not job]
        swap, blocks = self.swap, self.blocks.of(job.cached)
        if swap is not None and job.decoding and (self.out + blocks) * swap["block"] <= swap["room"]:
            self.out, job.away = self.out + blocks, job.cached
            self.copying += swap["out_latency"] + blocks * swap["block"] / swap["out_rate"]
        job.preempted += 1
        self.release(job)
        self.waiting.back(job)

    def release(self, job: Job) -> None:
        self.blocks.drop(job.blocks)
        self.running.remove(job)
        job.blocks, job.reserved, job.cached, job.decoding = [], 0, 0, False

    def admit(self, now: float) -> Job | None:
        """The head of the queue, if there is a place, and blocks for its prompt above the watermark."""
        if not self.waiting.jobs or len(self.running) == self.places or self.waiting.head().away or self.waiting.head().brought:
            return None
        job, blocks = self.waiting.head(), self.blocks
        found = blocks.find(job.ids, (job.tokens - 1) // blocks.tokens) if self.keeps_prefixes else []
        reserve = blocks.of(job.prompt + job.output - 1 if self.spec.reserve == "full" else job.tokens)
        needed = reserve - sum(blocks.users[block] > 0 for block in found)
        if needed + (self.watermark if self.running else 0) > self.unclaimed:
            return None
        self.waiting.leave(job)
        for block in found:
            blocks.share(block)
        job.blocks, job.reserved = found, reserve
        job.cached, job.goal = len(found) * blocks.tokens, job.tokens
        job.hits += job.cached
        job.admitted.append(now)
        self.running.append(job)
        self.waiting.pays(job, job.goal - job.cached)
        return job

    def swap_in(self, now: float) -> None:
        """Who was swapped out comes back from the head of the queue and decodes; it may take a block at once."""
        while self.budget and self.waiting.jobs and len(self.running) < self.places:
            job = self.waiting.head()
            here = job.prompt if job.brought else job.away
            reserve = blocks = self.blocks.of(here)
            block = 1
            if self.spec.reserve == "full":
                reserve, block = self.blocks.of(job.prompt + job.output - 1), 0
            if not here or (self.running and reserve + block + self.watermark > self.unclaimed):
                return
            self.waiting.leave(job)
            if not job.brought:
                assert self.swap is not None
                self.out -= blocks
                self.copying += self.swap["in_latency"] + blocks * self.swap["block"] / self.swap["in_rate"]
            job.cached, job.goal, job.away, job.brought, job.decoding, job.reserved = here, here, 0, False, True, reserve
            self.running.append(job)
            self.extend(job)
            self.give(job, 1)
