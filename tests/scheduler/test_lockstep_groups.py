"""Several groups of replicas in lock step behind a router, and on both sides of a prefill/decode split.

The measure is one group alone: what a router gives it, it must serve as if it had known all along.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator.scheduler import routing
from simulator.scheduler.routing import RULES
from tests.properties.small import LAYERS, Rows, ToTheFirst, blocks, draw, same_requests, served
from tests.scheduler.test_lockstep import MOE

TOKEN = 512 * LAYERS  # bytes of KV
TWO = {"cluster.replicas": 2}
SPLIT = [{"role": "prefill"}, {"role": "decode", "replicas": 2}]


def split(bandwidth: str = "inf", port: str = "inf") -> dict[str, Any]:
    gpus = MOE["cluster.gpus"] | {"link": {"type": "ideal", "bandwidth": port}}
    link = {"type": "ideal", "bandwidth": bandwidth}
    return MOE | {"cluster.gpus": gpus, "cluster.groups": SPLIT, "cluster.transfer.link": link}


@pytest.mark.parametrize("settings", [{}, {"scheduler.asynchronous": True}, {"kv.l1": blocks(16)}], ids=str)
def test_a_group_that_is_fed_is_a_group_alone(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit. Would catch: an arrival that is seen a step too early or too late, a balancer that looks ahead, a group
    that stops while more is to come."""
    monkeypatch.setitem(routing.RULES, "round_robin", ToTheFirst)
    rows = [*draw(5, 40, 3000.0), (5.0, 30, 4), (5.0, 30, 4), (9.0, 30, 4)]  # with times in which nothing is there to do
    same_requests(served(MOE | settings, rows), served(MOE | TWO | settings, rows))


def test_equal_groups_do_the_same() -> None:
    """Each request twice, in turn: both groups do what one alone does. Would catch: state that groups share."""
    rows = draw(6, 40, 3000.0)
    both, alone = served(MOE | TWO, [row for row in rows for _ in range(2)]), served(MOE, rows)
    for half in (0, 1):
        np.testing.assert_array_equal(both.columns["finished_s"][half::2], alone.columns["finished_s"])


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_sees_a_group(rule: str) -> None:
    """Groups of two replicas beside a single one, few blocks, every rule: all invariants hold, nobody is lost."""
    one = {"name": "one", "gpus": {"type": "a100-80gb-sxm", "count": 1}, "kv": {"l1": blocks(200)}}
    settings = {"cluster.groups": [{"name": "two", "replicas": 2}, one], "cluster.routing": rule, "kv.l1": blocks(16)}
    run = served(MOE | settings, draw(5, 60, 3000.0))
    assert run.summary["requests"]["finished"] == 60
    assert [row["gpus"] for row in run.summary["replicas"]] == [2, 2, 1]
    assert all(row["requests"] for row in run.summary["replicas"])


def test_a_split_of_groups_is_two_separate_pools() -> None:
    """An infinite link: prompts are exactly those of a group that gives out one token each; tokens are all given out.

    Would catch: a prompt of one replica of a group that is taken for another's, KV that a decode group computes again.
    """
    rows: Rows = draw(3, 50, rate=3000.0)
    run, prompts = served(split(), rows), served(MOE, [(arrival, prompt, 1) for arrival, prompt, _ in rows])
    np.testing.assert_array_equal(run.columns["ttft_s"], prompts.columns["ttft_s"])
    assert np.nanmax(run.columns["transfer_s"]) < 1e-12
    assert [row["prompt_tokens"] for row in run.summary["replicas"][1:]] == [0, 0]
    assert sum(row["output_tokens"] for row in run.summary["replicas"][1:]) == sum(output - 1 for _, _, output in rows)


def test_a_prompt_has_the_ports_of_one_replica() -> None:
    """Ports of 10 MB/s, slower than layers are computed. A prompt of 200 tokens alone needs bytes / rate from the end of its
    first layer on; a second one at the same time, on the other replica, as long. 1 %: the first layer.

    Would catch: a prompt that crosses over the ports of all replicas of its group, prompts of two that share one port.
    """
    settings = split(port="10 MB/s")
    one, two = served(settings, [(0.0, 200, 4)]), served(settings, [(0.0, 200, 4)] * 2)
    assert one.columns["transfer_s"][0] == pytest.approx(200 * TOKEN / 10e6, rel=0.01)
    np.testing.assert_allclose(two.columns["transfer_s"], 200 * TOKEN / 10e6, rtol=0.01)
    shared = served(split(bandwidth="10 MB/s"), [(0.0, 200, 4)] * 2)
    np.testing.assert_allclose(shared.columns["transfer_s"], 2 * 200 * TOKEN / 10e6, rtol=0.01)
