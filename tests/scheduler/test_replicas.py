"""Several replicas in one simulation: what they must have in common with one, and queueing theory behind a router."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from math import factorial, sqrt
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from simulator.experiments.run import RunResult
from simulator.scheduler import routing
from tests.properties.small import ROOT, ToTheFirst, blocks, draw, lasting, pool, same_requests, served

RULES = ("round_robin", "random", "least_outstanding", "least_kv", "power_of_two", "prefix_aware")


def several(count: int, rule: str = "round_robin", **more: Any) -> dict[str, Any]:
    return {"cluster.replicas": count, "cluster.routing": rule} | more


def columns_equal(one: RunResult, other: RunResult, rows: Any = slice(None), tolerance: float = 0.0) -> None:
    """What happened to these requests of `one` is what happened to all of `other`."""
    for name in ("admitted_s", "first_token_s", "finished_s", "preemptions", "queue_s", "hbm_s", "compute_s"):
        np.testing.assert_allclose(one.columns[name][rows], other.columns[name], rtol=tolerance, atol=tolerance, err_msg=name)


def test_one_that_gets_everything_is_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch: a router that delays, a replica that is fed and does another step than one that knows its requests.

    To the last bit: nothing is computed otherwise.
    """
    monkeypatch.setitem(routing.RULES, "round_robin", ToTheFirst)
    rows = [*draw(3, 60), *[(0.02, 40, 5)] * 3]
    rows.sort()
    alone, one_of_three = served({}, rows), served(several(3), rows)
    columns_equal(one_of_three, alone)
    assert json.loads(lasting(one_of_three.summary))["latency"] == json.loads(lasting(alone.summary))["latency"]


@pytest.mark.parametrize("rule", RULES)
def test_single_steps_give_the_same_bytes(rule: str) -> None:
    """Would catch: a run of steps that an arrival does not cut where it should, a router that sees a run's end before it."""
    rows = draw(5, 80, rate=4000.0)
    runs = [served(several(3, rule), rows, coalesce=coalesce) for coalesce in (True, False)]
    assert lasting(runs[0].summary) == lasting(runs[1].summary)
    for name, column in runs[0].columns.items():
        np.testing.assert_array_equal(column, runs[1].columns[name], err_msg=name)


def test_a_stream_is_the_sum_of_its_halves() -> None:
    """Turns deal one stream out as two half-rate streams: each replica does what it would do alone with its half.

    Would catch: replicas that touch each other's state, requests recorded at the wrong replica. To the last bit.
    """
    rows = draw(7, 80)
    both = served(several(2), rows)
    for turn in range(2):
        columns_equal(both, served({}, rows[turn::2]), slice(turn, None, 2))


def test_private_pools_are_apart_and_a_shared_one_is_not() -> None:
    """With a pool each, a replica does what it does alone; with one for both, somebody waits longer and nobody less.

    Would catch: `shared` that has no effect, or shares what is private. Twice as much L3 for one, so compare waits only.
    """
    settings = pool(l1=10, l3=200, link="0.2 GB/s") | {"prefetch.predictor": "next_layer", "kv.codec": "none"}
    rows = draw(11, 24, rate=3000.0)
    own = served(settings | several(2) | {"cluster.kv_pool.shared": False}, rows)
    for turn in range(2):
        columns_equal(own, served(settings, rows[turn::2]), slice(turn, None, 2))
    together = served(settings | several(2), rows)
    assert together.summary["stall"]["link_s"] > 1.2 * own.summary["stall"]["link_s"] > 0.0
    assert together.columns["e2e_s"].mean() > own.columns["e2e_s"].mean()


