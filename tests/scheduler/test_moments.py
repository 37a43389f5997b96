"""What comes first at one moment: the rule by hand; and runs of steps give the bytes of single steps where replicas meet."""

from __future__ import annotations

from math import nextafter
from typing import Any

import pytest
import simpy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simulator.scheduler.moments import FIRST, At, turn
from tests.properties.small import Rows, draw, lasting, pool, same_requests, served


def test_the_order_of_a_moment() -> None:
    """Would catch: an order by when somebody began to wait, a transfer that is seen only after the step of the same moment."""
    env = simpy.Environment()
    seen: list[str] = []

    def wait(name: str, event: simpy.Event) -> None:
        event.callbacks.append(lambda _: seen.append(name))

    wait("second", At(env, 3.0, turn(1)))
    wait("first", At(env, 3.0, turn(0)))
    wait("crossed", env.timeout(3.0))
    wait("never", At(env, float("inf"), FIRST))
    wait("arrived", At(env, 3.0, FIRST))
    env.run()
    assert seen == ["arrived", "crossed", "first", "second"]


@settings(max_examples=300)
@given(
    now=st.floats(0, 10), share=st.floats(0, 1), ticks=st.integers(0, 3),
)  # fmt: skip
@example(now=0.0012529964083791323, share=1.0, ticks=0)
def test_a_moment_is_the_same_float_for_all(now: float, share: float, ticks: int) -> None:
    """now + (at - now) is not always `at`. Would catch: ends of steps that differ by the last bit with how long was waited."""
    at = now / max(share, 0.05) + 0.007287142613887504
    for _ in range(ticks):
        at = nextafter(at, 0.0)
    env = simpy.Environment(initial_time=now)
    found: list[float] = []
    At(env, at).callbacks.append(lambda _: found.append(env.now))
    env.run()
    assert found == [max(now, at)]


SCHEDULER = {"token_budget": "128 tokens", "prefill_chunk": "128 tokens"}


@st.composite
def meeting(draw_from: st.DrawFn) -> tuple[dict[str, Any], Rows]:
    """Replicas with one small pool, alike requests that arrive together: steps of several end at the same moment, and all wait
    for room that others free."""

    def one_of(*values: Any) -> Any:
        return draw_from(st.sampled_from(values))

    def number(low: int, high: int) -> int:
        return draw_from(st.integers(low, high))

    found: dict[str, Any] = {}
    if one_of(True, False):
        found["cluster.replicas"] = number(2, 4)
    else:
        groups = [{"role": "prefill", "replicas": number(1, 2)}, {"role": "decode", "replicas": number(1, 3)}]
        link = {"type": "infiniband-ndr", "bandwidth": one_of("1 GB/s", "inf"), "latency": "0 s"}
        found |= {"cluster.groups": groups, "cluster.transfer": {"link": link, "threshold": one_of("1 token", "60 tokens")}}
    found["cluster.routing"] = one_of("round_robin", "least_outstanding", "least_kv", "power_of_two", "prefix_aware")
    found |= pool(l1=number(8, 16), l3=number(10, 60), l2=number(2, 8), link=one_of("2 GB/s", "50 GB/s"))
    found["cluster.kv_pool.shared"] = one_of(True, True, False)
    found |= {"kv.codec": "none", "prefetch": {"predictor": one_of("none", "next_layer")}}
    found["kv.placement"] = {"eviction": one_of("split", "lru")}
    found["scheduler"] = SCHEDULER | {
        "max_batch": number(2, 8), "watermark": one_of(0.0, 0.05), "reserve": one_of("prompt", "full"),
        "batching": one_of("continuous", "continuous", "static", "prefill_first"),
    }  # fmt: skip
    count, together, gap = number(4, 20), number(1, 8), one_of(0.0, 1e-3)
    prompt, output = number(1, 110), number(2, 35)
    lengths = draw_from(st.lists(st.sampled_from([(0, 0), (0, 0), (3, 0), (0, 5)]), min_size=count, max_size=count))
    rows = [(at // together * gap, prompt + more, output + longer) for at, (more, longer) in enumerate(lengths)]
    return found, rows


def both(settings: dict[str, Any], rows: Rows) -> None:
    runs, single = served(settings, rows), served(settings, rows, check=False, coalesce=False)
    same_requests(runs, single)
    assert lasting(runs.summary) == lasting(single.summary)
    done = runs.columns["status"] == "finished"
    assert (runs.columns["e2e_s"] >= runs.columns["ttft_s"])[done].all()


@settings(max_examples=30)
@given(world=meeting())
def test_runs_are_their_single_steps_where_replicas_meet(world: tuple[dict[str, Any], Rows]) -> None:
    """Would catch: room that is seen or not according to who began to wait first, a run that is cut a step too late or too
    early by what another replica frees."""
    both(*world)


@pytest.mark.parametrize("seed", range(4))
def test_prompts_that_leave_free_room_for_others(seed: int) -> None:
    """A shared pool of 41 blocks behind a split: a prompt that has gone from a prefill replica leaves room that decode
    replicas wait for, also in the middle of a run of theirs. Would catch: only ends of requests are told to others."""
    groups = [{"role": "prefill", "replicas": 2}, {"role": "decode", "replicas": 3, "scheduler": {"max_batch": 8}}]
    world = pool(l1=12, l3=41, l2=6) | {
        "cluster.groups": groups, "cluster.transfer.link": {"type": "infiniband-ndr", "bandwidth": "inf"},
        "cluster.routing": "least_kv", "kv.codec": "none", "kv.placement": {"eviction": "lru"},
        "prefetch": {"predictor": "statistical", "coverage": 0.8, "accuracy": 0.7, "depth": 2, "latency": "3 us"},
        "scheduler": SCHEDULER | {"max_batch": 2, "watermark": 0.05, "batching": "decode_first"},
    }  # fmt: skip
    both(world, draw(seed, 40, rate=3000.0))


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("coalesce", [True, False])
def test_a_replica_sees_what_those_before_it_free(place: int, coalesce: bool) -> None:
    """Two replicas in step share 20 blocks, and a prompt of 12 waits at one of them until a request of the other ends. At the
    second replica it enters with the step that begins then; at the first, whose step has begun, one step later.

    Would catch: room seen by who wakes last, runs that are cut a step too early or too late.
    """
    world = pool(l1=16, l3=20, l2=4) | {
        "cluster.replicas": 2, "kv.codec": "none", "kv.placement": {"eviction": "lru"}, "prefetch": {"predictor": "none"},
        "scheduler": {"token_budget": "512 tokens", "watermark": 0.0, "max_batch": 4},
    }  # fmt: skip
    # L1 alone holds 16: too few for the 6 or 7 blocks of the long one and the 12 of the waiting one
    long, short, refused, waiting = (0.0, 80, 24), (0.0, 80, 16), (0.0, 4090, 10), (1e-6, 12 * 16, 2)
    rows = [long, short, waiting] if place == 0 else [short, long, refused, waiting]
    run = served(world, rows, coalesce=coalesce)
    freed, entered = run.columns["finished_s"][1 - place], run.columns["admitted_s"][-1]
    if place == 1:
        assert entered == freed
    else:
        step = freed - run.columns["first_token_s"][1]
        assert freed < entered < freed + 2 * step / 15
