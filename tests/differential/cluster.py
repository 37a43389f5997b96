"""Replicas behind a router, and sessions, by brute force: one clock that goes from moment to moment.

At each moment: who arrives goes to a replica, chosen by what all have done by then; then, replica by replica, the step that
ends is done, who follows at once on those that ended with it arrives, and the next step begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from tests.differential.job import Job
from tests.differential.reference import Server

Choose = Callable[[Job, list[Server]], int]


def serve(
    jobs: list[Job], servers: list[Server], choose: Choose | None = None, after: Sequence[int] = (),
    delay: Sequence[float] = (),
) -> None:  # fmt: skip
    """All jobs. `after`: whose end a job waits for (-1: nobody's), `delay` s long."""
    to_come = [(job.arrival, job.number) for job in jobs if not after or after[job.number] < 0]

    def ended(job: Job, at: float) -> None:
        for follower in jobs:
            if after and after[follower.number] == job.number:
                follower.arrival = at + delay[follower.number]
                to_come.append((follower.arrival, follower.number))

    def arrive(now: float) -> None:
        while to_come and min(to_come)[0] <= now:
            to_come.remove(first := min(to_come))
            job = jobs[first[1]]
            servers[choose(job, servers) if choose else 0].inbox.append(job)
        if not choose:
            servers[0].inbox.sort(key=lambda job: (job.arrival, job.number))

    def look(now: float, place: int) -> None:
        """Who comes at this moment arrives, and idle replicas before this one begin, before it does."""
        arrive(now)
        for other in servers[:place]:
            if other.end is None and other.inbox:
                other.begin(now)

    for place, server in enumerate(servers):
        server.ended, server.look, server.alone = ended, partial(look, place=place), choose is None
    while moments := [one.end for one in servers if one.end is not None] + [at for at, _ in to_come]:
        now = min(moments)
        arrive(now)
        for server in servers:
            if server.end == now:
                server.finish()
                server.begin(now)
        while idle := [server for server in servers if server.end is None and server.inbox]:
            idle[0].begin(now)