def test_what_a_group_has_of_its_own() -> None:
    """Would catch: groups that all run on the common GPU, a cost that counts one replica."""
    groups = [{"name": "old", "replicas": 1}, {"name": "new", "replicas": 2, "gpus": {"type": "h100-80gb-sxm"}}]
    rows = [(0.0, 100, 40)] * 30
    run = served({"cluster.groups": groups, "cluster.routing": "least_outstanding"}, rows)
    old, *new = run.summary["replicas"]
    assert [row["gpu"] for row in (old, *new)] == ["a100-80gb-sxm", "h100-80gb-sxm", "h100-80gb-sxm"]
    assert sum(row["requests"] for row in (old, *new)) == 30
    one = served({}, rows).summary["cost"]["host_usd_per_hour"]
    assert run.summary["cost"]["host_usd_per_hour"] == pytest.approx(3 * one, rel=1e-12)
    assert new[0]["step_share"] < old["step_share"]  # the same ten requests are done sooner


def test_order_of_hashes_does_not_matter() -> None:
    """Would catch: a set of replicas, stages or requests whose order decides."""
    code = (
        "from tests.properties.small import *\n"
        "settings = pool(l1=10, l3=200, link='0.2 GB/s') | {'kv.codec': 'none', 'cluster.replicas': 3}\n"
        "settings['cluster.routing'] = 'power_of_two'\n"
        "print(lasting(served(settings, draw(1, 20, rate=3000.0)).summary))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True,
            check=True,
        ).stdout
        for seed in ("0", "12")
    ]  # fmt: skip
    assert outputs[0] == outputs[1] != ""


# Service that does not depend on anything: one sequence at a time, and steps of 1 ms of host time beside which all else is
# less than 2 %. The requests of one place are then a queue with the service times that the run itself shows.
SINGLE = {"scheduler": {"max_batch": 1, "token_budget": "4096 tokens", "host_overhead": "1 ms"}}


def queue_of(rule: str, count: int, load: float, replicas: int, seed: int, places: int = 1) -> RunResult:
    """Poisson arrivals at `load` of what the replicas with so many places each can do, geometric services of 20 steps on
    average."""
    arrivals = {"process": "poisson", "rate": f"{load * replicas * places / 0.0205} /s"}
    work = {"requests": count, "arrivals": arrivals, "input": {"dist": "fixed", "tokens": "16 tokens"}}
    work["output"] = {"dist": "geometric", "mean": "20 tokens"}
    routed = several(replicas, rule) if replicas > 1 else {}
    settings = SINGLE | routed | {"workload.synthetic": work, "seed": seed, "scheduler.max_batch": places}
    return served(settings)


@pytest.mark.parametrize("rule", ["round_robin", "least_outstanding"])
def test_brute_force(rule: str) -> None:
    """Who is served when, recomputed request by request from arrivals and services alone: first come, first served at each
    replica, which is the next in turn, or the one with the fewest not yet done. Exact but for rounding (1e-9 s)."""
    run = queue_of(rule, 1500, 0.8, 3, seed=2)
    arrival, begun, done = (run.columns[name] for name in ("arrival_s", "admitted_s", "finished_s"))
    service = done - begun
    ends: list[list[float]] = [[], [], []]
    for request, at in enumerate(arrival):
        if rule == "round_robin":
            place = request % 3
        else:
            counts = [sum(end > at for end in each[-60:]) for each in ends]
            place = counts.index(min(counts))
        start = max(at, ends[place][-1] if ends[place] else 0.0)
        assert begun[request] == pytest.approx(start, abs=1e-9), request
        ends[place].append(start + service[request])


def shorter_queue(load: float, most: int = 60) -> float:
    """Mean number in two queues, each arrival to the shorter: the stationary chain of (i, j), truncated at `most`."""
    total = 2 * load + 2.0
    pi = np.ones((most, most)) / most**2
    for _ in range(6000):  # power iteration of the uniformised chain
        new = np.zeros_like(pi)
        i, j = np.indices(pi.shape)
        first = np.where(i < j, 1.0, np.where(i == j, 0.5, 0.0))
        up = 2 * load / total * pi
        new[1:, :] += (up * first)[:-1, :]
        new[:, 1:] += (up * (1 - first))[:, :-1]
        new[-1, :] += (up * first)[-1, :]
        new[:, -1] += (up * (1 - first))[:, -1]
        new[:-1, :] += pi[1:, :] / total
        new[0, :] += pi[0, :] / total
        new[:, :-1] += pi[:, 1:] / total
        new[:, 0] += pi[:, 0] / total
        pi = new
    return float((pi * np.add(*np.indices(pi.shape))).sum())


