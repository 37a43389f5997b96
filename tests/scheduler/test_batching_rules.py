"""Each batching rule, queue order and kind of preemption on toy cases: who runs in which step, worked out by hand.

Blocks have 16 tokens. vLLM V1's rule has its cases in `test_vllm_rule.py`.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from simulator.experiments.simulation import Simulation
from simulator.metrics.recorder import FINISHED, REJECTED
from simulator.scheduler.queues import Fair
from simulator.workload.requests import Labels, Requests
from tests.properties.small import BLOCK, Rows, blocks, draw, pool, same_requests, scenario
from tests.properties.small import served as checked
from tests.scheduler.test_vllm_rule import NO_WATERMARK, ONE, served, steps, tokens

TIGHT = {"kv.l1": blocks(4)} | NO_WATERMARK
BUDGET = {"scheduler.token_budget": tokens(24)}
# name -> (settings, rows, (decodes, prompt tokens, tokens given out) of each step)
CASES: dict[str, tuple[dict[str, Any], Rows, list[tuple[int, int, int]]]] = {
    # A and B fit the budget whole, C does not: it waits for the next step, and A and B with their decodes
    "prefill_first: whole prompts, then decodes": (
        BUDGET | {"scheduler.batching": "prefill_first"}, [(0.0, 10, 3), (0.0, 12, 2), (0.0, 8, 2)],
        [(0, 22, 2), (0, 8, 1), (3, 0, 3), (1, 0, 1)],
    ),
    # C is longer than a step: computed alone, in pieces, while A decodes not at all
    "prefill_first: a prompt longer than the budget": (
        BUDGET | {"scheduler.batching": "prefill_first"}, [(0.0, 10, 2), (0.0, 40, 1)],
        [(0, 10, 1), (0, 24, 0), (0, 16, 1), (1, 0, 1)],
    ),
    # the same requests: A decodes beside B's pieces, which get what is left of the budget
    "decode_first: decodes beside the pieces": (
        BUDGET | {"scheduler.batching": "decode_first"}, [(0.0, 10, 3), (0.0, 40, 1)],
        [(0, 24, 1), (1, 23, 1), (1, 3, 2)],
    ),
    "continuous: the same": (
        BUDGET, [(0.0, 10, 3), (0.0, 40, 1)], [(0, 24, 1), (1, 23, 1), (1, 3, 2)],
    ),
    # A and B: 2 blocks each of 4; C waits. After 12 decodes both want a third: B goes. The shorter C fits A's fourth block:
    # it enters in that very step; `continuous` admits nobody then
    "decode_first: admits in a step that preempted": (
        TIGHT | {"scheduler.batching": "decode_first", "scheduler.queue": "shortest_first"},
        [(0.0, 20, 14), (0.0, 20, 14), (1e-6, 5, 2)], [(0, 40, 2)] + [(2, 0, 2)] * 12 + [(1, 5, 2), (1, 33, 2)],
    ),
    "continuous: does not": (
        TIGHT | {"scheduler.queue": "shortest_first"},
        [(0.0, 20, 14), (0.0, 20, 14), (1e-6, 5, 2)], [(0, 40, 2)] + [(2, 0, 2)] * 12 + [(1, 0, 1), (0, 38, 2), (1, 0, 1)],
    ),
    # a batch of two; C waits until both have ended
    "static: whole batches": (
        {"scheduler.batching": "static", "scheduler.max_batch": 2}, [(0.0, 10, 3), (0.0, 12, 2), (0.0, 8, 2)],
        [(0, 22, 2), (2, 0, 2), (1, 0, 1), (0, 8, 1), (1, 0, 1)],
    ),
    # B is copied out after 12 decodes and back when A has ended; its prompt is not computed again
    "swap_host": (
        TIGHT | {"scheduler.preemption": "swap_host"}, [(0.0, 20, 14), (0.0, 20, 14)],
        [(0, 40, 2)] + [(2, 0, 2)] * 12 + [(1, 0, 1), (1, 0, 1)],
    ),
    # no room for its 2 blocks of 32 KiB: computed again
    "swap_host: no room": (
        TIGHT | {"scheduler.preemption": "swap_host", "scheduler.swap_space": "63 KiB"}, [(0.0, 20, 14), (0.0, 20, 14)],
        [(0, 40, 2)] + [(2, 0, 2)] * 12 + [(1, 0, 1), (0, 33, 1)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_who_runs_in_which_step(case: str) -> None:
    """Would catch: decodes beside whole prompts, prompts cut that need not be, a swapped sequence computed again."""
    settings, rows, expected = CASES[case]
    assert steps(served(settings, rows)) == expected


CLASSES = {"slo.classes": [{"name": "late", "ttft": "9 s", "priority": 1}, {"name": "soon", "ttft": "1 s", "priority": 0}]}
ONE_PLACE = {"scheduler.max_batch": 1}
# order -> which of four requests enter first; prompts 30, 20, 10, 5; classes late, late, soon, soon; B, C, D come during A
ORDERS = {"fcfs": "ABCD", "shortest_first": "ADCB", "priority": "ACDB", "earliest_deadline": "ACDB"}


def of_classes(settings: dict[str, Any], rows: Rows, kinds: list[int], coalesce: bool = True) -> Simulation:
    arrival, prompt, output = (np.array(column) for column in zip(*rows, strict=True))
    kind = Labels(("late", "soon"), np.array(kinds))
    requests = Requests(arrival.astype(float), prompt, output, None, 0, "by hand", kind=kind)
    simulation = Simulation(scenario({"workload.synthetic": ONE} | settings).resolved, requests, coalesce)
    simulation.run()
    return simulation


@pytest.mark.parametrize("order", ORDERS)
def test_who_enters_first(order: str) -> None:
    """One place, four requests. Would catch: an order that is not obeyed, one that a run of steps overtakes."""
    rows = [(0.0, 30, 20), (1e-6, 20, 2), (2e-6, 10, 2), (3e-6, 5, 2)]
    for coalesce in (False, True):
        run = of_classes(ONE_PLACE | CLASSES | {"scheduler.queue": order}, rows, [0, 0, 1, 1], coalesce)
        entered = np.argsort(run.recorder.admitted)
        assert "".join("ABCD"[request] for request in entered) == ORDERS[order]


def test_deadlines_are_those_of_the_classes() -> None:
    """B comes first, its class has 9 s; C comes 8.5 s later with 1 s, D 7.9 s later with 1 s: D, B, C.

    Would catch: deadlines without the arrival, or with the limit of another class.
    """
    rows = [(0.0, 30, 3000), (0.0, 5, 1), (8.5, 5, 1), (7.9, 5, 1)]
    rows = [rows[0], rows[1], rows[3], rows[2]]
    slow = {"scheduler.host_overhead": "10 ms", "scheduler.queue": "earliest_deadline"}
    run = of_classes(ONE_PLACE | CLASSES | slow, rows, [0, 0, 1, 1])
    assert np.argsort(run.recorder.admitted).tolist() == [0, 2, 1, 3]


TENANTS = {"tenants": [{"name": "x"}, {"name": "y"}]}


def of_tenants(settings: dict[str, Any], rows: Rows, tenants: list[int], check: bool = False) -> Simulation:
    arrival, prompt, output = (np.array(column) for column in zip(*rows, strict=True))
    tenant = Labels(("x", "y"), np.array(tenants))
    requests = Requests(arrival.astype(float), prompt, output, None, 0, "by hand", tenant=tenant)
    simulation = Simulation(scenario({"workload.synthetic": ONE} | settings).resolved, requests, check=check)
    simulation.run()
    return simulation


def test_tenants_take_turns_by_what_they_were_served() -> None:
    """One place. x sends A, B, C, then y D, E, F, each of 30 + 2 tokens, while A runs; with weight 2, y gets two for each of x.

    A prompt counts when it enters, the output when it ends. y comes without service, but starts from x's 30, since nobody saves
    up. After A (x 32): y 30 < 32: D; y 62: B; x 64 > 62: E ... Would catch: first come first served between tenants, weights
    upside down, a tenant that saves up.
    """
    rows = [(0.0, 30, 2), *[(1e-6 * place, 30, 2) for place in range(1, 6)]]
    tenants = [0, 0, 0, 1, 1, 1]
    even = of_tenants(ONE_PLACE | TENANTS | {"scheduler.queue": "fair"}, rows, tenants)
    assert "".join("ABCDEF"[one] for one in np.argsort(even.recorder.admitted)) == "ADBECF"
    weights = {"tenants": [{"name": "x"}, {"name": "y", "weight": 2}]}
    double = of_tenants(ONE_PLACE | weights | {"scheduler.queue": "fair"}, rows, tenants)
    assert "".join("ABCDEF"[one] for one in np.argsort(double.recorder.admitted)) == "ADBEFC"


@pytest.mark.parametrize("weight", [1, 3])
def test_shares_of_the_fabric_follow_the_weights(weight: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tenants with requests waiting read bytes from far memory in the ratio of their weights, whatever they ask for:
    y's requests are three times as long as x's. Within 10 %: a request is the grain, of about 30 a tenant here at least.

    Would catch: shares of requests or tokens instead of bytes, bytes charged to the wrong tenant, weights upside down.
    """
    settings = pool(l1=12, l3=60) | NO_WATERMARK | {"scheduler.queue": "fair_far"}
    settings |= {"tenants": [{"name": "x"}, {"name": "y", "weight": weight}]}
    rows = [(0.0, 20 if place % 2 else 60, 20) for place in range(400)]
    reads, ratios = Fair.reads, []

    def told(queue: Fair, sizes: Any) -> None:
        reads(queue, sizes)
        if all(queue._waiting) and queue.service[0]:
            ratios.append(weight * queue.service[1] / queue.service[0])

    monkeypatch.setattr(Fair, "reads", told)
    of_tenants(settings, rows, [1 - place % 2 for place in range(400)])
    assert ratios[-1] == pytest.approx(weight, rel=0.1)


