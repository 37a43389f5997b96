"""Generated combinations of what serves: replicas, groups in lock step, prefill apart from decode, private and shared pools,
swaps, batching, queues, faults. In each all invariants hold, every request ends, and runs of steps are their single steps.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties.small import blocks, draw, pool, same_requests, served
from tests.scheduler.test_lockstep import MOE

ROUTING = st.sampled_from(["round_robin", "least_kv", "least_outstanding", "random"])
FAULTS = st.builds(
    lambda what, mean: what | {"for": "3 ms", "mean_time_between": mean},
    st.sampled_from([
        {"what": "link_down"}, {"what": "board_lost"}, {"what": "board_lost", "on_loss": "abort"},
        {"what": "link_degraded", "factor": 0.3, "link": "gpu"}, {"what": "latency_spike", "latency": "80 us"},
    ]),
    st.sampled_from(["5 ms", "20 ms"]),
)  # fmt: skip
PREFETCH = st.sampled_from([
    {"predictor": "none"}, {"predictor": "next_layer"}, {"predictor": "oracle"},
    {"predictor": "statistical", "coverage": 0.7, "accuracy": 0.6, "depth": 2},
])  # fmt: skip


@st.composite
def servers(pick: st.DrawFn) -> dict[str, Any]:
    """Settings of one to three replicas."""
    far, swap = (
        pick(st.sampled_from(["none", "pool", "pool", "lockstep"])),
        pick(st.sampled_from(["host", "host", "pool", "no"])),
    )
    link, found = pick(st.sampled_from(["0.05 GB/s", "2 GB/s"])), dict[str, Any]()
    if far != "pool":
        swap = "host" if swap == "pool" else swap
        found = (MOE if far == "lockstep" else {}) | {"kv.l1": blocks(pick(st.sampled_from([6, 12, 30])))}
    elif swap == "pool":
        found = pool(l1=pick(st.sampled_from([4, 10])), l3=pick(st.sampled_from([2, 12, 40])), l2=0, link=link)
    else:
        l1, l3, l2 = (pick(st.sampled_from(sizes)) for sizes in ([2, 4, 10], [4, 12, 40], [1, 4, 16]))
        found = pool(l1, l3, l2, link) | {"kv.placement": {"eviction": pick(st.sampled_from(["split", "lru"]))}}
        found |= {"prefetch": pick(PREFETCH), "faults": pick(st.lists(FAULTS, max_size=2))}
    found |= {
        "scheduler.preemption": {"host": "swap_host", "pool": "swap_pool", "no": "recompute"}[swap],
        "scheduler.batching": pick(st.sampled_from(["continuous", "prefill_first", "decode_first", "static"])),
        "scheduler.queue": pick(st.sampled_from(["fcfs", "shortest_first"])), "scheduler.asynchronous": pick(st.booleans()),
        "scheduler.watermark": pick(st.sampled_from([0.0, 0.1])),
        "scheduler.reserve": pick(st.sampled_from(["prompt", "full"])),
    }  # fmt: skip
    replicas = pick(st.sampled_from(["one", "several", "split"]))
    if replicas != "one":
        found["cluster.routing"] = pick(ROUTING)
        if far == "pool":
            found["cluster.kv_pool.shared"] = pick(st.booleans())
    if replicas == "several":
        found["cluster.replicas"] = pick(st.integers(2, 3))
    elif replicas == "split":
        found["cluster.groups"] = [{"role": "prefill"}, {"role": "decode", "replicas": pick(st.integers(1, 2))}]
        found["cluster.transfer"] = {"link": {"type": "ideal", "bandwidth": pick(st.sampled_from(["inf", "50 MB/s"]))}}
    return found


@settings(max_examples=25, deadline=None)
@given(servers(), st.integers(0, 1000), st.sampled_from([4, 14]), st.sampled_from([300.0, 3000.0]))
def test_whatever_serves(world: dict[str, Any], seed: int, count: int, rate: float) -> None:
    """Would catch: what two of these do to each other that neither does alone."""
    rows = draw(seed, count, rate)
    one, other = served(world, rows), served(world, rows, coalesce=False)
    same_requests(one, other)
    counts = one.summary["requests"]
    assert counts["finished"] + counts["rejected"] + counts["aborted"] == count
