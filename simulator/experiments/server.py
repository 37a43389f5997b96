"""One replica of a simulation and what belongs to it: its recorder, its far memory, its share of the requests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import simpy

from simulator.experiments.streams import stream
from simulator.hardware.faults import Schedule
from simulator.kvcache.by_name import needs_table
from simulator.kvcache.geometry import Geometry, geometry
from simulator.kvcache.identity import paged
from simulator.metrics.recorder import Recorder
from simulator.metrics.steps import StepLaw, StepTimes, shapes
from simulator.scenario.resolved import Pool, ScenarioResolved
from simulator.scheduler.detailed import DetailedFar
from simulator.scheduler.engine import Engine
from simulator.scheduler.far import FarMemory
from simulator.scheduler.faults import Faults
from simulator.scheduler.lockstep import Lockstep
from simulator.scheduler.paged import PagedFar
from simulator.scheduler.work import Work


@dataclass
class Server:
    """A replica (or those in lock step); `scenario` is that of one of its group."""

    name: str
    scenario: ScenarioResolved
    geometry: Geometry
    recorder: Recorder
    engine: Engine | Lockstep
    far: FarMemory | None
    group: str = ""
    role: str = "both"
    requests: list[int] | None = field(default=None)  # those that it got, of a simulation of several; None: all

    def law(self) -> StepLaw:
        """The step model's times for every shape of step that occurred."""
        model, runs = self.engine.model, self.recorder.runs.arrays()
        times = {}
        for tokens, rows, kernels in shapes(runs)[0]:
            parts = model.parts(tokens, rows, kernels)
            base, streaming_computing = model.base(tokens, rows, kernels), model.load(tokens, rows)
            times[tokens, rows, kernels] = StepTimes(
                base, parts.compute, parts.hbm, parts.collective, parts.launch, model.unit_time(tokens), *streaming_computing
            )
        swap = self.engine.replicas[0].swap
        path = self.far.nominal if self.far else swap.path if swap else None
        kind, swaps = path.bound_kind if path else "link", swap.path.bound_kind if swap and swap.path else "link"
        return StepLaw(model.host, model.host_per_sequence, model.attention_part, model.unit_load(), times, kind, swaps)


def schedule(scenario: ScenarioResolved, pool: Pool, number: int) -> Schedule:
    """What breaks for the replica with this number, and when: what all share at the same times for all."""
    count, together = len(scenario.faults), scenario.cluster.pool_shared
    common, own = (stream(scenario.seed, f"faults {mine}" if mine else "faults").spawn(count) for mine in (0, number))
    found = [
        (fault, own[entry] if fault.own or not together else common[entry])
        for entry, fault in enumerate(scenario.faults)
        if fault.replica in (None, number)
    ]
    return Schedule(pool, [fault for fault, _ in found], [draws for _, draws in found])


def server(
    env: simpy.Environment, scenario: ScenarioResolved, work: Work, recorder: Recorder, coalesce: bool = True,
    check: bool = False, far_memory: type[FarMemory] | None = None, number: int | None = None, far: FarMemory | None = None,
) -> Server:  # fmt: skip
    """A replica that serves `work`; of several, the one with this `number`, which is fed. `far`: its far memory, if made."""
    sizes, kv, pages = geometry(scenario), scenario.kv, None
    pool = scenario.pool if scenario.scheduler.preemption != "swap_pool" else None  # then nothing is read from it in place
    if pool is None:
        sizes = replace(sizes, l3_blocks=0)
    engine: Engine | Lockstep

    def draws(name: str) -> np.random.Generator:
        return stream(scenario.seed, f"{name} {number}" if number else name)

    if far is not None:
        pass
    elif pool and kv.sharing != "prefix" and needs_table(kv.selection, kv.placement, scenario.prefetch.predictor):
        table = PagedFar(scenario, sizes, draws("prefetch"), check)
        pages = paged(scenario, sizes, table.refetch_seconds, draws("selection"))
        table.attach(pages)
        far = table
    elif pool and scenario.devices == "detailed" and far_memory is None:
        far = DetailedFar(scenario, sizes, draws("prefetch"), draws("placement"), lambda: engine.clock)
    elif pool:
        far = (far_memory or FarMemory)(scenario, sizes, draws("prefetch"), check)
    if scenario.gpus.data_parallel > 1:
        engine = Lockstep(env, scenario, sizes, work, recorder, fed=number is not None)
    else:
        engine = Engine(env, scenario, sizes, work, recorder, far, coalesce, pages, fed=number is not None)
        if scenario.faults and pool and far:
            engine.faults = Faults(scenario, schedule(scenario, pool, number or 0), engine, far)
    return Server("replica 0" if number is None else f"replica {number}", scenario, sizes, recorder, engine, far)