def test_the_worst_is_preempted() -> None:
    """A has the lower priority and came first: where blocks run out, it goes, not the newer B.

    Would catch: a preemption that goes by age alone.
    """
    rows = [(0.0, 20, 14), (0.0, 20, 14)]
    run = of_classes(TIGHT | CLASSES | {"scheduler.queue": "priority"}, rows, [0, 1])
    assert list(run.recorder.preemptions) == [1, 0]
    assert list(of_classes(TIGHT | CLASSES, rows, [0, 1]).recorder.preemptions) == [0, 1]


def test_priorities_are_obeyed_at_every_admission() -> None:
    """Whenever a request of class `late` enters, none of class `soon` that the engine knew of waits."""
    rows = draw(3, 60, rate=3000)
    kinds = [request % 2 for request in range(60)]
    run = of_classes({"scheduler.max_batch": 2, "scheduler.queue": "priority"} | CLASSES, rows, kinds)
    taken = run_taken(run, rows)
    admitted = np.array(run.recorder.admitted)
    for request, at in enumerate(admitted):
        if kinds[request] == 0:
            assert not [other for other in range(60) if kinds[other] == 1 and taken[other] < at < admitted[other]]


def run_taken(run: Simulation, rows: Rows) -> list[float]:
    """When the engine knew of each request: the start of the first step at or after its arrival."""
    starts = run.recorder.runs.arrays()["start"]
    return [float(starts[min(np.searchsorted(starts, row[0]), len(starts) - 1)]) for row in rows]


