"""Energy and money of a run. Prices are inputs with a date; nothing here is measured but the time.

    energy   GPU: idle + (decode - idle) * HBM utilisation + (prefill - idle) * tensor-core utilisation, at most prefill,
             for each step (`hardware/power.py`)
             board: idle + (active - idle) * utilisation of its busiest stage;  its memory, switch, adapter, host: constant
    purchase (sum of prices) / (years * utilisation) + energy * PUE * price of electricity
    rent     GPU rent (its power included), the pool as under purchase

Of several replicas each has its GPUs and a host. A pool that they share is there once; of a pool that is also shared by
replicas outside of the scenario (`shared_by`) this one pays its part.
USD per million output tokens = USD of the run's time / output tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator.metrics.steps import Steps
from simulator.scenario.resolved import Pool, ScenarioResolved, Switch

YEAR = 365 * 86400.0


@dataclass(frozen=True)
class Energy:
    """Joules of a run."""

    gpu: float
    pool: float
    host: float

    @property
    def total(self) -> float:
        return self.gpu + self.pool + self.host


def energy(replicas: Sequence[tuple[ScenarioResolved, Steps]], makespan: float, pool_utilization: float) -> Energy:
    """Energy over `makespan` seconds; `replicas`: the scenario of each and its steps; `pool_utilization` is that of the busiest
    stage of the boards."""
    gpus = 0.0
    for scenario, steps in replicas:
        gpu = scenario.gpus.gpu
        streaming, computing = steps.load
        most = gpu.prefill_power - gpu.idle_power
        joules = (gpu.decode_power - gpu.idle_power) * streaming + most * computing
        above_idle = float(np.minimum(joules, most * steps.duration).sum())
        gpus += scenario.gpus.count * (gpu.idle_power * makespan + above_idle)
    scenario = replicas[0][0]
    pool, boards = scenario.pool, 0.0
    if pool:
        board = pool.board
        power = pool.boards * (board.idle_power + (board.active_power - board.idle_power) * pool_utilization)
        power += pool.boards * board.memory * pool.memory_power
        power += pool.boards * pool.links_per_board * pool.link.power
        power += sum(count * switch.power for count, switch in _switches(pool))
        boards = _pools(scenario) * power * makespan / pool.shared_by
    return Energy(gpus, boards, len(replicas) * scenario.cost.host_power * makespan)


def usd_per_hour(replicas: Sequence[ScenarioResolved], joules: Energy, makespan: float) -> dict[str, float]:
    """Cost of an hour of the system at the run's mean power, by item; `replicas`: the scenario of each."""
    scenario = replicas[0]
    cost, pool = scenario.cost, scenario.pool
    lifetime_hours = cost.years * cost.utilization * YEAR / 3600
    boards = 0.0
    if pool:
        stored = pool.boards * pool.board.memory * pool.memory_price
        boards = pool.boards * (pool.board.price + pool.links_per_board * pool.link.price) + stored
        boards = _pools(scenario) * (boards + sum(count * switch.price for count, switch in _switches(pool))) / pool.shared_by
    renting = cost.basis == "rent"
    billed = joules.pool if renting else joules.total
    every = [one.gpus for one in replicas]
    return {
        "gpus": sum(gpus.count * (gpus.gpu.rent if renting else gpus.gpu.price / lifetime_hours) for gpus in every),
        "pool": boards / lifetime_hours,
        "host": 0.0 if renting else len(replicas) * cost.host_price / lifetime_hours,
        "electricity": billed * cost.pue * cost.electricity / makespan * 3600 if makespan else 0.0,
    }


def _pools(scenario: ScenarioResolved) -> int:
    """One for all replicas of the scenario, or one for each."""
    cluster = scenario.cluster
    return 1 if cluster.pool_shared else sum(group.count for group in cluster.groups)


def _switches(pool: Pool) -> list[tuple[int, Switch]]:
    """(how many, what) between boards and GPUs."""
    levels = ((1, pool.switch), (pool.leaves, pool.leaf))
    return [(count, switch) for count, switch in levels if switch is not None]