def interval(values: list[float]) -> tuple[float, float]:
    """The 99 % t-interval of a mean."""
    half = student.ppf(0.995, len(values) - 1) * np.std(values, ddof=1) / sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


@pytest.mark.parametrize("rule", ["random", "least_outstanding"])
def test_theory(rule: str) -> None:
    """Mean sojourn, in services: 1 / (1 - load) of M/M/1 behind a random router; behind one that joins the shorter of two
    queues, that of its Markov chain. Geometric services of 20 steps have 5 % less variance than exponential ones, which takes
    2.5 % of the mean wait (Pollaczek-Khinchine). Theory in the 99 % interval of 12 runs, the first fifth of each cut.

    Would catch: a router that sees stale counts, two requests served at once, a wait that ends a step late.
    """
    found = []
    for seed in range(12):
        run = queue_of(rule, 1200, 0.7, 2, seed)
        steps = float((run.columns["finished_s"] - run.columns["admitted_s"]).sum() / run.columns["output_tokens"].sum())
        service = 20 * steps  # expected, not this run's own mean
        found.append(float(run.columns["e2e_s"][240:].mean()) / service)
    load = 0.7 / 0.0205 * service
    wait = load / (1 - load) if rule == "random" else shorter_queue(load) / (2 * load) - 1
    low, high = interval(found)
    assert low < 1 + 0.975 * wait < high


@pytest.mark.parametrize("rule", ["least_outstanding", "least_kv", "prefix_aware"])
def test_a_router_sees_a_rejection_whatever_the_steps(rule: str) -> None:
    """A third of the requests is too large and rejected by the next step, while others wait behind the head of a queue: runs of
    steps route as single steps do. Would catch: a rejected request that counts as outstanding until a long run has ended."""
    for seed in (0, 1, 2):
        settings = several(3, rule) | {"kv.l1": blocks(6), "scheduler.watermark": 0.0, "scheduler.asynchronous": seed > 0}
        rows = draw(1000 + seed, 30, rate=3000.0)
        one, other = served(settings, rows), served(settings, rows, coalesce=False)
        assert one.summary["requests"]["rejected"] > 5
        same_requests(one, other)


def erlang(servers: int, load: float) -> tuple[float, float]:
    """Probabilities that an arrival at M/M/k finds all servers busy (Erlang C), and none, at `load` of each."""
    offered = servers * load
    last = offered**servers / factorial(servers) / (1 - load)
    total = sum(offered**busy / factorial(busy) for busy in range(servers)) + last
    return last / total, 1 / total


@pytest.mark.parametrize(("places", "load"), [(2, 0.6), (4, 0.6)])
def test_places_of_a_batch_are_servers_before_one_queue(places: int, load: float) -> None:
    """A batch of k sequences whose steps take 1 ms however many they are is M/M/k: mean wait, in services, C / (k (1 - load)).
    As above a service is 20 steps, not exponential: half a step of 20 less. Steps are in common: who finds a place free, but
    others at work, waits half a step for the next one. Theory in the 99 % interval of 12 runs, the first fifth of each cut.

    Would catch: a place that stays empty for a step, requests that queue for a place of their own.
    """
    waits, loads = [], []
    for seed in range(12):
        run = queue_of("round_robin", 4000, load, 1, seed, places)
        arrival, begun, done = (run.columns[name] for name in ("arrival_s", "admitted_s", "finished_s"))
        service = 20 * float((done - begun).sum() / run.columns["output_tokens"].sum())
        waits.append(float((begun - arrival)[800:].mean() / service))
        loads.append(load / 0.0205 * service)
    busy = float(np.mean(loads))
    all_busy, idle = erlang(places, busy)
    expected = 0.975 * all_busy / (places * (1 - busy)) + 0.025 * (1 - all_busy - idle)
    low, high = interval(waits)
    assert low < expected < high
