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

from tests.differential.job import Job
from tests.differential.running import Running


class Server(Running):
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

    def enter(self, now: float) -> None:
        """From the head of the queue while budget is left."""
        while self.budget and self.waiting.jobs:
            if self.spec.batching == "prefill_first" and self.work and self.waiting.head().tokens > self.budget:
                return
            if not (job := self.admit(now)):
                return
            self.give(job, min(job.goal - job.cached, self.spec.prefill_chunk, self.budget))
