"""One server by brute force: step by step, token by token, as the published rules say it.

    continuous     vLLM V1, v1/core/sched/scheduler.py: running requests in the order of admission catch up, at most
                   `prefill_chunk` tokens each, until the token budget is spent; where a block is missing the worst is
                   preempted; then, if nobody was, the queue is admitted while budget is left
    decode_first   Sarathi-Serve, algorithm 3: decodes, then prompts in work, then the queue
    prefill_first  vLLM V0, core/scheduler.py, default policy: whole prompts from the queue while they fit the budget, unless
                   somebody is swapped out; only if there are none, decodes; swap in if nobody was preempted
    static         a batch from what waits when nobody runs; all its prompts, then all decode until all have ended

Reservation of a prompt's blocks at admission, the watermark, and the head of the queue that is waited for are the design's.
No code of the simulator: step times come in as a function, sizes as numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.differential.blocks import Blocks
from tests.differential.job import Job
from tests.differential.waiting import Waiting

Work = list[tuple[Job, int]]
StepTime = Callable[[list[int], list[tuple[int, int]], int], float]  # contexts of decodes, (tokens, past) of pieces, tokens out


class Server:
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

    def begin(self, now: float) -> None:
        """Take up who has come, and start a step if there is anything to do."""
        present = self.running or self.waiting.jobs
        known = self.start if present and self.spec.asynchronous else now
        self.look(now)
        while self.inbox and self.inbox[0].arrival <= known:
            taken = [job for job in self.inbox if job.arrival <= known][: 1 if self.alone else None]
            self.inbox = [job for job in self.inbox if job not in taken]
            for job in taken:
                self.offer(job, now)
            self.look(now)
        while self.running or self.waiting.jobs:
            self.work, self.preempting = [], False
            self.plan(now)
            if self.work:
                contexts = [job.cached + 1 for job, _ in self.work if job.decoding]
                pieces = [(take, job.cached) for job, take in self.work if not job.decoding]
                rows = sum(job.decoding or job.cached + take == job.goal for job, take in self.work)
                self.end = now + (self.step_time(contexts, pieces, rows) + self.copying)
                self.start, self.copying = now, 0.0
                shares = [(job.number, job.cached, take) for job, take in self.work if not job.decoding]
                self.steps.append((now, [job.number for job, _ in self.work if job.decoding], shares))
                return

    def finish(self) -> None:
        """The step under way is done."""
        assert self.end is not None
        now, self.end = self.end, None
        for job, take in self.work:
            job.cached += take
            if job.decoding or job.cached == job.goal:
                job.decoding = True
                job.times.append(now)
                self.waiting.pays(job, 1)
        for job, _ in self.work:
            if len(job.times) == job.output:
                self.release(job)
                self.ended(job, now)
        self.work = []

    def offer(self, job: Job, now: float) -> None:
        spec = self.spec
        fits = job.prompt + job.output <= self.longest and self.blocks.of(job.prompt + job.output - 1) <= self.blocks.count
        if fits and spec.admission == "limit":
            fits = len(self.waiting.jobs) < spec.max_queue
        ttft = self.waiting.classes[job.kind].ttft
        if fits and spec.admission == "deadline" and ttft is not None:
            tokens = sum(other.prompt for other in self.waiting.before(job)) + job.prompt
            least = (tokens // spec.token_budget) * self.least_time(spec.token_budget)
            if tokens % spec.token_budget:
                least += self.least_time(tokens % spec.token_budget)
            fits = now - job.arrival + least <= ttft
        if fits:
            self.waiting.join(job)
        else:
            job.rejected = True
            self.ended(job, job.arrival)

    def plan(self, now: float) -> None:
        batching, idle = self.spec.batching, not self.running
        if batching == "prefill_first":
            self.go_on(prompts=True)
            self.enter(now)
        elif batching == "static" and idle:
            self.swap_in(now)
            while not self.running or not self.work:
                if not self.admit(now):
                    break
        if batching == "static" and any(not job.decoding for job in self.running):
            self.go_on(prompts=True)
        elif batching == "continuous" and self.swap is None:
            self.go_on(decodes=True, prompts=True)
            if not self.preempting:
                self.swap_in(now)
                self.enter(now)
        elif not self.work:
            self.go_on(decodes=True)
            if batching in ("continuous", "decode_first"):
                self.go_on(prompts=True)
            if not self.preempting and batching != "static":
                self.swap_in(now)
            if batching == "decode_first" or (batching == "continuous" and not self.preempting):
                self.enter(now)

    @property
    def budget(self) -> int:
        return int(self.spec.token_budget) - sum(take for _, take in self.work)

    def go_on(self, decodes: bool = False, prompts: bool = False) -> None:
        """Running requests catch up, in the order of admission."""
        for job in list(self.running):
            if job not in self.running or not self.budget:
                continue
            if job.decoding:
                if decodes and self.extend(job):
                    self.give(job, 1)
            elif prompts:
                self.give(job, min(job.goal - job.cached, self.spec.prefill_chunk, self.budget))

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

    def enter(self, now: float) -> None:
        """From the head of the queue while budget is left."""
        while self.budget and self.waiting.jobs:
            if self.spec.batching == "prefill_first" and self.work and self.waiting.head().tokens > self.budget:
                return
            if not (job := self.admit(now)):
                return
            self.give(job, min(job.goal - job.cached, self.spec.prefill_chunk, self.budget))

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
