"""Faults of links and boards: who is lost, who waits, what the summary says. Every run is checked (`--check`)."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.errors import InputError
from simulator.experiments.run import RunResult
from tests.properties.small import Rows, draw, lasting, pool, same_requests, scenario, served

PATH = pool(l1=30, l3=120, l2=8, link="2 GB/s")
LOAD: Rows = draw(3, 40, rate=400.0, prompt=120, output=120)  # about 0.15 s; most of it with far pages
LONG: Rows = [(0.0, 100, 400)] * 6  # 192 blocks at the end, 30 of them in L1; no arrivals in the middle
WIDE = PATH | {"cluster.kv_pool.count": 4, "cluster.kv_pool.board": {"type": "agilex-7-speckv", "memory": "1 MB"}}


def run(*faults: dict[str, Any], rows: Rows = LOAD, base: dict[str, Any] = PATH, coalesce: bool = True) -> RunResult:
    return served(base | ({"faults": list(faults)} if faults else {}), rows, coalesce=coalesce)


def ended(result: RunResult) -> int:
    counts = result.summary["requests"]
    return int(counts["finished"] + counts["rejected"] + counts["aborted"])


def middle(result: RunResult) -> float:
    return float(result.summary["simulation"]["simulated_s"]) / 2


def at(seconds: float) -> str:
    return f"{seconds!r} s"


HEALTHY = run()
MIDDLE = at(middle(HEALTHY))


def test_the_load_reads_far_pages():
    """Would catch: tests below that pass because nothing is far."""
    assert HEALTHY.summary["prefetch"]["asked"] > 1000
    assert HEALTHY.summary["requests"]["finished"] == len(LOAD)


@pytest.mark.parametrize("eviction", ["split", "lru"])
@pytest.mark.parametrize("on_loss", ["recompute", "abort"])
@pytest.mark.parametrize("what", ["link_down", "board_lost"])
def test_dead_for_good(what: str, on_loss: str, eviction: str):
    """A link or the only board is gone in mid-run: every request is accounted for, L3 is used no more, and a row of `faults`
    says so. Would catch: requests that vanish, sequences that keep far pages, an engine that waits for ever."""
    base = PATH | {"kv.placement.eviction": eviction}
    result = run({"what": what, "at": MIDDLE, "on_loss": on_loss}, base=base)
    (row,) = result.summary["faults"]
    assert list(row) == ["at_s", "what", "tokens_per_s_before", "during", "after", "aborted", "recomputed"]
    assert (row["what"], row["after"]) == (what, None)
    assert row["tokens_per_s_before"] > 0 and row["during"] > 0
    assert ended(result) == len(LOAD)
    assert row["aborted"] == result.summary["requests"]["aborted"]
    assert row["recomputed" if on_loss == "recompute" else "aborted"] > 0
    late = result.series["time_s"] > row["at_s"] * 1.1
    assert result.series["l3_bytes"][late].max() == 0.0


def test_link_that_comes_back():
    """Far reads wait for the link, and nothing else is lost: the run is longer by about the outage, no request starts over,
    and the waiting is `link` time. Would catch: an outage that recomputes, or that costs nothing."""
    outage = 0.1
    result = run({"what": "link_down", "at": MIDDLE, "for": at(outage)})
    (row,) = result.summary["faults"]
    assert (row["aborted"], row["recomputed"]) == (0, 0)
    assert row["tokens_per_s_before"] > 5 * row["during"]
    assert row["after"] > 5 * row["during"]
    assert result.summary["requests"]["finished"] == len(LOAD)
    longer = 2 * (middle(result) - middle(HEALTHY))
    assert 0.5 * outage < longer < 1.1 * outage
    waited = result.summary["stall"]["link_s"] - HEALTHY.summary["stall"]["link_s"]
    assert waited == pytest.approx(8 / 40 * outage, rel=0.1)  # of 40 requests, the eight that run


def test_windows_cover_the_run():
    """Rates times their windows are the tokens given out, to rounding. Would catch: a step counted twice or in no window, a
    window that is shorter than the fault."""
    result = run({"what": "link_down", "at": MIDDLE, "for": "0.1 s"})
    (row,), end, start = result.summary["faults"], 2 * middle(result), middle(HEALTHY)
    tokens = row["tokens_per_s_before"] * start + row["during"] * 0.1 + row["after"] * (end - start - 0.1)
    assert tokens == pytest.approx(sum(output for _, _, output in LOAD), rel=1e-9)


def test_half_a_link_halves_far_throughput():
    """Steps that only read far pages over the link take twice as long at half its rate, to 2 %: computation is the rest.
    Would catch: a factor that is not applied, or twice, or to one direction."""
    base = PATH | {"cluster.kv_pool.link.bandwidth": "100 MB/s"}
    half = run({"what": "link_degraded", "factor": 0.5, "at": "0 s"}, rows=LONG, base=base).summary["simulation"]
    whole = run(rows=LONG, base=base).summary["simulation"]
    assert half["simulated_s"] == pytest.approx(2 * whole["simulated_s"], rel=0.02)


def test_degraded_is_a_slower_link():
    """A link at a factor from the start is, to the last bit, the link of that rate (its energy and use aside). Would catch:
    something of the path that keeps the old rate."""
    slow = run(base=PATH | {"cluster.kv_pool.link.bandwidth": "1 GB/s"})
    same_requests(run({"what": "link_degraded", "factor": 0.5, "at": "0 s"}), slow)


def test_spike_is_a_longer_round_trip():
    """The same of latency: half of it each way."""
    slow = run(base=PATH | {"cluster.kv_pool.link.latency": "50.5 us"})
    link = HEALTHY.scenario.resolved.pool
    assert link is not None
    spike = at(2 * (50.5e-6 - link.link.latency))
    same_requests(run({"what": "latency_spike", "latency": spike, "at": "0 s"}), slow, tolerance=1e-9)


def test_repaired_is_as_new():
    """A degraded link that is repaired before the first request is, to the last bit, none. Would catch: a path that stays."""
    rows = [(arrival + 1.0, prompt, output) for arrival, prompt, output in LOAD]
    same_requests(run({"what": "link_degraded", "factor": 0.1, "at": "0 s", "for": "0.5 s"}, rows=rows), run(rows=rows))


def test_one_board_of_four():
    """Pages are striped: all sequences with far pages start over, and afterwards three quarters of L3 are left. Would catch:
    capacity that stays, a path at the rate of four boards, blocks that are still held in the lost board."""
    loss = {"what": "board_lost", "at": MIDDLE}
    result = run(loss, base=WIDE)
    assert result.summary["faults"][0]["recomputed"] > 0
    assert result.summary["requests"]["finished"] == len(LOAD)
    three = run(base=WIDE | {"cluster.kv_pool.count": 3})
    always = run(loss | {"at": "0 s"}, base=WIDE)
    same_requests(always, three)


@pytest.mark.parametrize("eviction", ["split", "lru"])
def test_without_boards_it_is_a_gpu(eviction: str):
    """All boards lost from the start is, to the last bit, no pool. Would catch: a watermark, a claim or a step that still
    counts L3."""
    alone = {"kv.l1": PATH["kv.l1"], "scheduler.watermark": 0.2}
    lost = {"what": "board_lost", "at": "0 s"}
    world = PATH | {"kv.placement.eviction": eviction, "scheduler.watermark": 0.2}
    same_requests(run(lost, base=world), run(base=alone))


def test_board_comes_back():
    """With its memory empty: later requests use L3 again."""
    result = run({"what": "board_lost", "at": at(middle(HEALTHY) / 4), "for": "10 ms"})
    (row,) = result.summary["faults"]
    assert row["recomputed"] > 0 and row["after"] > 0
    assert result.summary["requests"]["finished"] == len(LOAD)
    assert result.series["l3_bytes"][result.series["time_s"] > row["at_s"] + 0.02].max() > 0


def test_what_can_never_fit_again():
    """A request larger than L1 cannot end once the only board is gone: one that has come is aborted, one that comes later
    rejected. Would catch: a queue that is stuck behind it."""
    rows: Rows = [(0.0, 100, 1000), (0.0, 50, 100), (1.0, 600, 2), (1.0, 50, 10)]
    counts = run({"what": "board_lost", "at": "10 ms"}, rows=rows).summary["requests"]
    assert {name: counts[name] for name in ("finished", "rejected", "aborted")} == {"finished": 2, "rejected": 1, "aborted": 1}


def test_claims_on_what_is_gone():
    """Three requests claim 22 blocks each in 30 of L1 and a pool; when the pool goes, nothing is far yet, but two must give
    their claim up. Would catch: sequences that grow into a pool that is not there."""
    rows: Rows = [(0.0, 50, 300)] * 3
    result = run({"what": "board_lost", "at": "1 ms"}, rows=rows, base=PATH | {"scheduler.reserve": "full"})
    assert result.summary["faults"][0]["recomputed"] == 2
    assert result.summary["requests"]["finished"] == 3


def test_waits_for_a_place():
    """A request of 44 blocks comes while 30 can be had: it is not begun, only to be thrown out again, but waits for the board.
    Would catch: admission by the prompt alone."""
    (request,) = run({"what": "board_lost", "at": "0 s", "for": "50 ms"}, rows=[(0.01, 100, 600)]).requests.itertuples()
    assert (request.status, request.preemptions) == ("finished", 0)
    assert request.admitted_s == pytest.approx(0.05, rel=1e-12)


def test_static_batch_that_loses_a_prompt():
    """A sequence whose prompt is computed waits for that of another, which is aborted: it decodes then. Would catch: a batch
    that waits for a prompt that will never come."""
    rows: Rows = [(0.0, 10, 5), (0.0, 800, 5)]
    base = PATH | {"scheduler.batching": "static", "scheduler.prefill_chunk": "16 tokens"}
    result = run({"what": "board_lost", "at": "5 ms", "on_loss": "abort"}, rows=rows, base=base)
    assert result.requests["status"].tolist() == ["finished", "aborted"]


def test_gone_for_good_while_it_was_gone():
    """The only board is lost for a time, and meanwhile its link for good: who waited for the board is aborted. Would catch: a
    queue that waits for what will not come back."""
    faults = ({"what": "board_lost", "at": "0 s", "for": "50 ms"}, {"what": "link_down", "at": "20 ms"})
    result = run(*faults, rows=[(0.01, 100, 600), (0.01, 100, 10)])
    assert result.requests["status"].tolist() == ["aborted", "finished"]
    assert [row["aborted"] for row in result.summary["faults"]] == [0, 1]


def test_uplinks_stand_in_for_each_other():
    """One of two uplinks down is a switch with one. Would catch: an outage where there is another way."""
    switch = {"type": "cxl-2.0-switch", "uplinks": 2, "port_bandwidth": "0.5 GB/s"}
    base = PATH | {"cluster.gpus.count": 2, "cluster.kv_pool.switch": switch}
    one = run(base=base | {"cluster.kv_pool.switch": switch | {"uplinks": 1}})
    assert middle(one) > 1.1 * middle(run(base=base))
    same_requests(run({"what": "link_down", "link": "switch", "at": "0 s"}, base=base), one)
    gone = run({"what": "link_down", "link": "switch", "count": 2, "at": MIDDLE}, base=base)
    assert gone.summary["faults"][0]["recomputed"] > 0 and ended(gone) == len(LOAD)


@pytest.mark.parametrize(
    "fault",
    [
        {"what": "link_down", "for": "2 ms"},
        {"what": "link_down", "link": "gpu", "for": "2 ms"},
        {"what": "board_lost", "for": "3 ms", "on_loss": "abort"},
        {"what": "link_degraded", "factor": 0.3, "for": "5 ms"},
        {"what": "latency_spike", "latency": "1 ms", "for": "5 ms"},
    ],
    ids=lambda fault: f"{fault['what']}-{fault.get('link', '')}",
)
def test_at_random(fault: dict[str, Any]):
    """Faults at a rate: the same seed gives the same bytes, another one others; runs of steps end at changes. Would catch:
    draws that depend on anything but the seed, runs that pass over a fault, invariants that a fault breaks."""
    often = fault | {"mean_time_between": "15 ms"}
    one, again, single = run(often), run(often), run(often, coalesce=False)
    other = run(often, base=PATH | {"seed": 5})
    assert lasting(one.summary) == lasting(again.summary) == lasting(single.summary)
    same_requests(one, single)
    assert len(one.summary["faults"]) > 3
    times = [[row["at_s"] for row in result.summary["faults"]] for result in (one, other)]
    assert times[0] != times[1]
    assert ended(one) == len(LOAD)


@pytest.mark.parametrize("settings", [
    {"scheduler.batching": "static"}, {"scheduler.reserve": "full"}, {"scheduler.prefill_chunk": "16 tokens"},
    {"scheduler.asynchronous": True}, {"prefetch": {"predictor": "oracle"}},
    {"prefetch": {"predictor": "statistical", "depth": 2, "coverage": 0.8, "accuracy": 0.7}},
    {"kv.placement": {"eviction": "lfu"}}, {"kv.placement": {"eviction": "lru", "write_back": "immediate"}},
    {"kv.selection": {"kind": "pages", "tokens": "64 tokens", "overlap": 0.7}},
    {"kv.selection": {"kind": "pages", "tokens": "64 tokens", "overlap": 0.7}, "kv.placement": {"eviction": "lru"},
     "prefetch": {"predictor": "history"}},
], ids=str)  # fmt: skip
def test_together(settings: dict[str, Any]):
    """Everything breaks at once and again, under every scheduler: all invariants hold, no request is lost."""
    faults = [
        {"what": "board_lost", "mean_time_between": "20 ms", "for": "4 ms"},
        {"what": "board_lost", "count": 2, "at": MIDDLE, "on_loss": "abort"},
        {"what": "link_down", "mean_time_between": "10 ms", "for": "3 ms"},
        {"what": "link_degraded", "link": "gpu", "factor": 0.5, "mean_time_between": "10 ms", "for": "10 ms"},
        {"what": "latency_spike", "latency": "10 us", "at": "0 s"},
    ]
    result = run(*faults, base=WIDE | settings)
    assert ended(result) == len(LOAD)
    assert sum(row["aborted"] for row in result.summary["faults"]) == result.summary["requests"]["aborted"]


def test_after_the_end():
    """A fault that comes after the last token changes nothing. Would catch: an idle engine that waits for it."""
    late = run({"what": "board_lost", "at": "1 h"})
    assert lasting(late.summary, "provenance") == lasting(HEALTHY.summary, "provenance")
    assert late.summary["faults"] == []


def test_no_faults_are_none():
    """`faults: []` is, hash included, a scenario without. Would catch: a field that moves every hash."""
    world = PATH | {"workload.trace.path": __file__}
    assert scenario(world | {"faults": []}).sha256 == scenario(world).sha256


@pytest.mark.parametrize(("fault", "where", "message"), [
    ({"what": "link_dow", "at": "1 s"}, "faults.0.what", "did you mean 'link_down'?"),
    ({"what": "link_down"}, "faults.0.what", "give either at (a time) or mean_time_between (a rate)"),
    ({"what": "board_lost", "at": "1 s", "fro": "2 s"}, "faults.0.fro", "did you mean 'for'?"),
    ({"what": "board_lost", "at": "1 s", "factor": 0.5}, "faults.0.factor", "a board_lost does not use factor"),
    ({"what": "board_lost", "at": "1 s", "count": 2}, "faults.0.count", "2 of 1 boards cannot fail"),
    ({"what": "link_degraded", "at": "1 s"}, "faults.0.what", "needs a factor"),
    ({"what": "link_down", "at": "1 s", "for": "1 s", "on_loss": "abort"}, "faults.0.on_loss", "are not lost"),
    ({"what": "link_down", "at": "1 s", "link": "switch"}, "faults.0.link", "the pool has no switch"),
    ({"what": "link_down", "at": "1 s", "link": "gpu", "count": 2}, "faults.0.count", "as bad as all"),
    ({"what": "link_down", "at": 12}, "faults.0.at", "has no unit"),
    ("link_down", "faults.0", "expected a mapping with keys such as"),
], ids=lambda value: str(value)[:40])  # fmt: skip
def test_messages(fault: Any, where: str, message: str):
    """What is wrong is said with its place in the list. Would catch: a traceback, a path without the entry."""
    with pytest.raises(InputError) as error:
        scenario(PATH | {"workload.trace.path": __file__, "faults": [fault]})
    assert f"{where}: " in str(error.value)
    assert message in str(error.value)


def test_needs_a_pool():
    """Would catch: faults that are accepted and ignored on a GPU-only system."""
    with pytest.raises(InputError, match=r"there is no cluster\.kv_pool"):
        scenario({"workload.trace.path": __file__, "faults": [{"what": "link_down", "at": "1 s"}]})
