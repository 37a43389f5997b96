"""A world served by the simulator, and by the reference with the simulator's step times; what both did, in one form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from simulator.experiments.measured import part_of
from simulator.experiments.simulation import Simulation
from simulator.metrics.recorder import REJECTED
from simulator.scheduler.engine import Engine
from simulator.workload.requests import Labels, Loop, Requests
from tests.differential.blocks import Blocks
from tests.differential.cluster import serve
from tests.differential.job import Job
from tests.differential.reference import Server
from tests.differential.waiting import Waiting
from tests.differential.worlds import CLASSES, TENANTS, World
from tests.properties.small import scenario
from tests.scheduler.test_vllm_rule import ONE, flat


def requests(world: World) -> Requests:
    arrival, prompt, output = (np.array(column) for column in zip(*world.rows, strict=True))
    arrival = arrival.astype(float)
    loop = None
    if world.after:
        for row, after in enumerate(world.after):
            arrival[row] = arrival[row] if after < 0 else max(arrival[row - 1], arrival[after] + world.delay[row])
        arrival = np.maximum.accumulate(arrival)
        loop = Loop(np.array(world.after), np.array(world.delay))
    size = world.block if world.ids else 0
    return Requests(
        arrival, prompt, output, flat(world.ids) if world.ids else None, size, "drawn",
        output_ids=flat(world.answers) if world.answers else None, loop=loop,
        session=np.array(world.session) if world.session else None,
        kind=Labels(tuple(one["name"] for one in CLASSES), np.array(world.kind)),
        tenant=Labels(tuple(one["name"] for one in TENANTS), np.array(world.tenant)),
    )  # fmt: skip


def simulated(world: World, coalesce: bool = False) -> Simulation:
    simulation = Simulation(scenario({"workload.synthetic": ONE} | world.settings).resolved, requests(world), coalesce)
    for server in simulation.servers:
        if not coalesce:
            log_members(server.engine)
    simulation.run()
    return simulation


def log_members(engine: Any) -> None:
    """`engine.members`: who decodes in each step."""
    engine.members, batch = [], engine.batch
    advance, hold = batch.advance, batch.hold
    engine.recorder.pieces = []

    def advanced(steps: int, blocks: int) -> None:
        engine.members.append(list(batch.offset))
        advance(steps, blocks)

    def held() -> int:
        engine.members.append([])
        return hold()

    batch.advance, batch.hold = advanced, held


Steps = Sequence[tuple[float, list[int], list[tuple[int, int, int]]]]


def steps_of(engine: Engine) -> Steps:
    """Of each step: its start, who decodes, (request, past, tokens) of the prompt pieces."""
    starts = engine.recorder.runs.arrays()["start"].tolist()
    pieces: list[list[tuple[int, int, int]]] = [[] for _ in starts]
    for run, request, past, take in engine.recorder.pieces or ():
        pieces[run].append((request, past, take))
    return list(zip(starts, map(sorted, engine.members), pieces, strict=True))  # type: ignore[attr-defined]


def jobs_of(world: World) -> list[Job]:
    jobs, arrivals = [], requests(world).arrival.tolist()
    for row, (arrival, (_, prompt, output)) in enumerate(zip(arrivals, world.rows, strict=True)):
        ids = world.ids[row] + world.answers[row] if world.ids and world.answers else []
        session = world.session[row] if world.session else -1
        jobs.append(Job(row, arrival, prompt, output, ids, world.kind[row], world.tenant[row], session))
    return jobs


def replaying(simulation: Simulation) -> Server:
    """A server that may have blocks in all tiers, with the durations of the simulator's steps: who runs, not how long."""
    durations = iter(part_of(simulation.servers[0], simulation.requests).steps.duration.tolist())
    server = reference_of(simulation.servers[0].engine)
    server.blocks = Blocks(simulation.servers[0].engine.residency.capacity(), server.blocks.tokens)
    server.watermark = int(server.spec.watermark * server.blocks.count)
    server.step_time = lambda contexts, pieces, rows: next(durations, 1.0)
    if server.swap is not None:  # copies are in the durations
        server.swap |= {"out_latency": 0.0, "in_latency": 0.0, "out_rate": np.inf, "in_rate": np.inf}
    return server


def reference_of(engine: Engine) -> Server:
    """A server of the same sizes and step times."""
    model, spec, geometry = engine.model, engine.spec, engine.geometry

    def step_time(contexts: list[int], pieces: list[tuple[int, int]], rows: int) -> float:
        tokens = len(contexts) + sum(take for take, _ in pieces)
        attention = model.prefill_attention(pieces, contexts=()).time if pieces else 0.0
        base = model.base(tokens, rows, bool(contexts) + bool(pieces))
        return float(base + model.unit_time(tokens) * model.reads_of(contexts) + model.passes(tokens) * attention)

    swap = None
    if engine.swap is not None:
        one = engine.swap
        swap = {
            "block": one.block_bytes, "room": one.capacity, "out_rate": one.out_rate, "in_rate": one.in_rate,
            "out_latency": one.out_latency, "in_latency": one.in_latency,
        }  # fmt: skip
    waiting = Waiting(spec.queue, engine.known.classes, engine.known.tenants)
    blocks = Blocks(geometry.l1_blocks, geometry.block_tokens)
    return Server(spec, blocks, engine.max_context, step_time, lambda tokens: model.base(tokens, 1), waiting, swap)


def referred(world: World, simulation: Simulation, choose: Any = None) -> tuple[list[Server], list[Job]]:
    """The reference serves the same world."""
    servers = [reference_of(server.engine) for server in simulation.servers]
    jobs = jobs_of(world)
    serve(jobs, servers, choose, world.after, world.delay)
    return servers, jobs


def steps_differ(simulation: Simulation, servers: list[Server], tolerance: float = 1e-12) -> list[str]:
    """The first step of each replica that is not the same, in words; empty: all are."""
    found = []
    for place, (one, other) in enumerate(zip(simulation.servers, servers, strict=True)):
        mine, its = steps_of(one.engine), [(start, sorted(who), pieces) for start, who, pieces in other.steps]
        for step, (ours, theirs) in enumerate(zip(mine, its)):
            if ours[1:] != theirs[1:] or not np.isclose(ours[0], theirs[0], rtol=tolerance, atol=1e-15):
                found.append(f"replica {place}, step {step}: simulator {ours}, reference {theirs}")
                break
        if len(mine) != len(its):
            found.append(f"replica {place}: {len(mine)} steps, reference {len(its)}")
    return found


def differences(simulation: Simulation, servers: list[Server], jobs: list[Job]) -> list[str]:
    """What is not the same, in words; empty: all is."""
    found, recorder = steps_differ(simulation, servers), simulation.recorder
    for job in jobs:
        row = job.number
        pairs = {
            "rejected": (recorder.status[row] == REJECTED, job.rejected),
            "first token": (recorder.first_token[row], job.times[0] if job.times else np.nan),
            "last token": (recorder.finished[row], job.times[-1] if job.times else np.nan),
            "admitted": (recorder.admitted[row], job.admitted[0] if job.admitted else np.nan),
            "preemptions": (recorder.preemptions[row], job.preempted),
            "hits": (recorder.cached_tokens[row], job.hits),
        }  # fmt: skip
        for name, (ours, theirs) in pairs.items():
            if not np.isclose(ours, theirs, rtol=1e-12, atol=1e-15, equal_nan=True):
                found.append(f"request {row}: {name} {ours}, reference {theirs}")
    return found
