"""What batching, queue, preemption and admission need of the other sections, or do not go with."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from simulator.errors import Problem
from simulator.scenario.far_events import needs_identity
from simulator.scenario.resolved import ScenarioResolved
from simulator.scenario.schema import ScenarioFile
from simulator.scenario.source import Source, Where


def serving_checks(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> Iterator[Problem]:
    """Batching and preemption beside what they do not go with."""
    steps, pool, kv, at = scenario.scheduler, scenario.pool, scenario.kv, ("scheduler", "preemption")
    if steps.preemption == "swap_pool" and pool is None:
        yield source.problem(at, "there is no cluster.kv_pool to swap to", "add one, or write preemption: swap_host")
    if steps.preemption == "swap_host" and pool is not None:
        refused = (
            (any(needs_identity(scenario)), "pages by identity (drawn ones, evictions but split and lru)"),
            (scenario.devices == "detailed", "detailed devices"),
        )
        for there, what in refused:
            if there:
                yield source.problem(at, f"swaps to the host beside {what} are not modelled", "write preemption: recompute")
    if steps.preemption == "swap_pool":
        unused: tuple[tuple[Where, bool], ...] = (
            (("prefetch", "predictor"), scenario.prefetch.predictor != "none"),
            (("faults",), bool(scenario.faults)),
            (("devices",), scenario.devices == "detailed"),
            (("kv", "selection", "kind"), kv.selection.kind == "pages"),
            (("kv", "sharing", "demote_after"), kv.reuse.demote_after < inf),
        )
        message = "with preemption: swap_pool nothing is read from the pool in place; remove it"
        yield from (source.problem(path, message) for path, is_used in unused if is_used)
    if steps.batching == "prefill_first" and pool is not None and any(needs_identity(scenario)):
        message = "prefill_first beside pages by identity (drawn ones, evictions but split and lru) is not modelled"
        yield source.problem(("scheduler", "batching"), message)
    classes = scenario.slo.classes
    if steps.queue == "earliest_deadline" and all(one.ttft is None for one in classes):
        message = "earliest_deadline goes by ttft, and there is none"
        yield source.problem(("scheduler", "queue"), message, "write slo: {ttft: 2 s}")
    if steps.queue == "priority" and len({one.priority for one in classes}) == 1:
        message = "priority goes by the priority of slo.classes, which are all the same"
        yield source.problem(("scheduler", "queue"), message, "write queue: fcfs, or classes of different priority")
    if steps.queue.startswith("fair") and not scenario.tenants:
        message = f"{steps.queue} is between tenants, and there are none"
        yield source.problem(("scheduler", "queue"), message, "write tenants: [{name: a}, {name: b}]")
    if steps.queue == "fair_far" and (pool is None or steps.preemption == "swap_pool"):
        message = "fair_far goes by the bytes read from far memory, and nothing is read from there"
        yield source.problem(("scheduler", "queue"), message, "write queue: fair")
    if steps.admission == "deadline" and all(one.ttft is None for one in classes):
        yield source.problem(("scheduler", "admission"), "deadline goes by ttft, and there is none", "write slo: {ttft: 2 s}")
    yield from _budgets(scenario, source)


def _budgets(scenario: ScenarioResolved, source: Source) -> Iterator[Problem]:
    """Tenants with a bandwidth: something has to cross a fabric, and be held back if need be."""
    pool, cluster = scenario.pool, scenario.cluster
    rules = [scenario.scheduler, *(group.scheduler for group in cluster.groups)]
    swaps = any(one.preemption != "recompute" for one in rules)
    transfers = source.has(("cluster", "transfer"))
    for number, tenant in enumerate(scenario.tenants):
        at: Where = ("tenants", str(number), "bandwidth")
        if tenant.bandwidth == inf:
            continue
        if pool is None and not transfers and not swaps:
            message = "nothing crosses a fabric here: there is no pool, no transfer of KV and no swap"
            yield source.problem(at, message, "remove it, or add cluster.kv_pool")
        reads = pool is not None and all(one.preemption != "swap_pool" for one in rules)
        if reads and scenario.kv.sharing != "prefix" and any(needs_identity(scenario)):
            message = "a bandwidth beside pages by identity (drawn ones, evictions but split and lru) is not modelled"
            yield source.problem(at, message, "write kv.placement.eviction: split")
