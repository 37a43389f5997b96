"""Prefill and decode apart, by brute force: servers of both kinds, and one link that all KV crosses.

What a step adds to a prompt sets out layer by layer: all layers but the last when the first one is computed, no faster than
layers are computed; the last one when the step is done. Pieces of a prompt follow each other. The link's bytes/s are shared by
weight, a piece that can only go slower leaves the rest to the others. One latency after its last byte a prompt that is
complete joins its decode server, and decodes from its second token on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf

from tests.differential.cluster import Choose
from tests.differential.job import Job
from tests.differential.reference import Server

# of a prefill server's step: s to its first layer, of a layer, of what comes after the last one
Times = Callable[[Server], tuple[float, float, float]]


@dataclass
class Crossing:
    job: Job
    weight: float
    pieces: list[list[float]] = field(default_factory=list)  # ready at, bytes left, most bytes/s; the first one is under way
    complete: bool = False
    last: float = 0.0
    there: float = inf  # when all of it is


def rates(moving: list[Crossing], bandwidth: float) -> list[float]:
    """By weight; who cannot use its share leaves it to the others."""
    found = [0.0] * len(moving)
    open_ones, left = list(range(len(moving))), bandwidth
    while open_ones:
        level = left / sum(moving[at].weight for at in open_ones)
        slow = [at for at in open_ones if moving[at].pieces[0][2] <= level * moving[at].weight]
        for at in slow or open_ones:
            found[at] = moving[at].pieces[0][2] if slow else level * moving[at].weight
            left -= found[at]
        open_ones = [at for at in open_ones if at not in slow] if slow else []
    return found


class Split:
    def __init__(
        self, jobs: list[Job], prefill: list[Server], decode: list[Server], choose: tuple[Choose, Choose], times: Times,
        bandwidth: float, latency: float, token_bytes: float, layers: int, threshold: int, weights: list[float],
    ):  # fmt: skip
        self.jobs, self.prefill, self.decode, self.choose, self.times = jobs, prefill, decode, choose, times
        self.bandwidth, self.latency, self.threshold, self.weights = bandwidth, latency, threshold, weights
        self.token_bytes, self.layers = token_bytes, layers
        self.crossings: dict[int, Crossing] = {}
        self.place: dict[int, int] = {}
        self.there: dict[int, float] = {}  # when the KV of a prompt was at its decode server
        for server in prefill:
            server.ended = self.computed

    def run(self) -> None:
        now, to_come = 0.0, sorted(self.jobs, key=lambda job: (job.arrival, job.number))
        while True:
            crossings = list(self.crossings.values())
            moving = [one for one in crossings if one.pieces and one.pieces[0][0] <= now]
            speeds = rates(moving, self.bandwidth)
            ends = [now + one.pieces[0][1] / speed for one, speed in zip(moving, speeds, strict=True)]
            moments = [*ends, *[one.pieces[0][0] for one in crossings if one.pieces and one not in moving]]
            moments += [one.there for one in crossings] + [job.arrival for job in to_come[:1]]
            moments += [server.end for server in self.prefill + self.decode if server.end is not None]
            if not moments or (after := min(moments)) == inf:
                return
            for one, speed, end in zip(moving, speeds, ends, strict=True):
                one.pieces[0][1] -= speed * (after - now)
                if end == after:
                    one.pieces.pop(0)
                    one.last = after
                    self.settle(one)
            now = after
            while to_come and to_come[0].arrival <= now:
                self.route(to_come.pop(0))
            for one in [one for one in self.crossings.values() if one.there <= now]:
                self.hand_over(one, now)
            for server in self.prefill + self.decode:
                if server.end == now:
                    server.finish()
                if server.end is None:
                    server.begin(now)
                    if server.end is not None and server in self.prefill:
                        self.send(server)

    def route(self, job: Job) -> None:
        place = self.place[job.number] = self.choose[1](job, self.decode)
        if job.prompt < self.threshold:
            self.decode[place].inbox.append(job)
            return
        self.crossings[job.number] = Crossing(job, self.weights[job.tenant])
        self.prefill[self.choose[0](job, self.prefill)].inbox.append(replace(job, output=1, times=[], admitted=[], blocks=[]))

    def send(self, server: Server) -> None:
        first, layer, head = self.times(server)
        assert server.end is not None
        begin, end = server.start + first, max(server.start + first + layer, server.end - head)
        for job, take in server.work:
            crossing, size = self.crossings[job.number], take * self.token_bytes / self.layers
            if not crossing.pieces and not crossing.last and job.cached:
                crossing.pieces.append([begin, job.cached * self.token_bytes, inf])
            crossing.pieces.append([begin + layer, size * (self.layers - 1), size / layer])
            crossing.pieces.append([end, size, inf])

    def computed(self, prompt: Job, at: float) -> None:
        """A prefill server is done with a prompt, or has rejected it."""
        crossing = self.crossings[prompt.number]
        crossing.job.times, crossing.job.rejected = list(prompt.times), prompt.rejected
        crossing.complete = True
        if prompt.rejected or crossing.job.output == 1:
            del crossing.pieces[1:]  # what is under way goes on
            crossing.complete = False
        self.settle(crossing, at)

    def settle(self, crossing: Crossing, now: float = 0.0) -> None:
        if crossing.complete and not crossing.pieces:
            crossing.there = max(now, crossing.last + self.latency)

    def hand_over(self, crossing: Crossing, now: float) -> None:
        job = crossing.job
        del self.crossings[job.number]
        job.arrival = self.there[job.number] = now
        job.brought = True
        self.decode[self.place[job.number]].inbox.append(job)
