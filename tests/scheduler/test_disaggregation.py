"""Prefill and decode on different replicas: by hand, and against the two pools apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator.experiments.run import RunResult
from simulator.hardware.gpu import StepModel
from tests.properties.small import LAYERS, draw, pool, served

TOKEN = 512 * LAYERS  # bytes of KV of a token
IDEAL = {"cluster.gpus.link": "ideal"}


def split(bandwidth: str = "inf", latency: str = "0 s", prefill: int = 1, decode: int = 1, **more: Any) -> dict[str, Any]:
    groups = [{"role": "prefill", "replicas": prefill}, {"role": "decode", "replicas": decode}]
    link = {"type": "ideal", "bandwidth": bandwidth, "latency": latency}
    return IDEAL | {"cluster.groups": groups, "cluster.transfer.link": link} | more


def model() -> StepModel:
    resolved = served(IDEAL, [(0.0, 1, 1)]).scenario.resolved
    return StepModel(resolved.model, resolved.gpus, 0.0, 0.0)


def transfer(run: RunResult) -> Any:
    return run.columns["transfer_s"]


def test_an_infinite_link_is_two_separate_pools() -> None:
    """Prompts: exactly the run of prefill replicas that give out one token each. Tokens: each at its own time, as by a decode
    replica whose requests arrive with their KV when their first token is out.

    Would catch: a prefill replica that decodes, a transfer that takes time or memory where it is free, KV computed again.
    """
    rows = draw(3, 50, rate=3000.0)
    run = served(split(prefill=2, decode=2), rows)
    prompts = served(IDEAL | {"cluster.replicas": 2}, [(arrival, prompt, 1) for arrival, prompt, _ in rows])
    np.testing.assert_array_equal(run.columns["ttft_s"], prompts.columns["ttft_s"])
    assert np.nanmax(transfer(run)) < 1e-12
    decode = [row for row in run.summary["replicas"] if row["group"] == "decode"]
    assert [row["prompt_tokens"] for row in decode] == [0, 0]
    assert sum(row["output_tokens"] for row in decode) == sum(output - 1 for _, _, output in rows)


def test_one_request_by_hand() -> None:
    """Its last layer leaves when it is computed, and takes its bytes over the rate, and the latency; then it decodes alone.

    By hand: a link of 10 MB/s is slower than the layers are computed, so all bytes follow each other from the end of the first
    layer on: transfer = host + layer + bytes / rate + latency - TTFT. 1e-9: rounding.
    """
    run = served(split("10 MB/s", "50 us"), [(0.0, 200, 10)])
    steps = model()
    first = steps.layer_time(200, 1, 0, 0.0) + _attention(steps, 200)
    expected = first + 200 * TOKEN / 10e6 + 50e-6 - run.columns["ttft_s"][0]
    assert transfer(run)[0] == pytest.approx(expected, rel=1e-9)
    decoding = sum(steps.base(1, 1) + steps.unit_time(1) * steps.reads(context, context) for context in range(201, 210))
    rest = run.columns["e2e_s"][0] - run.columns["ttft_s"][0] - transfer(run)[0]
    assert rest == pytest.approx(decoding, rel=1e-9)
    assert run.summary["handover"]["bytes"] == 200 * TOKEN


def _attention(steps: StepModel, prompt: int) -> float:
    return steps.prefill_attention([(prompt, 0)], contexts=()).time


def test_a_fast_link_hides_all_but_the_last_layer() -> None:
    """A link that carries a layer sooner than the next one is computed leaves one layer's bytes after the last was computed.

    Would catch: KV that waits for the whole prompt (4 times as long). The last step's head passes meanwhile, so: not more than.
    """
    run = served(split("2 GB/s"), [(0.0, 2000, 2)])
    assert 0.0 <= transfer(run)[0] <= 2000 * TOKEN / LAYERS / 2e9 * (1 + 1e-9)


def test_the_knee_is_where_bytes_meet_the_rate() -> None:
    """100 prompts of 100 tokens at 2,000 a second bring 410 MB/s. A link 10 % faster keeps up, one 10 % slower falls behind by
    a tenth of what it has carried: the last prompt waits 100 x bytes x (1 / rate - 1 / offered).

    Tolerance 10 % of that wait: the pipeline over the layers of a prompt, which is not part of the sum.
    """
    offered = 2000 * 100 * TOKEN
    rows = [(at / 2000, 100, 2) for at in range(100)]
    fast, slow = (served(split(f"{offered * factor} B/s"), rows) for factor in (1.1, 0.9))
    behind = 100 * 100 * TOKEN * (1 / (0.9 * offered) - 1 / offered)
    assert transfer(slow)[-1] == pytest.approx(behind, rel=0.1)
    assert transfer(fast)[-1] < 0.1 * behind
    assert slow.summary["utilization"]["transfer.link"] > 0.95


def test_short_prompts_stay() -> None:
    """Would catch: a threshold that is off by one, local prompts that cross as well."""
    run = served(split(**{"cluster.transfer.threshold": "100 tokens"}), [(0.0, 99, 5), (0.0, 100, 5)])
    prefill, decode = run.summary["replicas"]
    assert (prefill["prompt_tokens"], decode["prompt_tokens"]) == (100, 99)
    assert run.summary["handover"]["requests"] == 1


def test_end_to_end_is_never_less_than_the_first_token() -> None:
    """Also with one token, preemption at the decode replica, chunked prompts and a slow link; parts sum up (`check`).

    Would catch: requests that are lost between the replicas, times of one that are taken for the other's.
    """
    settings = {"kv.l1": "900 KiB", "scheduler.watermark": 0.0, "scheduler.prefill_chunk": "64 tokens"}
    run = served(split("50 MB/s", "20 us", 2, 1) | settings, draw(8, 60, rate=5000.0))
    columns = run.columns
    assert run.summary["requests"]["finished"] == 60
    assert run.summary["requests"]["preemptions"] > 0
    assert np.all(columns["e2e_s"] >= columns["ttft_s"])
    several = columns["output_tokens"] > 1
    assert np.all(transfer(run)[several] > 0) and np.all(transfer(run)[~several] == 0)


def test_it_shares_ports_with_a_shared_pool() -> None:
    """KV that crosses takes the port of a decode replica from its far reads, which take longer than without.

    Would catch: transfers beside the pool's fabric. Everything ends, with every invariant checked.
    """
    port = {"type": "pcie-gen4-x16", "bandwidth": "0.3 GB/s"}
    far = pool(l1=10, l3=400, link="10 GB/s") | {"kv.codec": "none", "prefetch": {"predictor": "next_layer"}}
    run = served(split("inf") | far | {"cluster.gpus.link": port}, [(0.0, 300, 30), (0.01, 300, 30)])
    assert run.summary["requests"]["finished"] == 2
    assert run.summary["replicas"][1]["far_read_bytes"] > 0
    assert transfer(run)[1] > 300 * TOKEN / 0.3e9 * 0.5


def test_far_bytes_of_a_request_are_those_of_both_its_replicas() -> None:
    """Prompts and contexts that L1 does not hold are read from far at either replica: what requests are charged with is what
    the replicas read. Would catch: columns of one replica alone, or twice."""
    far = pool(l1=10, l3=400, link="10 GB/s") | {"kv.codec": "none", "prefetch": {"predictor": "none"}}
    for rows in ([(0.0, 300, 30)], [(0.0, 300, 30), (0.0, 280, 20), (0.001, 40, 3)]):
        run = served(split("1 GB/s") | far | {"scheduler.prefill_chunk": "64 tokens"}, rows)
        read = [row["far_read_bytes"] for row in run.summary["replicas"]]
        assert min(read) > 0
        assert run.columns["far_demand_bytes"].sum() == pytest.approx(sum(read), rel=1e-9)
        assert not run.columns["far_wasted_bytes"].any()


def test_of_a_window_only_the_newest_tokens_cross() -> None:
    """A prompt of 200 tokens, in pieces of 40, of a model whose layers all read the last 33: blocks of 16 that the next token's
    window touches hold 48 tokens, so two pieces cross at all, the first of them with 8 tokens.

    Would catch: the first tokens sent and the last ones not, a piece of which nothing crosses.
    """
    run = served(split("10 MB/s", **{"model.window": "33 tokens", "scheduler.prefill_chunk": "40 tokens"}), [(0.0, 200, 10)])
    assert run.summary["requests"]["finished"] == 1
    assert run.summary["handover"]["bytes"] == 48 * TOKEN
    slow = served(split("0.1 MB/s", **{"model.window": "33 tokens", "scheduler.prefill_chunk": "40 tokens"}), [(0.0, 200, 10)])
    assert transfer(slow)[0] == pytest.approx(48 * TOKEN / 0.1e6, rel=0.01)  # steps take next to nothing