@pytest.mark.parametrize("batching", ["continuous", "decode_first", "prefill_first", "static"])
def test_nobody_starves_under_fcfs(batching: str) -> None:
    """Requests enter for the first time in the order of arrival, and all end. Would catch: a rule that passes the head over."""
    settings = {"scheduler.batching": batching, "kv.l1": blocks(14)} | NO_WATERMARK
    run = served(settings, draw(5, 80, rate=3000))
    assert set(run.recorder.status) == {FINISHED}
    assert np.all(np.diff(run.recorder.admitted) >= 0)


@pytest.mark.parametrize("batching", ["continuous", "decode_first", "prefill_first", "static"])
def test_runs_are_their_single_steps(batching: str) -> None:
    """All invariants hold, and runs of steps change nothing, whatever the order, the kind of preemption and admission.

    Would catch: a run that an arrival should have ended, occupancy of sequences that are held, gaps that are lost.
    """
    kinds = product(("fcfs", "shortest_first"), ("recompute", "swap_host"), ("queue", "limit"))
    for seed, (order, preemption, admission) in enumerate(kinds):
        settings: dict[str, Any] = {"kv.l1": blocks(14), "scheduler.batching": batching} | NO_WATERMARK
        settings |= {"scheduler.queue": order, "scheduler.preemption": preemption, "scheduler.admission": admission}
        if admission == "limit":
            settings["scheduler.max_queue"] = 6
        rows = draw(seed, 50, rate=3000)
        one, other = checked(settings, rows), checked(settings, rows, coalesce=False)
        same_requests(one, other)
        assert one.summary["requests"]["preemptions"] > 0


def test_prefill_first_with_far_memory() -> None:
    """Steps of prompts read nothing of the sequences that wait. Would catch: reads, or ends, counted in such steps."""
    far = pool(l1=10, l3=40) | {"scheduler.batching": "prefill_first"} | NO_WATERMARK
    for eviction in ("split", "lru"):
        checked(far | {"kv.placement.eviction": eviction}, draw(1, 40, rate=3000))


