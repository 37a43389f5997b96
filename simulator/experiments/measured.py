"""A finished simulation in columns: what each replica did, what all did together, and whether that holds together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.experiments import together
from simulator.experiments.server import Server
from simulator.experiments.simulation import Simulation
from simulator.experiments.swapped import room_in_use, with_swaps
from simulator.metrics import invariants, summary
from simulator.metrics.far_share import far_share, far_stall
from simulator.metrics.handover import joined
from simulator.metrics.levels import Level
from simulator.metrics.occupancy import blocks_by_step
from simulator.metrics.recorder import Recorder
from simulator.metrics.requests import request_columns, token_gaps
from simulator.metrics.steps import StepColumns, Steps
from simulator.metrics.timeseries import BINS, timeseries
from simulator.metrics.traffic import Traffic, carried
from simulator.scheduler.detailed import DetailedFar
from simulator.scheduler.disaggregation import Disaggregated
from simulator.scheduler.frontend import Frontend
from simulator.workload.requests import Requests


@dataclass
class Part:
    """What one replica did; `recorder` and `columns` have the requests that it served."""

    server: Server
    recorder: Recorder
    steps: Steps
    columns: dict[str, NDArray[Any]]
    traffic: Traffic


@dataclass
class Measured:
    """A finished simulation and what it took: each replica, and all together."""

    simulation: Simulation
    parts: list[Part]
    columns: dict[str, NDArray[Any]]
    makespan: float

    @property
    def several(self) -> bool:
        return len(self.parts) > 1

    @cached_property
    def steps(self) -> StepColumns:
        return together.StepsTogether([part.steps for part in self.parts]) if self.several else self.parts[0].steps

    @cached_property
    def traffic(self) -> Traffic:
        if not self.several:
            return self.parts[0].traffic
        return together.traffic_of([part.traffic for part in self.parts], self.simulation.scenario.cluster.pool_shared)

    @cached_property
    def gaps(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Times between tokens, and how often each occurred."""
        values, weights = zip(*(token_gaps(part.recorder, part.steps) for part in self.parts))
        return np.concatenate(values), np.concatenate(weights)

    @cached_property
    def held(self) -> list[together.Held]:
        """Of each replica: tier -> (capacity, bytes in use during each step)."""
        return [tiers_of(part) for part in self.parts]

    @cached_property
    def parked(self) -> Level | None:
        """Stored bytes of KV that nobody reads now, in one pool or in those of all replicas; None: no replica parks any."""
        found = [one.reuse.parked for part in self.parts for one in part.server.engine.replicas if one.reuse is not None]
        pools = {id(one): (one.moments, one.counts) for one in found}
        geometry = self.simulation.geometry
        return Level.of(list(pools.values()), geometry.block_bytes / geometry.ratio) if pools else None

    def tiers(self) -> dict[str, Any]:
        if not self.several:
            found = summary.tiers(self.held[0], self.steps.duration, self.makespan)
        else:
            each = [(part.steps, held) for part, held in zip(self.parts, self.held)]
            held, lasting = together.tiers_together(each, self.simulation.scenario.cluster.pool_shared)
            found = summary.tiers(held, lasting, self.makespan)
        if self.parked is not None and self.makespan > 0.0:
            mean = self.parked.means(np.array([0.0, self.makespan]))
            found["l3"] |= {"peak_bytes": self.parked.peak, "mean_bytes": float(mean[0])}
        return found

    def series(self) -> dict[str, NDArray[Any]]:
        """The run over time."""
        arrived = np.sort(self.columns["arrival_s"][self.columns["status"] != "rejected"])
        bins = min(BINS, len(self.steps.end)) if self.several else None
        each = []
        for part, held in zip(self.parts, self.held):
            nothing = np.zeros(len(part.steps.run))
            l1, l2, l3 = (held[name][1] if name in held else nothing for name in ("l1", "l2", "l3"))
            admitted = self.columns["admitted_s"]
            each.append(timeseries(part.steps, arrived, admitted, l1, l3, self.makespan, l2, part.traffic, bins))
        found = together.series_of(each) if self.several else each[0]
        if self.parked is not None and (count := len(found["time_s"])):
            found["l3_bytes"] = self.parked.means(np.linspace(0.0, self.makespan, count + 1))
        return found


def part_of(server: Server, requests: Requests) -> Part:
    own, arrival = server.requests, np.array(server.engine.arrival)  # of a closed loop: made by the run
    recorder = server.recorder if own is None else server.recorder.of(own)
    rows = slice(None) if own is None else np.array(own, dtype=np.int64)
    session = None if requests.session is None else requests.session[rows]
    steps = Steps(recorder, server.law())
    prompt, output = requests.input_tokens[rows], requests.output_tokens[rows]
    if server.role == "prefill":
        output = np.ones_like(output)
    columns = request_columns(recorder, steps, arrival[rows], prompt, output, session)
    if own is not None:
        columns["request"] = np.array(own, dtype=np.int64)
    traffic = with_swaps(server, _traffic(server, int(steps.far["near"].sum())))
    columns |= {name: column[rows] for name, column in far_share(server.recorder, traffic, len(requests)).items()}
    return Part(server, recorder, steps, columns, traffic)


