"""Routing rules by brute force, from what the reference servers have done by now: the first of the best."""

from __future__ import annotations

from typing import Any

from tests.differential.cluster import Choose
from tests.differential.job import Job
from tests.differential.reference import Server


def everybody(server: Server) -> list[Job]:
    return server.inbox + server.waiting.jobs + server.running


def to_compute(server: Server, job: Job) -> int:
    """Prompt tokens that a server computes before those of a new request are done."""
    waiting = sum(other.prompt for other in server.inbox + server.waiting.jobs)
    running = sum(other.goal - other.cached for other in server.running if not other.decoding)
    return waiting + running + job.prompt - found(server, job)


def found(server: Server, job: Job) -> int:
    return len(server.blocks.find(job.ids, (job.prompt - 1) // server.blocks.tokens)) * server.blocks.tokens


def filled(server: Server) -> float:
    """Claimed share of the blocks, prompts that wait included."""
    waiting = sum(server.blocks.of(job.prompt) for job in server.inbox + server.waiting.jobs)
    return (server.blocks.count - server.unclaimed + waiting) / server.blocks.count


def router(rule: str, rng: Any) -> Choose:
    """`rng`: gives the random numbers, in the order in which they are asked for."""
    turns: list[int] = []
    places: dict[int, int] = {}

    def fewest(servers: list[Server]) -> int:
        return min(range(len(servers)), key=lambda at: len(everybody(servers[at])))

    def choose(job: Job, servers: list[Server]) -> int:
        every = range(len(servers))
        if rule == "round_robin":
            turns.append(0)
            return (len(turns) - 1) % len(servers)
        if rule == "random":
            return int(rng.integers(len(servers)))
        if rule == "least_kv":
            return min(every, key=lambda at: filled(servers[at]))
        if rule == "power_of_two":
            one = int(rng.integers(len(servers)))
            others = [at for at in every if at != one]
            other = others[int(rng.integers(len(others)))]
            return other if len(everybody(servers[other])) < len(everybody(servers[one])) else one
        if rule == "prefix_aware":
            return min(every, key=lambda at: (
                to_compute(servers[at], job), len(everybody(servers[at])), -found(servers[at], job)))  # fmt: skip
        if rule == "session_sticky" and job.session >= 0:
            return places.setdefault(job.session, fewest(servers))
        return fewest(servers)

    return choose
