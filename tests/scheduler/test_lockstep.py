"""Replicas that share experts: who gets a request, who runs in which step, and what a step takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.experiments.simulation import Simulation
from tests.properties.small import Rows, blocks, draw, requests, scenario, served

MOE: dict[str, Any] = {
    "model.experts": 8, "model.experts_per_token": 2, "model.expert_intermediate": 128,
    "cluster.gpus": {"type": "a100-80gb-sxm", "count": 2, "data_parallel": 2, "tensor_parallel": 1, "expert_parallel": 2},
}  # fmt: skip
ONE = {"requests": 1, "arrivals": {"process": "at_once"}, "input": {"dist": "fixed", "tokens": "1 token"},
       "output": {"dist": "fixed", "tokens": "1 token"}}  # fmt: skip


def run(rows: Rows, settings: dict[str, Any] | None = None) -> Simulation:
    found = Simulation(scenario({"workload.synthetic": ONE} | MOE | (settings or {})).resolved, requests(rows))
    found.run()
    return found


def steps(simulation: Simulation) -> list[tuple[int, int, int]]:
    runs = simulation.recorder.runs.arrays()
    return list(zip(runs["decodes"].tolist(), runs["prefill"].tolist(), runs["rows"].tolist(), strict=True))


def test_each_replica_has_its_own_budget_and_places() -> None:
    """Budget 8 each: A and B run on one replica each, side by side; C waits behind A, D behind B.

    Would catch: one budget for both, a replica that runs the other's requests, a step for each replica.
    """
    rows = [(0.0, 8, 2), (0.0, 8, 1), (0.0, 7, 1), (0.0, 4, 1)]
    found = run(rows, {"scheduler.token_budget": "8 tokens"})
    assert steps(found) == [(0, 16, 2), (1, 11, 3)]
    assert found.engine.steps == 2


def test_the_balancer_weighs_waiting_by_four() -> None:
    """Three requests run on replica 0 and none on 1 when two more come: both go to 1 (0 and 4 against 3 ... and 12).

    By hand: at the first instant A to 0, B to 1 (4 against 0), C to 0, D to 1. B and D end; E then finds (0 waiting,
    2 running) against (0, 0), and goes to 1; F finds 2 against 4: to 0.
    Would catch: round robin, waiting counted as running, the last of equals.
    """
    rows = [(0.0, 8, 30), (0.0, 8, 2), (0.0, 8, 30), (0.0, 8, 2), (0.01, 8, 5), (0.01, 8, 5)]
    found = run(rows)
    where = {request: index for index, replica in enumerate(_holders(rows)) for request in replica}
    assert where == {0: 0, 1: 1, 2: 0, 3: 1, 4: 1, 5: 0}
    assert list(found.recorder.status) == [1] * 6


def _holders(rows: Rows) -> list[set[int]]:
    """Which requests each replica was offered."""
    found = Simulation(scenario({"workload.synthetic": ONE} | MOE).resolved, requests(rows))
    offered: list[set[int]] = []
    for replica in found.engine.replicas:
        mine: set[int] = set()
        offered.append(mine)
        replica.offer = _noting(mine, replica.offer)  # type: ignore[method-assign]
    found.run()
    return offered


def _noting(mine: set[int], offer: Any) -> Any:
    def noted(request: int) -> None:
        mine.add(request)
        offer(request)

    return noted


def test_a_step_is_as_long_as_the_slowest_replica() -> None:
    """One replica computes 200 prompt tokens, the other one token: the step is that of 200, with the experts of 201 tokens.

    Would catch: the mean for the maximum, experts of one replica only, an exchange left out.
    """
    found = run([(0.0, 200, 1), (0.0, 1, 1)])
    model, given = found.engine.model, found.recorder.given.arrays()
    alone = model.shared_parts(200, 1, 1, (100.5,))
    attention = model.layers * model.prefill_attention([(200, 0)]).time
    assert given["duration"].tolist() == [pytest.approx(alone.total + attention, rel=1e-12)]
    assert model.exchange(100.5) > 0.0
    assert alone.collective == pytest.approx(model.layers * model.exchange(100.5), rel=1e-12)
    assert model.shared_parts(200, 1, 1, (200.0,)).total > alone.total


def test_equal_replicas_are_two_of_one_with_equal_peers() -> None:
    """Two equal requests on two replicas take what one takes whose peer is said to have as many tokens.

    Would catch: experts or exchange counted for twice or half of the tokens.
    """
    pair = run([(0.0, 64, 20), (0.0, 64, 20)])
    peer = {"cluster.gpus": MOE["cluster.gpus"] | {"count": 1, "data_parallel": 1}}
    single = run([(0.0, 64, 20)], peer)
    assert list(pair.recorder.finished) == pytest.approx(list(single.recorder.finished) * 2, rel=1e-9)


def test_an_idle_replica_steps_along() -> None:
    """One request: the other replica runs dummy tokens, and nothing else changes than their experts.

    Would catch: a step that waits for a replica without work, tokens given out by a dummy.
    """
    found = run([(0.0, 64, 20)])
    assert steps(found) == [(0, 64, 1)] + [(1, 0, 1)] * 19
    assert [replica.batch.step for replica in found.engine.replicas] == [20, 20]


@pytest.mark.parametrize("capacity", [16, 200])
def test_invariants(capacity: int) -> None:
    """Random requests with few and many blocks, all invariants on. Would catch: parts that do not sum to steps, blocks that
    are not given back, time in the system that is counted twice, a result that depends on anything but the scenario."""
    settings = MOE | {"kv.l1": blocks(capacity)}
    rows = draw(5, 60, 3000.0)
    one, other = served(settings, rows), served(settings, rows)
    assert (one.columns["status"] == "finished").all()
    np.testing.assert_array_equal(one.columns["finished_s"], other.columns["finished_s"])
    assert (one.summary["requests"]["preemptions"] > 0) == (capacity == 16)
    assert one.summary["tiers"]["l1"]["peak_bytes"] > 0


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"model.experts": None, "model.experts_per_token": None, "model.expert_intermediate": None}, "share no experts"),
        ({"cluster.gpus": MOE["cluster.gpus"] | {"expert_parallel": 1}}, "experts are on 1 of the 2"),
        ({"cluster.gpus": MOE["cluster.gpus"] | {"count": 4}}, "not the count"),
    ],
)
def test_what_does_not_run_in_lock_step_is_refused(settings: dict[str, Any], named: str) -> None:
    """Would catch: replicas of a dense model slowed down by each other, GPUs that nobody uses."""
    with pytest.raises(InputError, match=named):
        scenario({"workload.synthetic": ONE} | MOE | settings)
