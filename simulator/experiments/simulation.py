"""One simulation: it owns the SimPy environment, the random streams and the recorders; nothing outlives it.

One replica alone runs by itself; several are behind a router (`scheduler/frontend.py`), each a `Server` with a recorder for its
steps. `engine`, `recorder`, `far` and `geometry` are those of the first one, for who looks at one replica.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from time import monotonic

import numpy as np
import simpy
from numpy.typing import NDArray

from simulator.experiments.server import Server, schedule, server
from simulator.experiments.streams import stream as stream
from simulator.hardware.pool import far_path
from simulator.kvcache.geometry import Geometry, geometry
from simulator.kvcache.policies import law, retention
from simulator.metrics.recorder import Recorder
from simulator.metrics.steps import StepLaw
from simulator.scenario.resolved import Group, Retention, ScenarioResolved
from simulator.scheduler.disaggregation import Disaggregated
from simulator.scheduler.engine import Engine
from simulator.scheduler.far import FarMemory
from simulator.scheduler.frontend import Frontend
from simulator.scheduler.lockstep import Lockstep
from simulator.scheduler.routing import RULES, ByTenant, Rule
from simulator.scheduler.shared import (
    Room,
    SharedFabric,
    SharedFar,
    far_crossings,
    host_crossings,
    swaps_together,
    transfer_crossings,
    transfer_most,
)
from simulator.scheduler.shared_faults import BrokenFabric
from simulator.scheduler.tenants import Tenants
from simulator.scheduler.work import Work
from simulator.workload.labels import numbered
from simulator.workload.prefix_ids import block_ids, fits, thinned_ids
from simulator.workload.requests import Requests

EVENTS_BETWEEN_LOOKS = 200


def labels_of(requests: Requests, scenario: ScenarioResolved) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """SLO class and tenant of each request, by number; 0 where the scenario has none."""
    found, count = [], len(requests)
    for column, labels, parts in (("class", requests.kind, scenario.slo.given), ("tenant", requests.tenant, scenario.tenants)):
        names, shares = [part.name for part in parts], [part.share for part in parts]
        draws = stream(scenario.seed, f"{column} of a request")
        found.append(numbered(labels, column, names, shares, count, draws) if parts else np.zeros(count, dtype=np.int64))
    return found[0], found[1]


def work_of(
    requests: Requests, block_tokens: int, kind: Sequence[int] = (), tenant: Sequence[int] = (), partial: bool = False,
    share: float = 1.0,
) -> Work:  # fmt: skip
    """The requests as the scheduler takes them; ids of blocks where the trace has them and one size is a multiple of the other;
    `partial`: of the last, partial one of a prompt as well, where answers have none. With a `share` of each prompt's tokens in
    the cache ids stand for fewer tokens; answers, which are whole there, are not found in prompts, where they are not."""
    ids, outputs, size = requests.hash_ids, requests.output_ids, requests.block_tokens
    prompt, output = requests.input_tokens.tolist(), requests.output_tokens.tolist()

    def of(request: int) -> list[int]:
        assert ids is not None
        found: list[int] = ids[request].tolist()
        if share != 1.0:
            return thinned_ids(found, share * size, block_tokens, prompt[request], partial)
        if outputs is not None:
            return block_ids(found + outputs[request].tolist(), size, block_tokens, prompt[request] + output[request])
        return block_ids(found, size, block_tokens, prompt[request], partial)

    whole = ids is not None and (share != 1.0 or fits(size, block_tokens))
    loop = requests.loop
    after, delay = (loop.after.tolist(), loop.delay.tolist()) if loop else ([], [])
    session = [] if requests.session is None else requests.session.tolist()
    return Work(requests.arrival.tolist(), prompt, output, of if whole else None, after, delay, session, kind, tenant)


def retained(requests: Requests, policy: Retention) -> Requests:
    """The requests with the prompts that reach the cache."""
    share = retention.prompt_share(policy)
    if share == 1.0:
        return requests
    prompts = [retention.prompt(policy, tokens) for tokens in requests.input_tokens.tolist()]
    note = f"retention: {share:g} of each prompt's tokens are kept; lengths below are those"
    return replace(requests, input_tokens=np.array(prompts, np.int64), notes=(*requests.notes, note))


def _equal(request: int) -> float:
    """The weight of a request where there are no tenants."""
    return 1.0


def _pairs(roles: Sequence[str]) -> list[tuple[int, int]]:
    """(sender, receiver) of prompts."""
    senders, receivers = ([at for at, role in enumerate(roles) if role == kind] for kind in ("prefill", "decode"))
    return [(start, end) for start in senders for end in receivers]


class Simulation:
    """The replicas of a resolved scenario serving `requests`; `far_memory`: in place of what `devices` says."""

    def __init__(
        self, scenario: ScenarioResolved, requests: Requests, coalesce: bool = True, check: bool = False,
        far_memory: type[FarMemory] | None = None,
    ):  # fmt: skip
        requests = retained(requests, scenario.kv.policies.retention)
        self.scenario, self.requests = scenario, requests
        self.notes: tuple[str, ...] = requests.notes
        self.env = simpy.Environment()
        self.kind, self.tenant = labels_of(requests, scenario)
        named = self.kind.tolist() if scenario.slo.given else (), self.tenant.tolist() if scenario.tenants else ()
        share = retention.prompt_share(scenario.kv.policies.retention)
        work = work_of(requests, scenario.kv.block_tokens, *named, scenario.kv.reuse.partial, share)
        recorder = Recorder(len(requests))
        self.tenants = Tenants(self.env, work.tenant, scenario.tenants) if scenario.tenants else None
        self.frontend: Frontend | None = None
        if not scenario.cluster.groups:
            self.servers = [server(self.env, scenario, work, recorder, coalesce, check, far_memory)]
        else:
            self.servers = self._replicas(work, recorder, coalesce, check)
        for one in self.servers:
            for replica in one.engine.replicas:
                replica.tenants = self.tenants

    def _replicas(self, work: Work, recorder: Recorder, coalesce: bool, check: bool) -> list[Server]:
        """The replicas of all groups behind a router; those that compute prompts for others first."""
        scenario, found = self.scenario, list[Server]()
        groups = sorted(scenario.cluster.groups, key=lambda group: group.role != "prefill")
        every = [(group, scenario.of(group)) for group in groups for _ in range(group.count)]
        shares = scenario.pool is not None and scenario.cluster.pool_shared
        fabric = self._fabric([own for _, own in every], shares, check)
        if self.tenants is not None:
            self.tenants.on(fabric.fabric)
        prompts = sum(group.count for group in groups if group.role == "prefill")
        # where prompts are computed elsewhere, each kind of replica has requests and records of its own
        of_prompts = replace(work, output=[1] * len(work.output)) if prompts else work
        # and those who decode have no prefix cache (`disaggregation.py`)
        decoded = replace(work, arrival=[inf] * len(work.arrival), ids=None, after=(), delay=()) if prompts else work
        first = {"prefill": recorder, "decode": Recorder(len(work.arrival)), "both": recorder}
        for number, (group, own) in enumerate(every):
            rows = first[group.role] if not any(one.role == group.role for one in found) else first[group.role].beside()
            far = None
            if shares and own.scheduler.preemption != "swap_pool":
                draws = stream(scenario.seed, f"prefetch {number}" if number else "prefetch")
                far = SharedFar(own, geometry(own), draws, fabric, number)
            task = of_prompts if group.role == "prefill" else decoded
            found.append(server(self.env, own, task, rows, coalesce, check, None, number, far))
            found[-1].group, found[-1].role = group.name, group.role
        every_one = [one.engine for one in found]
        engines = [one for one in every_one if isinstance(one, Engine)]  # those in lock step have no pool
        ofs = [[group for group, _ in every if (group.role == "prefill") == first] for first in (True, False)]
        names = ("routing prompts", "routing")
        rules = [self._rule(work, places, stream(scenario.seed, name)) for places, name in zip(ofs, names, strict=True)]
        if prompts:
            self.frontend = self._split(work, every_one, (rules[0], rules[1]), [own for _, own in every], prompts, fabric)
        else:
            self.frontend = Frontend(self.env, work, every_one, rules[1])
        for one, placed in zip(found, self.frontend.placed, strict=True):
            one.requests = placed
        if shares and scenario.parks:
            self._park_together(engines)
            if scenario.faults:
                self._break([own for _, own in every], fabric, None)
        elif shares and not any(one.far is None for one in found):
            self.frontend.room = room = Room(found[0].geometry.l3_blocks)
            room.engines += engines
            for engine in engines:
                engine.room = room
                if engine.faults is not None:
                    engine.faults.lend = partial(room.lend, engine)
            if scenario.faults:
                self._break([own for _, own in every], fabric, room)
        if shares:
            share = self.tenants.share if self.tenants is not None else _equal
            latencies = [far_path(own).read_latency for _, own in every]
            swaps_together([engine.swap for engine in engines], latencies, fabric, share)
        return found

    def _break(self, replicas: list[ScenarioResolved], fabric: SharedFabric, room: Room | None) -> None:
        """The faults of a pool that these replicas share."""
        pool, frontend = self.scenario.pool, self.frontend
        assert pool is not None and frontend is not None
        schedules = [schedule(own, pool, number) for number, own in enumerate(replicas)]
        broken = BrokenFabric(self.env, fabric, replicas, schedules, room, lambda: frontend.open_requests == 0)
        self.env.process(broken.run())

    def _park_together(self, engines: Sequence[Engine]) -> None:
        """What one replica leaves in the pool is there for all that have a prefix cache."""
        reuses = [engine.reuse for engine in engines if engine.reuse is not None]
        for reuse in reuses:
            reuse.parked = reuses[0].parked

    def _rule(self, work: Work, places: Sequence[Group], draws: np.random.Generator) -> Rule:
        """The routing rule among replicas of these groups; where some serve certain tenants only, among those that do."""
        kind, tenants = RULES[self.scenario.cluster.routing], self.scenario.tenants
        if not any(group.tenants for group in places):
            return kind(work, draws)
        serving = [
            [place for place, group in enumerate(places) if not group.tenants or one.name in group.tenants] for one in tenants
        ]
        return ByTenant(work, serving, lambda: kind(work, draws))

    def _fabric(self, replicas: list[ScenarioResolved], shares: bool, check: bool) -> SharedFabric:
        """What replicas have in common: the pool, and the way between those that compute prompts and those that decode."""
        crossings = [one for number, own in enumerate(replicas) for one in far_crossings(own, number)] if shares else []
        for number, own in enumerate(replicas):
            crossings += host_crossings(own, number) if shares and own.scheduler.preemption == "swap_host" else []
        roles = [group.role for group in self.scenario.cluster.groups for _ in range(group.count)]
        roles.sort(key=lambda role: role != "prefill")
        for start, end in _pairs(roles):
            crossings += transfer_crossings(replicas[start], replicas[end], (start, end))
        return SharedFabric(self.env, crossings, check, changing=shares and bool(self.scenario.faults))

    def _split(
        self, work: Work, engines: list[Engine | Lockstep], rules: tuple[Rule, Rule], replicas: list[ScenarioResolved],
        prompts: int, fabric: SharedFabric,
    ) -> Disaggregated:  # fmt: skip
        """A router before replicas of both kinds, the first `prompts` of which compute prompts."""
        scenario = self.scenario
        way = scenario.cluster.transfer
        assert way is not None
        ways = {}
        for start in range(prompts):
            for end in range(prompts, len(engines)):
                ports = replicas[start].gpus.gpu.link.latency + replicas[end].gpus.gpu.link.latency
                most = transfer_most(replicas[start], replicas[end])
                ways[start, end] = (fabric.way(f"{start} to {end}"), way.link.latency + ports, most)
        token, kv = scenario.model.kv_bytes_per_token, scenario.kv
        stored = law.stored(kv.policies, scenario.model, kv.block_tokens)

        def held(tokens: int) -> float:
            return token * stored.at(tokens) if tokens else 0.0

        return Disaggregated(self.env, work, engines, rules, prompts, fabric.fabric, ways, way.threshold, held, self.tenants)

    @property
    def engine(self) -> Engine | Lockstep:
        return self.servers[0].engine

    @property
    def recorder(self) -> Recorder:
        return self.servers[0].recorder

    @property
    def far(self) -> FarMemory | None:
        return self.servers[0].far

    @property
    def geometry(self) -> Geometry:
        return self.servers[0].geometry

    @property
    def _whole(self) -> Engine | Lockstep | Frontend:
        """Who knows all requests."""
        return self.frontend or self.engine

    @property
    def events(self) -> int:
        return self._whole.events

    @property
    def steps(self) -> int:
        return self._whole.steps

    @property
    def clock(self) -> float:
        return self._whole.clock

    @property
    def found_blocks(self) -> dict[str, int]:
        """Blocks of prompts that have an id, and what of them was found in which tier, of all replicas."""
        counts = [one.recorder.prefix_blocks for one in self.servers]
        return {name: sum(count[name] for count in counts) for name in counts[0]}

    def run(self, progress: Callable[[float, str], None] | None = None) -> None:
        if self.frontend is not None:
            self.frontend.start()
        else:
            self.env.process(self.engine.run())
        if progress is None:
            self.env.run()
        else:
            self._run_telling(progress)
        for one in self.servers:
            if one.far is not None:
                one.far.cancel()

    def _run_telling(self, progress: Callable[[float, str], None]) -> None:
        """Run, and tell how many requests have ended about five times a second."""
        total, told = len(self.requests), monotonic()
        between = 1 if self.scenario.devices == "detailed" else EVENTS_BETWEEN_LOOKS  # such a step takes long
        while self.env.peek() < inf:
            for _ in range(between):
                if self.env.peek() == inf:
                    break
                self.env.step()
            if monotonic() - told > 0.2:
                told = monotonic()
                ended = total - self._whole.open_requests
                progress(ended / total, f"{ended} of {total} requests, {self._whole.clock:.0f} s simulated")

    def law(self) -> StepLaw:
        """The step model's times of the first replica."""
        return self.servers[0].law()