def columns_together(parts: list[Part], frontend: Frontend, count: int) -> dict[str, NDArray[Any]]:
    """A row for each of all `count` requests."""

    def of(roles: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        among = [part for part in parts if part.server.role in roles]
        return together.columns_of(count, [(part.server.requests or [], part.columns) for part in among])

    if not isinstance(frontend, Disaggregated):
        return of(("both",))
    prompts, tokens = of(("prefill",)), of(("decode",))
    at_prompts, at_both = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    for part in parts:
        if part.server.role == "prefill":
            at_prompts[part.server.requests or []] = True
    at_both[list(frontend.remote)] = True
    return joined(prompts, tokens, at_both, at_prompts)


def tiers_of(part: Part) -> together.Held:
    """Tier -> (capacity, bytes in use during each step)."""
    server, recorder, steps = part.server, part.recorder, part.steps
    geometry, pool = server.geometry, server.scenario.pool
    curve = geometry.blocks_over if geometry.curved else None
    blocks = blocks_by_step(recorder, steps, geometry.block_tokens, geometry.most_blocks, curve)
    block = geometry.block_bytes
    swapped = room_in_use(server, recorder, steps)
    if not pool or "l3" in swapped:
        return {"l1": (len(server.engine.replicas) * geometry.l1_blocks * block, blocks * block)} | swapped
    far = steps.runs["far_blocks"][steps.run]
    near = blocks - far if server.scenario.kv.eviction == "split" else np.minimum(blocks, geometry.l1_blocks)
    staged = np.zeros(len(steps.run))
    staged[steps.first[steps.far["run"]]] = steps.far["staged"]
    return {
        "l1": (geometry.l1_blocks * block, near * block),
        "l2": (geometry.l2_bytes, staged),
        "l3": (geometry.l3_bytes, far * (block / geometry.ratio)),
    } | swapped


def _traffic(server: Server, not_far: int) -> Traffic:
    """Totals of far memory, from its counters; `not_far`: pages that steps with far memory read from L1, or that L2 kept."""
    far, geometry, gpu = server.far, server.geometry, server.scenario.gpus.gpu
    burst = geometry.burst
    near = gpu.memory_latency + burst / (gpu.attention_bandwidth_efficiency * gpu.memory_bandwidth)
    if far is None:
        return Traffic(l1_access_s=near)
    counts, path, groups = far.counts, far.nominal, far.by_group()
    if len(groups) == 1:
        groups = [replace(groups[0], near=not_far - far.l2_hits, kept=far.l2_hits)]
    stages = carried(path.read, path.write, far.moved * geometry.layer_bytes, far.written)
    return Traffic(
        page_bytes=geometry.layer_bytes,
        asked=counts.asked, demand=counts.demand, in_time=counts.in_time, late=counts.late,
        proposed=counts.proposed, issued=counts.issued, dropped=counts.dropped, useless=counts.useless,
        in_flight=far.unused, l2_hits=far.l2_hits, polluted=far.polluted,
        moved=far.moved, written_bytes=far.written, backlog_bytes=far.backlog, sent_bytes=far.sent,
        homed=server.engine.replicas[0].residency.homed,
        wait_s=far.wait, waited=far.waited, near=not_far - far.l2_hits, groups=tuple(groups), l1_access_s=near,
        l3_access_s=path.read_latency + burst / path.burst_rate,
        rates=tuple(path.rates()),
        stages=stages,
    )  # fmt: skip


def check_run(measured: Measured) -> None:
    simulation, columns = measured.simulation, measured.columns
    invariants.check_requests(columns)
    invariants.check_attribution(columns)
    if simulation.tenants is not None:
        simulation.tenants.check(len(measured.parts))
    for part, held in zip(measured.parts, measured.held):
        own = part.columns
        prompt, elsewhere = own["input_tokens"], 0
        if part.server.role == "decode" and isinstance(simulation.frontend, Disaggregated):
            brought = np.isin(own["request"], list(simulation.frontend.remote))
            prompt, elsewhere = np.where(brought, 0, prompt), int((brought & (own["status"] != "rejected")).sum())
        invariants.check_tokens(part.recorder, part.steps, prompt, own["output_tokens"], elsewhere)
        invariants.check_steps(part.steps)
        for name, (capacity, used) in held.items():
            invariants.check_capacity(name, used, capacity)
        engine = part.server.engine
        left = 0
        for replica in engine.replicas:
            left += replica.residency.l1_used + replica.residency.l3_used + (replica.prefix.used if replica.prefix else 0)
        invariants.require("INV-CAPACITY", left == 0, f"{left} blocks are still held after the last request")
        invariants.check_traffic(part.traffic)
        if part.traffic.asked:
            invariants.check_shares(own, part.traffic, float(far_stall(part.recorder).sum()))
        if isinstance(part.server.far, DetailedFar):
            part.server.far.check()
        values, weights = token_gaps(part.recorder, part.steps)
        invariants.check_little(part.recorder, own, engine.presence, float(np.dot(values, weights)))
