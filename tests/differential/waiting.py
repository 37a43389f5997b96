"""Who is next of those that wait, and who goes first where blocks run out: one list, searched from end to end.

fcfs      by arrival; who was preempted goes to the head; the last admitted is preempted
by key    shortest prompt, lowest priority number, earliest deadline; ties by arrival (vLLM's priority scheduling)
fair      the virtual token counters of Sheng et al., OSDI 2024, algorithm 2: a tenant pays for a prompt when it is
          admitted and for each token when it is given out, over its weight; one that comes (back) to the queue is lifted
          to the least counter there, or where nobody waits to that of the tenant that left last
"""

from __future__ import annotations

from fractions import Fraction
from math import inf
from typing import Any

from tests.differential.job import Job


class Waiting:
    def __init__(self, order: str, classes: Any, tenants: Any):
        self.order, self.classes = order, classes
        self.jobs: list[Job] = []
        self.weights = [Fraction(tenant.weight) for tenant in tenants]
        self.counters = [Fraction(0)] * len(tenants)
        self.left: int | None = None  # the tenant whose request left last

    def key(self, job: Job) -> tuple[float, float, int]:
        of_job = self.classes[job.kind]
        deadline = inf if of_job.ttft is None else job.arrival + of_job.ttft
        first = {"shortest_first": job.prompt, "priority": of_job.priority, "earliest_deadline": deadline}[self.order]
        return first, job.arrival, job.number

    def by_key(self) -> bool:
        return self.order not in ("fcfs", "fair")

    def join(self, job: Job) -> None:
        if self.order == "fair" and all(other.tenant != job.tenant for other in self.jobs):
            present = [self.counters[other.tenant] for other in self.jobs]
            if not present and self.left is not None:
                present = [self.counters[self.left]]
            if present:
                self.counters[job.tenant] = max(self.counters[job.tenant], min(present))
        self.jobs.append(job)

    def back(self, job: Job) -> None:
        self.jobs.insert(0, job)

    def head(self) -> Job:
        if self.by_key():
            return min(self.jobs, key=self.key)
        if self.order == "fair":
            least = min({job.tenant for job in self.jobs}, key=lambda tenant: (self.counters[tenant], tenant))
            return next(job for job in self.jobs if job.tenant == least)
        return self.jobs[0]

    def leave(self, job: Job) -> None:
        self.jobs.remove(job)
        self.left = job.tenant

    def pays(self, job: Job, tokens: int) -> None:
        if self.order == "fair":
            self.counters[job.tenant] += tokens / self.weights[job.tenant]

    def before(self, job: Job) -> list[Job]:
        """Who waits before one that comes now."""
        return [other for other in self.jobs if self.key(other) < self.key(job)] if self.by_key() else list(self.jobs)

    def worst(self, running: list[Job]) -> Job:
        return max(running, key=self.key) if self.by_key() else running[-1]