def test_what_a_swap_takes() -> None:
    """2 blocks of 32 KiB out and back over a port of 1 GB/s: 65.5 us each, and the latencies of the link.

    Would catch: bytes that take no time, one direction only, the rate of one rank for all, times that no part has.
    """
    port = {"type": "pcie-gen4-x16", "bandwidth": "1 GB/s", "latency": "2 us"}
    settings = TIGHT | {"scheduler.preemption": "swap_host", "cluster.gpus": {"type": "a100-80gb-sxm", "link": port}}
    rows = [(0.0, 20, 14), (0.0, 20, 14)]
    run = checked(settings, rows)
    ideal = checked(settings | {"cluster.gpus.link": {"type": "ideal"}}, rows)
    wait = 2 * (2 * BLOCK / 1e9) + 3 * 2e-6
    longer = run.summary["simulation"]["simulated_s"] - ideal.summary["simulation"]["simulated_s"]
    assert longer == pytest.approx(wait, rel=1e-9)
    assert run.columns["link_s"][1] == pytest.approx(2 * BLOCK / 1e9 + 4e-6, rel=1e-9)  # back; out, it waits in the queue
    assert run.columns["link_s"][0] == pytest.approx(2 * BLOCK / 1e9 + 2e-6, rel=1e-9)
    assert run.summary["tiers"]["host"]["peak_bytes"] == 2 * BLOCK
    carried = {name: share * run.summary["simulation"]["simulated_s"] * 1e9
               for name, share in run.summary["utilization"].items() if name.startswith("gpu.port")}  # fmt: skip
    assert carried == pytest.approx({"gpu.port.read": 2 * BLOCK, "gpu.port.write": 2 * BLOCK}, rel=1e-9)


def test_swap_to_a_pool_crosses_its_path() -> None:
    """The same two blocks over the pool's path, stored compressed. Would catch: a path whose stages carry nothing, raw bytes
    in the pool, sequences that are read from it in place."""
    settings = pool(l1=4, l3=40, l2=0) | NO_WATERMARK | {"scheduler.preemption": "swap_pool"}
    run = checked(settings, [(0.0, 20, 14), (0.0, 20, 14)])
    ratio = run.summary["compression"]["ratio"]
    assert run.summary["requests"]["preemptions"] == 1
    assert run.summary["tiers"]["l3"]["peak_bytes"] == pytest.approx(2 * BLOCK / ratio)
    assert run.summary["prefetch"]["asked"] == 0
    seconds = run.summary["simulation"]["simulated_s"]
    assert run.summary["utilization"]["pool.link.read"] * seconds * 2e9 == pytest.approx(2 * BLOCK, rel=1e-6)


def test_admission_rejects_by_its_rule() -> None:
    """One place, four at once behind A. `limit` 2 lets B and C wait and rejects the others; `deadline` rejects whom the prompt
    tokens before it hold for longer than its TTFT.

    Would catch: a limit off by one, a rule that counts the running, a deadline that forgets the prompts before it.
    """
    rows = [(0.0, 30, 20), *[(1e-6, 200, 2)] * 4]
    limit = served(ONE_PLACE | {"scheduler.admission": "limit", "scheduler.max_queue": 2}, rows)
    assert list(limit.recorder.status) == [FINISHED] * 3 + [REJECTED] * 2
    model = limit.engine.model
    deadline = ONE_PLACE | {"scheduler.admission": "deadline", "scheduler.token_budget": tokens(100)}
    first = model.base(100, 1)
    started = served(ONE_PLACE, rows).recorder.runs.arrays()["start"].tolist()[1]  # B to E are known after A's prompt
    ttft = started - 1e-6 + 4 * first  # of B and C: 200 and 400 tokens are 2 and 4 full steps
    found = served(deadline | {"slo.ttft": f"{ttft * (1 + 1e-9)!r} s"}, rows)
    assert list(found.recorder.status) == [FINISHED] * 3 + [REJECTED] * 2


def test_refusals_name_the_field() -> None:
    """Would catch: fields that would silently have no effect."""
    from simulator.errors import InputError

    wrong: dict[str, dict[str, Any]] = {
        "scheduler.queue": {"scheduler.queue": "priority"},
        "scheduler.swap_space": {"scheduler.swap_space": "1 GiB"},
        "scheduler.max_queue": {"scheduler.max_queue": 3},
        "scheduler.preemption": {"scheduler.preemption": "swap_pool"},
        "slo.classes.1.name": {"slo.classes": [{"name": "a"}, {"name": "a"}]},
    }
    for field, settings in wrong.items():
        with pytest.raises(InputError) as refused:
            scenario({"workload.synthetic": ONE} | settings)
        assert field in str(refused.value), str(refused.value)


def test_names_of_the_field_are_accepted() -> None:
    """Would catch: a name that is accepted and stands for another rule."""
    names = {"vllm_v1": "continuous", "vllm_v0": "prefill_first", "sarathi": "decode_first"}
    for name, rule in names.items():
        assert scenario({"workload.synthetic": ONE, "scheduler.batching": name}).resolved.scheduler.batching == rule
    assert scenario({"workload.synthetic": ONE, "scheduler.queue": "sjf"}).resolved.scheduler.queue == "shortest_first"
