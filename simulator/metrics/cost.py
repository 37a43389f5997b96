"""Energy and money of a run. Prices are inputs with a date; nothing here is measured but the time.

    energy   GPU: idle + (decode - idle) * HBM utilisation + (prefill - idle) * tensor-core utilisation, at most prefill,
             for each step (`hardware/power.py`)
             board: idle + (active - idle) * utilisation of its busiest stage;  its memory, switch, adapter, host: constant
    purchase (sum of prices) / (years * utilisation) + energy * PUE * price of electricity
    rent     GPU rent (its power included), the pool as under purchase

A replica pays its part of a pool that several share.
USD per million output tokens = USD of the run's time / output tokens.
"""

from __future__ import annotations

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


def energy(scenario: ScenarioResolved, steps: Steps, makespan: float, pool_utilization: float) -> Energy:
    """Energy over `makespan` seconds; `pool_utilization` is that of the busiest stage of the boards."""
    gpu, count, pool = scenario.gpus.gpu, scenario.gpus.count, scenario.pool
    streaming, computing = steps.load
    most = gpu.prefill_power - gpu.idle_power
    joules = (gpu.decode_power - gpu.idle_power) * streaming + most * computing
    above_idle = float(np.minimum(joules, most * steps.duration).sum())
    boards = 0.0
    if pool:
        board = pool.board
        power = pool.boards * (board.idle_power + (board.active_power - board.idle_power) * pool_utilization)
        power += pool.boards * board.memory * pool.memory_power
        power += pool.boards * pool.links_per_board * pool.link.power
        power += sum(count * switch.power for count, switch in _switches(pool))
        boards = power * makespan / pool.shared_by
    return Energy(count * (gpu.idle_power * makespan + above_idle), boards, scenario.cost.host_power * makespan)


def usd_per_hour(scenario: ScenarioResolved, joules: Energy, makespan: float) -> dict[str, float]:
    """Cost of an hour of the system at the run's mean power, by item."""
    cost, gpus, pool = scenario.cost, scenario.gpus, scenario.pool
    lifetime_hours = cost.years * cost.utilization * YEAR / 3600
    boards = 0.0
    if pool:
        stored = pool.boards * pool.board.memory * pool.memory_price
        boards = pool.boards * (pool.board.price + pool.links_per_board * pool.link.price) + stored
        boards = (boards + sum(count * switch.price for count, switch in _switches(pool))) / pool.shared_by
    renting = cost.basis == "rent"
    billed = joules.pool if renting else joules.total
    return {
        "gpus": gpus.count * (gpus.gpu.rent if renting else gpus.gpu.price / lifetime_hours),
        "pool": boards / lifetime_hours,
        "host": 0.0 if renting else cost.host_price / lifetime_hours,
        "electricity": billed * cost.pue * cost.electricity / makespan * 3600 if makespan else 0.0,
    }


def _switches(pool: Pool) -> list[tuple[int, Switch]]:
    """(how many, what) between boards and GPUs."""
    levels = ((1, pool.switch), (pool.leaves, pool.leaf))
    return [(count, switch) for count, switch in levels if switch is not None]
